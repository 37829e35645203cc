"""Fake addresses: one of 198.18.0.0/15 for each name that clients in a sandbox look up.

A name keeps its address as long as the run lasts, and no address ever gets a second name: a client
that still has one would reach another host than it asked for. Imports nothing heavy, because the
relay must start in milliseconds.
"""

NAMES_LIMIT = 4096

_FIRST = 198 << 24 | 18 << 16 | 1  # not 198.18.0.0, which some programs take for a network's own


class FakeAddresses:
    """Which name has which address."""

    def __init__(self) -> None:
        self._addresses: dict[str, bytes] = {}
        self._names: dict[str, str] = {}

    def of(self, name: str) -> bytes | None:
        """Return the address of a name, four octets; None if all are in use."""
        found = self._addresses.get(name)
        if found is None and len(self._addresses) < NAMES_LIMIT:
            found = (_FIRST + len(self._addresses)).to_bytes(4)
            self._addresses[name] = found
            self._names[".".join(map(str, found))] = name
        return found

    def name_at(self, address: str) -> str | None:
        """Return the name that has an address; None if it was never given to any."""
        return self._names.get(address)
