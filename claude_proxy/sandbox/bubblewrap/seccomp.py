"""Writes the system call filter of a sandbox, as the BPF program that bwrap loads.

What is not listed is allowed: the namespaces keep the network out, and this closes the ways around
them. Law kept: no quiet downgrade (11); without libseccomp there is an error, not a run.
"""

import errno
import os
import platform
import socket
import termios
from typing import Any

from claude_proxy.errors import ConfigError

_LOW_32 = 0xFFFF_FFFF  # the kernel takes an int from the low half of a register

_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
_FAMILY_BITS = 6  # AF_MAX is 46
_TYPE_MASK = 0xF  # without SOCK_NONBLOCK and SOCK_CLOEXEC
_NETLINK_ROUTE = 0
_TIOCLINUX = 0x541C  # the same on every architecture that has the console it is for

_CLONE_NEWTIME = 0x80
_NAMESPACES = {
    "mount": 0x0002_0000,
    "cgroup": 0x0200_0000,
    "uts": 0x0400_0000,
    "ipc": 0x0800_0000,
    "user": 0x1000_0000,
    "pid": 0x2000_0000,
    "net": 0x4000_0000,
}

# Denied whole: by errno, each with its reason. The number is for a libseccomp that does not know
# the name; from 424 on, calls have one number on all architectures.
_DENIED: tuple[tuple[int, str, tuple[tuple[str, int | None], ...]], ...] = (
    (
        errno.ENOSYS,
        "io_uring opens sockets by requests that no filter sees; programs fall back",
        (("io_uring_setup", 425), ("io_uring_enter", 426), ("io_uring_register", 427)),
    ),
    (
        errno.ENOSYS,
        "its flags lie in memory, where no filter can read them; libraries fall back to clone",
        (("clone3", 435),),
    ),
    (
        errno.EPERM,
        "the kernel's keyrings are the user's, and hold keys of the file system and of Kerberos",
        (("add_key", None), ("keyctl", None), ("request_key", None)),
    ),
    (
        errno.EPERM,
        "a mount could take away what hides a file",
        (
            ("mount", None),
            ("umount", None),
            ("umount2", None),
            ("pivot_root", None),
            ("chroot", None),
            ("open_tree", 428),
            ("move_mount", 429),
            ("fsopen", 430),
            ("fsconfig", 431),
            ("fsmount", 432),
            ("fspick", 433),
            ("mount_setattr", 442),
            ("open_tree_attr", 467),
        ),
    ),
    (errno.EPERM, "another namespace has other rules", (("setns", None),)),
    (
        errno.EPERM,
        "it opens a file by its number on disk, whatever is mounted over it",
        (("open_by_handle_at", None),),
    ),
    (
        errno.EPERM,
        "programs in the kernel and its performance counters: wide, often broken, of no use here",
        (("bpf", None), ("perf_event_open", None), ("userfaultfd", None)),
    ),
    (
        errno.EPERM,
        "another process's memory and descriptors; debuggers have ptrace for it",
        (("process_vm_readv", None), ("process_vm_writev", None), ("pidfd_getfd", 438)),
    ),
    (
        errno.EPERM,
        "they command the whole machine; no capability is held for it, and none should be enough",
        (
            ("acct", None),
            ("adjtimex", None),
            ("clock_adjtime", None),
            ("clock_settime", None),
            ("delete_module", None),
            ("finit_module", None),
            ("init_module", None),
            ("ioperm", None),
            ("iopl", None),
            ("kexec_file_load", None),
            ("kexec_load", None),
            ("lookup_dcookie", None),
            ("nfsservctl", None),
            ("quotactl", None),
            ("quotactl_fd", 443),
            ("reboot", None),
            ("setdomainname", None),
            ("sethostname", None),
            ("settimeofday", None),
            ("swapoff", None),
            ("swapon", None),
            ("syslog", None),
            ("uselib", None),
            ("vhangup", None),
        ),
    ),
)


def problem() -> ConfigError | None:
    """Return what is missing for a filter, None if nothing is."""
    try:
        program()
    except ConfigError as error:
        return error
    return None


def program() -> bytes:
    """Return the filter for this machine; ConfigError if libseccomp is not there."""
    seccomp = _library()
    try:
        return _exported(seccomp)
    except (OSError, ValueError) as error:
        raise _unusable(f"libseccomp cannot build the system call filter: {error}") from error


def _library() -> Any:
    try:
        # Here, as importing it fails where the library is missing.
        import pyseccomp  # noqa: PLC0415
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise _unusable("libseccomp is not installed, and with it no system call filter") from error
    return pyseccomp


def _unusable(what: str) -> ConfigError:
    return ConfigError(
        what,
        where="seccomp",
        fix="install libseccomp2 (Debian, Ubuntu) or libseccomp (Fedora, Arch, Alpine); "
        "--without-seccomp runs without the filter, and less is kept out",
    )


def _exported(seccomp: Any) -> bytes:
    built = seccomp.SyscallFilter(seccomp.ALLOW)
    # Calls of another architecture (32-bit, x32) have other numbers: what tries them is ended.
    built.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    _deny_whole(seccomp, built)
    _deny_sockets(seccomp, built)
    _deny_namespaces(seccomp, built)
    _deny_terminal_input(seccomp, built)
    with open(os.memfd_create("seccomp", os.MFD_CLOEXEC), "w+b") as file:  # noqa: PTH123 - has no path
        built.export_bpf(file)
        file.seek(0)
        return file.read()


def _deny_whole(seccomp: Any, built: Any) -> None:
    for number, _reason, calls in _DENIED:
        for name, known_number in calls:
            call = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
            if call == -1:
                if known_number is None:
                    continue  # of another architecture
                call = known_number
            built.add_rule(seccomp.ERRNO(number), call)


def _deny_sockets(seccomp: Any, built: Any) -> None:
    """Leave sockets of the sandbox's own network; a Unix socket would reach the machine's."""
    masked, unequal = seccomp.MASKED_EQ, seccomp.NE
    refused = seccomp.ERRNO(errno.EAFNOSUPPORT)
    for family in range(1 << _FAMILY_BITS):
        this = seccomp.Arg(0, masked, _LOW_32, family)
        if family not in _FAMILIES:
            built.add_rule(refused, "socket", this)
        if family != socket.AF_UNIX:
            built.add_rule(refused, "socketpair", this)
    for bit in range(_FAMILY_BITS, 32):
        beyond = seccomp.Arg(0, masked, 1 << bit, 1 << bit)
        built.add_rule(refused, "socket", beyond)
        built.add_rule(refused, "socketpair", beyond)
    # Routes and addresses are what programs ask about; the rest are ways into the kernel.
    netlink = seccomp.Arg(0, masked, _LOW_32, socket.AF_NETLINK)
    unsupported = seccomp.ERRNO(errno.EPROTONOSUPPORT)
    built.add_rule(unsupported, "socket", netlink, seccomp.Arg(2, unequal, _NETLINK_ROUTE))
    # A pair of datagram sockets can be connected to somebody else afterwards.
    stream_like = {socket.SOCK_STREAM, socket.SOCK_SEQPACKET}
    for kind in set(range(_TYPE_MASK + 1)) - stream_like:
        built.add_rule(
            seccomp.ERRNO(errno.EPROTONOSUPPORT),
            "socketpair",
            seccomp.Arg(1, masked, _TYPE_MASK, kind),
        )


def _deny_namespaces(seccomp: Any, built: Any) -> None:
    """Deny new namespaces: in one of its own a process has every capability."""
    masked, refused = seccomp.MASKED_EQ, seccomp.ERRNO(errno.EPERM)
    flags_of_clone = 1 if platform.machine().startswith("s390") else 0
    for flag in _NAMESPACES.values():
        built.add_rule(refused, "clone", seccomp.Arg(flags_of_clone, masked, flag, flag))
        built.add_rule(refused, "unshare", seccomp.Arg(0, masked, flag, flag))
    built.add_rule(refused, "unshare", seccomp.Arg(0, masked, _CLONE_NEWTIME, _CLONE_NEWTIME))


def _deny_terminal_input(seccomp: Any, built: Any) -> None:
    """Deny typing into the user's terminal, whose shell reads it when the run is over."""
    for request in (termios.TIOCSTI, _TIOCLINUX):
        # Only the low half counts: with a bit above set the kernel does the same (CVE-2019-7303).
        built.add_rule(
            seccomp.ERRNO(errno.EPERM),
            "ioctl",
            seccomp.Arg(1, seccomp.MASKED_EQ, _LOW_32, request),
        )
