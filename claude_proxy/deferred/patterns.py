"""Regular expressions that are compiled when they are first used.

Compiling one takes up to milliseconds, and a start imports more than a hundred of which it uses a
few. Law kept: the pattern is the same; a test compiles every one, as no import does any more.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TYPE_CHECKING = False  # helper programs import this, and not `typing`, which takes milliseconds
if TYPE_CHECKING:
    from typing import Any


def lazy_pattern[Text: (str, bytes)](text: Text, flags: int = 0) -> re.Pattern[Text]:
    """Return `re.compile(text, flags)`, which raises `re.error` not now but when it is used.

    It has the attributes of a pattern; the functions of `re` do not take it.
    """
    stand_in: Any = _LazyPattern(text, flags)
    return stand_in  # type: ignore[no-any-return]  # it has the attributes of one


@contextmanager
def compiled_later() -> "Iterator[None]":
    """Within it, the patterns of a module that is imported are compiled when they are used.

    For one of somebody else's that has patterns which nothing here uses; not beside other threads.
    """
    compiled_now = re.compile
    re.compile = lazy_pattern  # type: ignore[assignment]
    try:
        yield
    finally:
        re.compile = compiled_now


class _LazyPattern:
    """A stand-in with the attributes of `re.Pattern`."""

    __slots__ = (
        "_compiled",
        "_flags",
        "findall",
        "finditer",
        "fullmatch",
        "match",
        "pattern",
        "search",
        "split",
        "sub",
    )

    def __init__(self, text: str | bytes, flags: int) -> None:
        self.pattern = text
        self._flags = flags
        self._compiled: Any = None

    def compiled(self) -> "Any":
        """Return the pattern itself."""
        if self._compiled is None:
            self._compiled = re.compile(self.pattern, self._flags)
        return self._compiled

    def __getattr__(self, name: str) -> "Any":
        if name not in _LazyPattern.__slots__:
            return getattr(self.compiled(), name)
        method = _method(self, name)
        setattr(self, name, method)
        return method


def _method(pattern: _LazyPattern, name: str) -> "Callable[..., Any]":
    """Return a method that compiles the pattern when it is called, and is found directly then."""
    found: Callable[..., Any] | None = None

    def call(*args: "Any") -> "Any":
        nonlocal found
        if found is None:
            found = getattr(pattern.compiled(), name)
            setattr(pattern, name, found)
        return found(*args)

    return call
