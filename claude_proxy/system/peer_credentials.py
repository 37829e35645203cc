"""Asks the kernel who is at the other end of a Unix socket.

The kernel noted it when the peer connected, so the peer cannot lie about its user. What it runs is
read from /proc while it is there: a fact for the audit log, on which no decision hangs.
"""

import os
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

_UNKNOWN = "?"
_SHOWN = 200  # characters of the path of a program

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_USER = struct.Struct("=II")  # struct xucred: version, uid; groups follow
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2  # <sys/un.h> of macOS and the BSDs
_XUCRED_BYTES = 76

_OVERFLOW_FILE = Path("/proc/sys/kernel/overflowuid")
_MAP_FILE = Path("/proc/self/uid_map")
_OVERFLOW_UID = 65534
_EVERY_UID = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that a connection on a Unix socket came from."""

    pid: int  # 0 where this process cannot see it
    uid: int
    executable: str

    def __str__(self) -> str:
        return f"pid {self.pid or _UNKNOWN} uid {self.uid} {self.executable}"


def peer_of(sock: socket.socket) -> Peer:
    """Return who connected to `sock`, the accepted end; OSError if the kernel does not tell."""
    if hasattr(socket, "SO_PEERCRED"):
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(raw)
        # As -1 it would be equal to no uid that can be named, but the number is unsigned.
        return Peer(pid, uid & _EVERY_UID, _executable_of(pid))
    raw = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES)
    _, uid = _USER.unpack_from(raw)
    return Peer(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID), uid, _UNKNOWN)


def nobody_in_particular() -> int | None:
    """Return the uid that is shown for all users who have no number here; None: all have one.

    Where this process is in a user namespace of its own, users from outside have no number in it,
    and are all shown as one: who admitted that one would admit everybody.
    """
    try:
        rows = [line.split() for line in _MAP_FILE.read_text().splitlines()]
        if ["0", "0", str(_EVERY_UID)] in rows:
            return None
    except OSError:
        return None if sys.platform != "linux" else _OVERFLOW_UID
    try:
        return int(_OVERFLOW_FILE.read_text())
    except (OSError, ValueError):
        return _OVERFLOW_UID


def _executable_of(pid: int) -> str:
    if pid <= 0:
        return _UNKNOWN
    try:
        path = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 - a Path costs four times the call
    except OSError:
        return _UNKNOWN
    # A comma ends the peer's own facts in the audit log: a path must not pose as what follows.
    if path.isprintable() and "," not in path:
        shown = path
    else:
        shown = "".join(character if _is_plain(character) else _UNKNOWN for character in path)
    return shown if len(shown) <= _SHOWN else f"...{shown[-_SHOWN:]}"


def _is_plain(character: str) -> bool:
    return character.isprintable() and character != ","
