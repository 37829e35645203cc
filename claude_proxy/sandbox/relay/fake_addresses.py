"""Fake addresses: one of 198.18.0.0/15 for each name that clients in a sandbox look up.

A name keeps its address as long as the run lasts, and no address ever gets a second name: a client
that still has one would reach another host than it asked for. So that this holds for a relay that
replaces one which ended, they are kept in a file without a name, which the launcher has open too.
Imports nothing heavy, because the relay must start in milliseconds.
"""

import os
import zlib

NAMES_LIMIT = 4096

_NETWORK = 198 << 24 | 18 << 16
_FIRST, _COUNT = 1, (1 << 17) - 2  # without the first and the last address of the network
_FILE_LIMIT = NAMES_LIMIT * (4 + 1 + 253 + 1)


class FakeAddresses:
    """Which name has which address; `kept` is a descriptor of the file."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._addresses: dict[str, bytes] = {}
        self._names: dict[str, str] = {}
        self._size = 0
        for line in os.pread(kept, _FILE_LIMIT, 0).decode("ascii").splitlines():
            address, _, name = line.partition(" ")
            self._add(name, bytes.fromhex(address))

    def of(self, name: str) -> bytes | None:
        """Return the address of a name, four octets; None if it can have none."""
        found = self._addresses.get(name)
        if found is None and len(self._addresses) < NAMES_LIMIT:
            found = self._free(name)
            line = f"{found.hex()} {name}\n".encode("ascii")
            try:
                if os.pwrite(self._kept, line, self._size) != len(line):
                    return None
            except OSError:
                return None
            self._add(name, found)
        return found

    def name_at(self, address: str) -> str | None:
        """Return the name that has an address; None if it was never given to any."""
        return self._names.get(address)

    def _add(self, name: str, address: bytes) -> None:
        self._addresses[name] = address
        self._names[_shown(address)] = name
        self._size += len(f"{address.hex()} {name}\n")

    def _free(self, name: str) -> bytes:
        """Return an address without a name; usually the same for the same name."""
        at = zlib.crc32(name.encode("ascii")) % _COUNT
        while _shown(address := (_NETWORK + _FIRST + at).to_bytes(4)) in self._names:
            at = (at + 1) % _COUNT
        return address


def _shown(address: bytes) -> str:
    return ".".join(map(str, address))
