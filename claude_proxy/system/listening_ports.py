"""Listening TCP ports of a network namespace, read from the kernel's table of sockets (proc(5)).

The table is that of the namespace in which its file was opened, in whichever it is read later.
"""

import os
from collections.abc import Iterator
from contextlib import suppress

TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")

_LOCAL_ADDRESS, _STATE = 1, 3  # columns
_LISTENING = b"0A"
_READ_AT_ONCE = 1 << 16
_MOST_BYTES = 4 << 20  # about 27,000 sockets
# As in the table: little-endian words of 32 bits.
_REACHED_BY_LOOPBACK = frozenset(
    {
        b"00000000",  # 0.0.0.0
        b"0100007F",  # 127.0.0.1
        b"0" * 32,  # [::]
        b"0" * 24 + b"01000000",  # [::1]
    }
)


def of_this_machine() -> frozenset[int]:
    """Return the ports of the own namespace that loopback leads to; none where it is not known."""
    found: set[int] = set()
    for path in TABLES:
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                found.update(ports_in(_whole(descriptor)))
            finally:
                os.close(descriptor)
    return frozenset(found)


def of_tables(descriptors: tuple[int, ...]) -> frozenset[int]:
    """Return the ports that loopback leads to in the namespace where the tables were opened."""
    return frozenset(port for table in descriptors for port in ports_in(_whole(table)))


def ports_in(table: bytes) -> Iterator[int]:
    """Yield the ports in the text of a table that 127.0.0.1 or [::1] leads to."""
    for line in table.split(b"\n")[1:]:
        fields = line.split()
        if len(fields) > _STATE and fields[_STATE] == _LISTENING:
            address, _, port = fields[_LOCAL_ADDRESS].partition(b":")
            if address in _REACHED_BY_LOOPBACK:
                yield int(port, 16)


def _whole(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = bytearray()
    while len(text) < _MOST_BYTES and (piece := os.read(descriptor, _READ_AT_ONCE)):
        text += piece
    return bytes(text)
