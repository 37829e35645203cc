"""Holds a credential's value so that nothing shows it by accident.

Law kept: secrets stay outside (9). No repr, format, log line, comparison or pickle gives the value
away; whoever needs it says `reveal`, which a reviewer can look for.
"""

import hmac
from typing import NoReturn


class Secret:
    """A value that is to be known to nobody but the host that it is for."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Return the value itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(set)"

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash(Secret)  # equal ones are alike, and nothing can be told from it

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")
