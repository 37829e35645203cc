"""Credential mask: hides a login that is renewed outside during a run; a separate program.

Usage: credential_mask.py LIFELINE PID OUTSIDE INSIDE [OUTSIDE INSIDE ...]

A file that is hidden by a mount becomes visible when another file is renamed over it outside: the
kernel removes the mount together with the old file. Claude Code renames a file this way whenever it
renews its login. This process watches the directory, enters the sandbox's mount namespace, where no
process inside can reach it, and covers the new file. If that fails, it kills the sandbox (fail
closed).
"""

import ctypes
import fcntl
import os
import select
import signal
import stat
import sys

_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_MS_BIND = 0x1000
_IN_MOVED_TO, _IN_CREATE = 0x80, 0x100
_NOTHING = b"/dev/null"
_ATTEMPTS = 100

_libc = ctypes.CDLL(None, use_errno=True)


def main(lifeline: int, pid: int, pairs: list[tuple[str, str]]) -> None:
    """Watch the (outside, inside) paths until the lifeline or the sandbox ends."""
    init = os.pidfd_open(pid)
    try:
        events = _watch({os.path.dirname(outside) for outside, _ in pairs})  # noqa: PTH120 - quick
        os.write(1, b"1")
        entered = False
        while select.select([events, lifeline, init], [], [])[0] == [events]:
            os.read(events, 64 * 1024)
            if not entered:
                _enter(pid)
                entered = True
            for _, inside in pairs:
                _cover(inside)
    except OSError:
        signal.pidfd_send_signal(init, signal.SIGKILL)
        raise


def _watch(directories: set[str]) -> int:
    events: int = _libc.inotify_init1(os.O_CLOEXEC)
    for directory in directories:
        if _libc.inotify_add_watch(events, os.fsencode(directory), _IN_MOVED_TO | _IN_CREATE) < 0:
            raise OSError(ctypes.get_errno(), "it cannot be watched", directory)
    return events


def _enter(pid: int) -> None:
    """Enter the mount namespace of a process, as its owner."""
    mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    owner = fcntl.ioctl(mounts, _NS_GET_USERNS)
    if os.fstat(owner).st_ino != os.stat("/proc/self/ns/user").st_ino:  # noqa: PTH116 - quick
        os.setns(owner, os.CLONE_NEWUSER)
    os.setns(mounts, os.CLONE_NEWNS)


def _cover(path: str) -> None:
    """Cover a file, even one that is still empty."""
    for _ in range(_ATTEMPTS):
        try:
            found = os.stat(path)  # noqa: PTH116 - quick
        except FileNotFoundError:
            return
        # Already covered: by /dev/null, or by bwrap's empty file, which is unlinked.
        if stat.S_ISCHR(found.st_mode) or not found.st_nlink:
            return
        # The file may be replaced again in the meantime, so check again.
        _libc.mount(_NOTHING, os.fsencode(path), None, _MS_BIND, None)
    raise OSError(ctypes.get_errno(), "it cannot be covered", path)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), list(zip(sys.argv[3::2], sys.argv[4::2], strict=True)))
