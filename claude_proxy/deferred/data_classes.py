"""Data classes whose methods are generated when they are needed.

`dataclasses.dataclass` writes and compiles a text for each class, most of a millisecond, and a
start imports hundreds of classes; of most it makes a few instances and compares none. Law kept: the
class is the same: its methods are those that `dataclasses` makes, and only the moment differs. The
first instances are filled in without one, as `dataclasses` would; what is not plain waits for it.
"""

import dataclasses
from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar

from claude_proxy.deferred.first_instances import (
    arguments_of,
    made_first,
    methods,
    plain_fields,
)

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - what others import from here
    from dataclasses import replace as replace  # noqa: PLC0414 - as above
else:

    def replace(instance: Any, **changes: Any) -> Any:
        """Return `dataclasses.replace(instance, **changes)`, which needs no methods for that."""
        names = _arguments.get(type(instance))
        if names is None or not changes.keys() <= set(names):
            return dataclasses.replace(instance, **changes)
        return type(instance)(**({name: getattr(instance, name) for name in names} | changes))

    def dataclass(**options: bool) -> Callable[[type], type]:
        """Return `dataclasses.dataclass(**options)`, whose work waits for the first instance."""

        def decorate(cls: type) -> type:
            # Only with slots it makes another class, behind which it can wait.
            waits = options.get("slots") and "__init__" not in cls.__dict__
            return _deferred(cls, options) if waits else dataclasses.dataclass(**options)(cls)

        return decorate


_making = RLock()  # two threads may need a class at the same time
_FIELDS = "__dataclass_fields__"  # by which `dataclasses` knows its classes
_names: dict[type, tuple[str, ...]] = {}  # of the fields of each class that is plain
_arguments: dict[type, tuple[str, ...]] = {}  # those that the class is called with
# What the class that waits has of its own, as every class has.
_OWN = frozenset(
    {"__slots__", "__dict__", "__weakref__", "__doc__", "__getstate__", "__setstate__"}
)


def field_names(cls: type) -> tuple[str, ...]:
    """Return the names of the fields of a data class, as `dataclasses.fields` has them."""
    return _names.get(cls) or tuple(field.name for field in dataclasses.fields(cls))


def _deferred(cls: type, options: dict[str, bool]) -> Any:
    """Return the class with slots, but with methods that are made when they are needed."""
    names = [name for name, kind in cls.__annotations__.items() if not _is_of_class(kind)]
    inherited = {name for base in cls.__mro__[1:-1] for name in _slots_of(base)}
    body = {name: value for name, value in cls.__dict__.items() if name not in {*_OWN, *names}}
    body |= {
        "__slots__": tuple(name for name in names if name not in inherited),
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__getstate__": _getstate,
        "__setstate__": _setstate,
    }
    deferred: Any = type(cls)(cls.__name__, cls.__bases__, body)
    make = _Maker(cls, deferred, options)
    own = set(cls.__dict__)
    if "__eq__" in own and body.get("__hash__") is None:
        own.discard("__hash__")  # it is Python's, of any class that has only the other
    for name in (_FIELDS, "__dataclass_params__", "__match_args__"):
        setattr(deferred, name, _Attribute(name, make))
    plain = plain_fields(cls, names, options)
    if plain is None:
        deferred.__init__ = made_first("__init__", deferred, make)
        return deferred
    for name, value in methods(deferred, plain, options, make).items():
        if name not in own:
            setattr(deferred, name, value)
    _names[deferred], _arguments[deferred] = tuple(names), arguments_of(plain)
    return deferred


class _Maker:
    """Makes the methods of a class, once."""

    def __init__(self, cls: type, deferred: Any, options: dict[str, bool]) -> None:
        self._cls: type | None = cls
        self._deferred = deferred
        self._options = options

    def __call__(self) -> None:
        """Make them, unless that has been done."""
        with _making:
            if self._cls is not None:
                self._make(self._cls)
                self._cls = None

    def _make(self, cls: type) -> None:
        if not cls.__doc__:
            cls.__doc__ = cls.__name__  # or `dataclasses` would write the signature there
        before = dict(cls.__dict__)
        made: Any = dataclasses.dataclass(**self._options)(cls)
        kept = {*_OWN, *getattr(made, _FIELDS)}
        new = {
            name: value
            for name, value in made.__dict__.items()
            if name not in kept and before.get(name, _deferred) is not value
        }
        # The method that makes an instance comes last: until then, others wait for the lock.
        init = new.pop("__init__")
        for name, value in new.items():
            setattr(self._deferred, name, value)
        self._deferred.__init__ = init


class _Attribute:
    """An attribute of a class that is made with its methods."""

    def __init__(self, name: str, make: Callable[[], None]) -> None:
        self._name = name
        self._make = make

    def __get__(self, instance: object, owner: type) -> Any:
        self._make()
        return getattr(owner, self._name)


def _is_of_class(kind: object) -> bool:
    """Tell whether an annotation is of the class and not of its instances."""
    return kind is ClassVar or getattr(kind, "__origin__", None) is ClassVar


def _slots_of(base: type) -> tuple[str, ...]:
    slots = base.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


# Instances that are copied or unpickled may be the first of their class.


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, name) for name in field_names(type(self))]


def _setstate(self: Any, state: list[Any]) -> None:
    for name, value in zip(field_names(type(self)), state, strict=True):
        object.__setattr__(self, name, value)
