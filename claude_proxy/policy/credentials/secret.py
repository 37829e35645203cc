"""Secret: a type for a credential's value that cannot be shown by accident.

Secrets stay outside: no repr, format, log line, comparison or pickle shows the value; code that
needs it calls `reveal`, which a reviewer can search for.
"""

import hmac
from typing import NoReturn


class Secret:
    """A secret value, meant only for the hosts that its credential is bound to."""

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
        return hash(Secret)  # equal secrets have equal hashes, and the hash reveals nothing

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")
