"""Listeners of claude-proxy on this machine: whether a port is one, so that no run is led to it.

Read in /proc (proc(5)), as far as this user may. A help against a mistake and no boundary: what
listens there may change at any time.
"""

import os
from collections.abc import Iterator
from contextlib import suppress

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LOCAL_ADDRESS, _STATE, _INODE = 1, 3, 9  # columns
_LISTENING = "0A"
_PROGRAMS = frozenset({"claude-proxy", "claude_proxy"})
_COMMANDS = frozenset({"serve", "gateway", "relay"})  # a relay leads to a proxy
_MOST_PROCESSES = 4096


def is_proxy(port: int) -> bool:
    """Return whether a `claude-proxy serve`, `gateway` or `relay` listens on a TCP port."""
    inodes = {f"socket:[{inode}]" for inode in _inodes_of(port)}
    return bool(inodes) and any(_holds(pid, inodes) for pid in _proxies())


def _inodes_of(port: int) -> Iterator[str]:
    for table in _TABLES:
        with suppress(OSError), open(table, encoding="ascii") as file:  # noqa: PTH123 - no pathlib here
            for line in file:
                fields = line.split()
                is_listener = len(fields) > _INODE and fields[_STATE] == _LISTENING
                if is_listener and fields[_LOCAL_ADDRESS].endswith(f":{port:04X}"):
                    yield fields[_INODE]


def _proxies() -> Iterator[str]:
    pids = [name for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - as above
    for pid in pids[:_MOST_PROCESSES]:
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
            words = file.read(4096).decode(errors="replace").split("\0")
            names = [os.path.basename(word) for word in words[:4]]  # noqa: PTH119
            if _PROGRAMS & set(names) and _COMMANDS & set(words):
                yield pid


def _holds(pid: str, inodes: set[str]) -> bool:
    directory = f"/proc/{pid}/fd"
    with suppress(OSError):
        for descriptor in os.listdir(directory):  # noqa: PTH208
            with suppress(OSError):
                if os.readlink(f"{directory}/{descriptor}") in inodes:  # noqa: PTH115
                    return True
    return False
