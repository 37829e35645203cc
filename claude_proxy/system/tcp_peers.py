"""Programs of TCP clients on this machine: the process at the other end of a connection, by /proc.

Only for messages to a person: no decision depends on it. It takes some milliseconds, and finds
nothing for processes of other users, in another namespace, or on other systems than Linux.
"""

import os
import sys
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

_TABLES = ("tcp", "tcp6")
_INODE = 9  # of the columns of /proc/net/tcp, see proc_net_tcp in the kernel's documentation
_MOST_LINES = 20_000
_MOST_LINKS = 20_000

type Address = tuple[str, int]


def program_at(peer: Address, own: Address) -> str | None:
    """Return the program whose socket has the address `peer` and is connected to `own`.

    Its name without directories; None if it is not found.
    """
    with suppress(OSError, ValueError, IndexError):
        inode = _inode_of(_spelled(peer), _spelled(own))
        return None if inode is None else _holder_of(f"socket:[{inode}]")
    return None


def _spelled(address: Address) -> frozenset[str]:
    """Return an address as the tables spell it: 32-bit words in the machine's order, in hex."""
    found = ip_address(address[0])
    packed = [found.packed]
    if found.version == 4:  # noqa: PLR2004
        packed.append(bytes(10) + b"\xff\xff" + found.packed)
    return frozenset(f"{_words(each)}:{address[1]:04X}" for each in packed)


def _words(packed: bytes) -> str:
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def _inode_of(local: frozenset[str], remote: frozenset[str]) -> str | None:
    for table in _TABLES:
        with suppress(OSError), Path("/proc/net", table).open(encoding="ascii") as lines:
            for line, _ in zip(lines, range(_MOST_LINES), strict=False):
                fields = line.split()
                if fields[1] in local and fields[2] in remote:
                    return fields[_INODE]
    return None


def _holder_of(link: str) -> str | None:
    looked_at = 0
    for pid in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208 - names only
        directory = f"/proc/{pid}/fd"
        with suppress(OSError):
            for name in os.listdir(directory):  # noqa: PTH208
                looked_at += 1
                if os.readlink(f"{directory}/{name}") == link:  # noqa: PTH115
                    return Path(os.readlink(f"/proc/{pid}/exe")).name  # noqa: PTH115
        if looked_at > _MOST_LINKS:
            return None
    return None
