"""Mount calls: what glibc's mount(2) does to an open directory entry, by its descriptor.

Law kept: no path is resolved twice. Each call names an O_PATH descriptor, as "self/fd/N" below the
host's /proc, which has to be the working directory: the sandbox's own /proc does not show processes
that are outside of it.
"""

import ctypes
import os
import stat

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC = 0x20, 0x1000, 0x4000
# statvfs(3) and mount(2) have the same numbers for these, but not for relatime.
_SAME_FLAGS = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | 1024 | 2048
_ST_RELATIME, _MS_RELATIME = 4096, 1 << 21
# <asm-generic/unistd.h>; the numbers are the same on every architecture (Linux 5.2).
_OPEN_TREE, _MOVE_MOUNT = 428, 429
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC, _AT_EMPTY_PATH, _AT_RECURSIVE = 1, 0o2000000, 0x1000, 0x8000
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x4, 0x40

_libc = ctypes.CDLL(None, use_errno=True)


def bind_to_itself(entry: int, *, whole: bool = False) -> None:
    """Mount an entry on itself; `whole`: with what is mounted below it."""
    place = _place_of(entry)
    _mount(place, place, None, _MS_BIND | (_MS_REC if whole else 0))


def hide(entry: int) -> None:
    """Mount nothing over an entry: /dev/null, or an empty directory."""
    place = _place_of(entry)
    if stat.S_ISDIR(os.fstat(entry).st_mode):
        flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV
        _mount(b"tmpfs", place, b"tmpfs", flags, b"mode=0555,size=4k")
    else:
        _mount(b"/dev/null", place, None, _MS_BIND)


def make_read_only(entry: int) -> None:
    """Make the mount whose root this is read-only, keeping its other flags."""
    now = os.fstatvfs(entry).f_flag
    kept = now & _SAME_FLAGS | (_MS_RELATIME if now & _ST_RELATIME else 0)
    _mount(None, _place_of(entry), None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)


def hide_untraceable(proc: int) -> None:
    """Make a /proc show a process only what it may trace (hidepid=4, Linux 5.8)."""
    kept = os.fstatvfs(proc).f_flag & (_MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_RDONLY)
    _mount(None, _place_of(proc), None, _MS_REMOUNT | kept, b"hidepid=4")


def is_read_only(entry: int) -> bool:
    """Tell whether the mount on which an entry is found is read-only."""
    return bool(os.fstatvfs(entry).f_flag & os.ST_RDONLY)


def clone(entry: int) -> int:
    """Return a copy of the mount whose root this is, attached nowhere (open_tree(2))."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE
    return _checked(_libc.syscall(_OPEN_TREE, entry, b"", flags))


def attach(tree: int, entry: int) -> None:
    """Mount a copy that `clone` has made on an entry (move_mount(2))."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    _checked(_libc.syscall(_MOVE_MOUNT, tree, b"", entry, b"", flags))


def mount_of(entry: int) -> int:
    """Return the id of the mount on which an entry is found."""
    return mount_in(f"self/fdinfo/{entry}")


def mount_in(path: str, directory: int | None = None) -> int:
    """Return the mount id that a file of /proc/PID/fdinfo names."""
    for line in read_all(path, directory).splitlines():
        if line.startswith(b"mnt_id:"):
            return int(line[7:])
    raise OSError(f"no mount id in {path}")


def read_all(path: str, directory: int | None = None) -> bytes:
    """Return the content of a file of /proc."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        pieces = []
        while piece := os.read(descriptor, 1 << 16):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def watch(events: int, directory: int, mask: int) -> int:
    """Add an open directory to an inotify instance, and return the number of the watch."""
    return _checked(_libc.inotify_add_watch(events, _place_of(directory), mask))


def new_watches() -> int:
    """Return an inotify instance whose reads do not wait."""
    return _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))


def _place_of(entry: int) -> bytes:
    return b"self/fd/%d" % entry


def _mount(
    source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None = None
) -> None:
    _checked(_libc.mount(source, target, kind, ctypes.c_ulong(flags), data))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
