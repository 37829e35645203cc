"""Methods for the first instances of a data class, which nothing has to be generated for.

Law kept: they do what those of `dataclasses` do, and make way for them: where a class is not plain
there are none, and for arguments that do not fit, the generated ones find the words.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_MANY = 512  # calls take as long as to generate the methods
_REQUIRED: Any = object()  # in place of a default
_PLAIN_OPTIONS = {"slots", "frozen", "eq", "repr", "kw_only"}
_FIELDS = "__dataclass_fields__"  # by which `dataclasses` knows its classes
_SPECIAL = ("ClassVar", "InitVar", "KW_ONLY")  # in an annotation that is a text


class PlainField:
    """A field as most are."""

    __slots__ = ("compared", "default", "is_argument", "name", "required")

    def __init__(self, name: str, value: Any) -> None:
        """Take what the class has of that name: a default, or what `field` has returned."""
        self.name = name
        self.compared = self.is_argument = True
        self.default: Callable[[], Any] = lambda: value
        self.required = value is _REQUIRED
        if isinstance(value, dataclasses.Field):
            given = value.default
            made = value.default_factory
            self.compared, self.is_argument = value.compare, value.init
            self.required = given is made is dataclasses.MISSING
            self.default = (lambda: given) if made is dataclasses.MISSING else made


def plain_fields(
    cls: type, names: Sequence[str], options: Mapping[str, bool]
) -> tuple[PlainField, ...] | None:
    """Return the fields of a class; None if there is more to it."""
    if options.keys() - _PLAIN_OPTIONS or any(_FIELDS in one.__dict__ for one in cls.__mro__[1:]):
        return None
    found = {name: cls.__dict__.get(name, _REQUIRED) for name in names}
    if not all(_is_plain(cls.__annotations__[name], value) for name, value in found.items()):
        return None
    return tuple(PlainField(name, value) for name, value in found.items())


def _is_plain(annotation: object, value: object) -> bool:
    if isinstance(annotation, str) and any(word in annotation for word in _SPECIAL):
        return False
    if isinstance(annotation, dataclasses.InitVar) or annotation is dataclasses.KW_ONLY:
        return False
    if not isinstance(value, dataclasses.Field):
        return True
    return value.hash is None and value.kw_only is dataclasses.MISSING


def methods(
    deferred: Any,
    fields: Sequence[PlainField],
    options: Mapping[str, bool],
    make: Callable[[], None],
) -> dict[str, Any]:
    """Return the methods of a class that has none yet; `make` puts the generated in their place."""
    frozen, compared = options.get("frozen", False), options.get("eq", True)
    names = tuple(field.name for field in fields if field.compared)
    counted = _counted(make)
    keywords = options.get("kw_only", False)
    found: dict[str, Any] = {
        "__init__": _filling(deferred, fields, keywords=keywords, make=counted),
        "__match_args__": () if keywords else arguments_of(fields),
    }
    if compared:
        found["__eq__"] = _comparing(names, counted)
        found["__hash__"] = _hashing(names, counted) if frozen else None
    later = [
        ("__repr__", options.get("repr", True)),
        ("__setattr__", frozen),
        ("__delattr__", frozen),
        ("__replace__", sys.version_info >= (3, 13)),
    ]
    return found | {name: made_first(name, deferred, make) for name, wanted in later if wanted}


def arguments_of(fields: Sequence[PlainField]) -> tuple[str, ...]:
    """Return the names of those that are arguments of the class."""
    return tuple(field.name for field in fields if field.is_argument)


def made_first(name: str, deferred: Any, make: Callable[[], None]) -> Callable[..., Any]:
    """Return a method that has the methods generated, and then calls the one of its name."""

    def stand_in(self: Any, *args: Any, **kwargs: Any) -> Any:
        make()
        return getattr(deferred, name)(self, *args, **kwargs)

    return stand_in


def _counted(make: Callable[[], None]) -> Callable[[bool], bool]:
    """Return a function that tells whether the generated methods are there, as they then are.

    They are made where `now` is true, or after many calls.
    """
    calls = 0

    def asked(now: bool) -> bool:  # noqa: FBT001 - called for each instance
        nonlocal calls
        calls += 1
        if not now and calls < _MANY:
            return False
        make()
        return True

    return asked


def _filling(
    deferred: Any, fields: Sequence[PlainField], *, keywords: bool, make: Callable[[bool], bool]
) -> Callable[..., None]:
    fill = object.__setattr__
    names = arguments_of(fields)
    most = 0 if keywords else len(names)
    known = set(names)
    required = {field.name for field in fields if field.required and field.is_argument}
    defaults = {field.name: field.default for field in fields if not field.required}
    filled = [name for field in fields if (name := field.name) in known or name in defaults]
    followed = hasattr(deferred, "__post_init__")

    def stand_in(self: Any, *args: Any, **kwargs: Any) -> None:
        values = dict(zip(names, args, strict=False)) | kwargs
        once = len(args) <= most and len(values) == len(args) + len(kwargs)
        if make(not (once and required <= values.keys() <= known)):
            deferred.__init__(self, *args, **kwargs)
            return
        for name in filled:
            fill(self, name, values[name] if name in values else defaults[name]())
        if followed:
            self.__post_init__()

    return stand_in


def _comparing(names: Sequence[str], make: Callable[[bool], bool]) -> Callable[[Any, Any], Any]:
    def stand_in(self: Any, other: Any) -> Any:
        make(False)
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in names)

    return stand_in


def _hashing(names: Sequence[str], make: Callable[[bool], bool]) -> Callable[[Any], int]:
    def stand_in(self: Any) -> int:
        make(False)
        return hash(tuple([getattr(self, name) for name in names]))

    return stand_in
