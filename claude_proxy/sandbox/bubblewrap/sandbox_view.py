"""View of a sandbox for a program outside: its namespaces, with the host's files read-only.

The program sees paths as the processes inside do, but stays outside of their process ids, so that
none of them can see, trace or kill it. It has a copy of their mounts. There everything is read-only
except the file systems that were created for the sandbox alone, and there is no /proc, whose links
lead out of the copy: whatever a path is made to lead to while it is resolved, nothing can be
created where the host sees it.

Law kept: the sandbox cannot move its own wall: the program has no capability but the one to look at
processes inside.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys

from claude_proxy.deferred.patterns import lazy_pattern

SO_NETNS_COOKIE = 71

_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_SYS_MOUNT_SETATTR = 442  # on every architecture
_RDONLY, _PRIVATE, _RECURSIVE, _EMPTY_PATH = 0x1, 1 << 18, 0x8000, 0x1000
_MNT_DETACH, _UMOUNT_NOFOLLOW = 0x2, 0x8
_AT_FDCWD = -100
_PR_SET_DUMPABLE = 4
_CAPABILITIES_3 = 0x2008_0522
_CAP_SYS_PTRACE = 1 << 19
_OCTAL = lazy_pattern(rb"\\([0-7]{3})")

_LIBC = ctypes.CDLL(None, use_errno=True)


class SandboxView:
    """What tells the sandbox's own things from the host's."""

    def __init__(self, devices: frozenset[int], network: int | None) -> None:
        self.devices = devices  # of the file systems that were created for the sandbox
        self.network = network  # the cookie of its network namespace; None: it has the host's

    def is_own(self, device: int) -> bool:
        """Tell whether a file system is the sandbox's own."""
        return device in self.devices


class MountPoint:
    """One line of /proc/PID/mountinfo (proc(5))."""

    def __init__(self, line: bytes) -> None:
        before, _, after = line.partition(b" - ")
        fields = before.split(b" ")
        major, minor = fields[2].split(b":")
        self.device = os.makedev(int(major), int(minor))
        self.path = _OCTAL.sub(lambda octal: bytes([int(octal[1], 8)]), fields[4])
        self.writable = b"rw" in fields[5].split(b",")
        self.kind = after.split(b" ")[0]


def mounts_of(process: int, processes: int) -> list[MountPoint]:
    """Return the mounts that a process sees, in the order in which they were made.

    `processes` is a descriptor of /proc.
    """
    descriptor = os.open(f"{process}/mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=processes)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        return [MountPoint(line) for line in file.read().splitlines()]


def enter(init: int, processes: int, of_host: frozenset[int], *, unfiltered: bool) -> SandboxView:
    """Move this process, which has one thread, into the view of the sandbox of process `init`.

    `processes` is a descriptor of /proc, `of_host` the devices that the host has mounted;
    `unfiltered`: the sandbox has the host's network. OSError if the kernel refuses; then this
    process is in no state to go on.
    """
    mounts, network = (
        os.open(f"{init}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=processes)
        for name in ("mnt", "net")
    )
    # The one that owns the mounts. bwrap may have made another one below it for COMMAND; there,
    # the threads of this process would count among those that the sandbox may have.
    owner = fcntl.ioctl(mounts, _NS_GET_USERNS)
    mounted = mounts_of(init, processes)
    os.setns(owner, os.CLONE_NEWUSER)
    os.setns(mounts, os.CLONE_NEWNS)
    if not unfiltered:
        os.setns(network, os.CLONE_NEWNET)
    own = [at for at in mounted if at.kind == b"tmpfs" and at.device not in of_host]
    _close_copy(own, processes)
    _drop_capabilities()
    for descriptor in (mounts, network, owner):
        os.close(descriptor)
    cookie = None if unfiltered else _network_cookie()
    return SandboxView(frozenset(at.device for at in own), cookie)


def _close_copy(own: list[MountPoint], processes: int) -> None:
    """Copy the mounts, and let nothing be created but in the sandbox's own file systems."""
    os.unshare(os.CLONE_NEWNS)
    _set_mount(_AT_FDCWD, b"/", _RECURSIVE, (_RDONLY, 0, _PRIVATE))
    for at in mounts_of(os.getpid(), processes):
        if at.kind == b"proc":
            # It fails for what went with a mount above.
            _LIBC.umount2(at.path, _MNT_DETACH | _UMOUNT_NOFOLLOW)
    for at in own:
        if at.writable:
            _make_writable(at)
    left = mounts_of(os.getpid(), processes)
    kept = {at.device for at in own}
    if any(at.kind == b"proc" or (at.writable and at.device not in kept) for at in left):
        raise OSError(errno.EBUSY, "the copy of the mounts cannot be closed")


def _make_writable(at: MountPoint) -> None:
    """Make a file system of the sandbox's own writable again, if it is what is at its path."""
    try:
        place = os.open(at.path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # another mount hides it
    try:
        if os.fstat(place).st_dev == at.device:
            _set_mount(place, b"", _EMPTY_PATH, (0, _RDONLY, 0))
    finally:
        os.close(place)


def _set_mount(place: int, path: bytes, flags: int, changes: tuple[int, int, int]) -> None:
    """Call mount_setattr(2): the attributes to set, those to clear, the propagation."""
    attributes = struct.pack("<4Q", *changes, 0)
    number = ctypes.c_long(_SYS_MOUNT_SETATTR)
    result = _LIBC.syscall(number, place, path, flags, attributes, ctypes.c_size_t(len(attributes)))
    _check(result, "mount_setattr")


def _drop_capabilities() -> None:
    """Keep the one by which descriptors of processes inside can be duplicated."""
    header = struct.pack("<Ii", _CAPABILITIES_3, 0)
    low = struct.pack("<III", _CAP_SYS_PTRACE, _CAP_SYS_PTRACE, 0)
    _check(_LIBC.capset(header, low + bytes(12)), "capset")
    _check(_LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def _network_cookie() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    return int.from_bytes(raw, sys.byteorder)


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
