"""Link cover: a mount on a symbolic link in a sandbox; a separate program.

Usage: link_cover.py PID SOURCE LINK [SOURCE LINK ...]

bwrap mounts on what a link leads to, so the link itself could be replaced from inside. This program
enters the mount namespace of a sandbox whose COMMAND has not started, and mounts a file of the
sandbox's own on each link. It fails if a path is no link any more (fail closed).
"""

import ctypes
import fcntl
import os
import stat
import struct
import sys

_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_AT_FDCWD = -100
# The same numbers on every architecture that bubblewrap supports (asm-generic/unistd.h).
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE = 1
_FROM_EMPTY_PATH, _TO_EMPTY_PATH = 0x4, 0x40
_AT_EMPTY_PATH = 0x1000
_READ_ONLY = 0x1 | 0x2 | 0x4  # MOUNT_ATTR_RDONLY, _NOSUID, _NODEV

_libc = ctypes.CDLL(None, use_errno=True)


def main(pid: int, pairs: list[tuple[str, str]]) -> None:
    """Cover each link with its source, read-only."""
    _enter(pid)
    for source, link in pairs:
        _cover(source, link)


def _enter(pid: int) -> None:
    mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    owner = fcntl.ioctl(mounts, _NS_GET_USERNS)
    if os.fstat(owner).st_ino != os.stat("/proc/self/ns/user").st_ino:  # noqa: PTH116 - quick
        os.setns(owner, os.CLONE_NEWUSER)
    os.setns(mounts, os.CLONE_NEWNS)


def _cover(source: str, link: str) -> None:
    target = os.open(link, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISLNK(os.fstat(target).st_mode):
        raise OSError(22, "it is no symbolic link", link)
    tree = _call(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    attributes = struct.pack("QQQQ", _READ_ONLY, 0, 0, 0)
    _call(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes))
    _call(_MOVE_MOUNT, tree, b"", target, b"", _FROM_EMPTY_PATH | _TO_EMPTY_PATH)
    if not stat.S_ISREG(os.lstat(link).st_mode):
        raise OSError(22, "it was replaced", link)


def _call(number: int, *arguments: int | bytes) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    found: int = _libc.syscall(ctypes.c_long(number), *words)
    if found < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), list(zip(sys.argv[2::2], sys.argv[3::2], strict=True)))
