"""Peer credentials of a Unix socket: uid, pid and program (SO_PEERCRED, LOCAL_PEERCRED).

The kernel records uid and pid when the peer connects, so a peer cannot forge its user. Its program
is read from /proc for the audit log only; no decision depends on it.
"""

import os
import socket
import struct
import sys
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass

_UNKNOWN = "?"
_SHOWN = 200  # characters of a program's path

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
    """The process that connected to a Unix socket."""

    pid: int  # 0 if it is in another PID namespace
    uid: int
    executable: str  # its path, or "?"

    def __str__(self) -> str:
        return f"pid {self.pid or _UNKNOWN} uid {self.uid} {self.executable}"


def peer_of(sock: socket.socket) -> Peer:
    """Return the process that connected to `sock`, the accepted end; OSError if it is unknown."""
    if hasattr(socket, "SO_PEERCRED"):
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(raw)
        # A uid is unsigned, but struct ucred is unpacked as signed here.
        return Peer(pid, uid & _EVERY_UID, _executable_of(pid))
    raw = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES)
    _, uid = _USER.unpack_from(raw)
    return Peer(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID), uid, _UNKNOWN)


def is_running(pid: int) -> bool:
    """Tell whether the process of a peer may still exist; a pid of 0 says nothing about it."""
    if not pid:
        return True
    try:
        os.kill(pid, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def overflow_uid() -> int | None:
    """Return the uid that the kernel shows for users without a mapping; None if all have one.

    In a user namespace, users outside the mapping all appear as this uid, so admitting it would
    admit all of them.
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
    # In the audit log a comma separates the peer from what follows it, so a path must have none.
    if path.isprintable() and "," not in path:
        shown = path
    else:
        shown = "".join(character if _is_plain(character) else _UNKNOWN for character in path)
    return shown if len(shown) <= _SHOWN else f"...{shown[-_SHOWN:]}"


def _is_plain(character: str) -> bool:
    return character.isprintable() and character != ","
