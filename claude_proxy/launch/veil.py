"""Hides a login again when it is renewed outside while a run goes on; a program of its own.

Usage: veil.py LIFELINE PID PATH [PATH ...]

A file that is hidden by a mount comes to light when another is renamed to its name from outside:
the kernel takes the mount away with the name that it was on. Claude Code outside does so whenever
it renews its login. This process stands in the sandbox's mount namespace, out of reach for what
runs there, and covers the new file in the moment that the kernel tells of it.
"""

import ctypes
import fcntl
import os
import select
import stat
import sys

_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_MS_BIND = 0x1000
_IN_CREATE, _IN_MOVED_TO = 0x100, 0x80
_READY = b"1"
_NOTHING = b"/dev/null"

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> int:
    """Watch until the lifeline ends; say on standard output when watching has begun."""
    lifeline, pid, *paths = arguments
    events = os.memfd_create("events") if not paths else _libc.inotify_init1(os.O_CLOEXEC)
    for directory in {os.path.dirname(path) for path in paths}:  # noqa: PTH120 - starts fast
        # Before the namespaces are entered: it is outside that the file is renewed.
        if _libc.inotify_add_watch(events, os.fsencode(directory), _IN_CREATE | _IN_MOVED_TO) < 0:
            return 1
    _enter(pid)
    for path in paths:
        _hide(path)
    os.write(1, _READY)
    while int(lifeline) not in select.select([events, int(lifeline)], [], [])[0]:
        os.read(events, 64 * 1024)
        for path in paths:
            _hide(path)
    return 0


def _enter(pid: str) -> None:
    """Enter the mount namespace of a process, as its owner."""
    mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    owner = fcntl.ioctl(mounts, _NS_GET_USERNS)
    if os.fstat(owner).st_ino != os.stat("/proc/self/ns/user").st_ino:  # noqa: PTH116 - likewise
        os.setns(owner, os.CLONE_NEWUSER)
    os.setns(mounts, os.CLONE_NEWNS)


def _hide(path: str) -> None:
    """Cover a file that has something in it."""
    try:
        found = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - likewise
    except OSError:
        return  # there is none
    if not stat.S_ISCHR(found.st_mode) and found.st_size:
        _libc.mount(_NOTHING, os.fsencode(path), None, _MS_BIND, None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
