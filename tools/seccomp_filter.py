"""The sandbox's system call filter: its rules, built with libseccomp for each architecture.

`make seccomp` writes claude_proxy/sandbox/bubblewrap/filters/ARCHITECTURE.bpf, which
`claude_proxy.sandbox.bubblewrap.seccomp` loads. A test compares these files with what the rules
build.

What no rule names is allowed: the namespaces keep the network out, and this filter closes the ways
around them.
"""

import errno
import socket
import struct
import sys
import termios
from pathlib import Path

from claude_proxy.sandbox.bubblewrap.seccomp import Reported
from tools.libseccomp import (
    ALLOW,
    ARCHITECTURES,
    KILL_PROCESS,
    Filter,
    errno_action,
    masked,
    not_equal,
)

DIRECTORY = Path(__file__).resolve().parents[1] / "claude_proxy/sandbox/bubblewrap/filters"

_LOW_32 = 0xFFFF_FFFF  # the kernel takes an int from the low half of a register

_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
_FAMILY_BITS = 6  # AF_MAX is 46
_TYPE_MASK = 0xF  # without SOCK_NONBLOCK and SOCK_CLOEXEC
_NETLINK_ROUTE = 0
_SO_PEERPIDFD = 77
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

# Denied whatever their arguments are: the error number, the reason, the calls.
DENIED: tuple[tuple[int, str, tuple[str, ...]], ...] = (
    (
        errno.ENOSYS,
        "io_uring opens sockets by requests that no filter sees; programs fall back",
        ("io_uring_setup", "io_uring_enter", "io_uring_register"),
    ),
    (
        errno.ENOSYS,
        "its flags lie in memory, where no filter can read them; libraries fall back to clone",
        ("clone3",),
    ),
    (
        errno.EPERM,
        "the kernel's keyrings are the user's, and hold keys of the file system and of Kerberos",
        ("add_key", "keyctl", "request_key"),
    ),
    (
        errno.EPERM,
        "a mount could remove what hides a file",
        (
            *("mount", "umount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount"),
            *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr"),
        ),
    ),
    (errno.EPERM, "another namespace has other rules", ("setns",)),
    (
        errno.EPERM,
        "it opens a file by its number on disk, whatever is mounted over it",
        ("open_by_handle_at",),
    ),
    (
        errno.EPERM,
        "programs in the kernel and its performance counters: a wide interface, no use for it here",
        ("bpf", "perf_event_open", "userfaultfd"),
    ),
    (
        errno.EPERM,
        "another process's memory and descriptors; debuggers have ptrace for it",
        ("process_vm_readv", "process_vm_writev", "pidfd_getfd"),
    ),
    (
        errno.EPERM,
        "they control the whole machine; the sandbox has no capability for it, and needs none",
        (
            *("acct", "adjtimex", "clock_adjtime", "clock_settime", "delete_module"),
            *("finit_module", "init_module", "ioperm", "iopl", "kexec_file_load", "kexec_load"),
            *("lookup_dcookie", "nfsservctl", "quotactl", "quotactl_fd", "reboot"),
            *("setdomainname", "sethostname", "settimeofday", "swapoff", "swapon", "syslog"),
            *("uselib", "vhangup"),
        ),
    ),
)

# Too new for libseccomp to know them, so that their rules are written by hand. From 424 on, a call
# has the same number on all architectures.
NEWER: tuple[tuple[int, str, int], ...] = ((errno.EPERM, "open_tree_attr", 467),)


def build(architecture: str, reported: Reported = Reported.NOTHING) -> bytes:
    """Return the filter of an architecture as the BPF program that bwrap loads.

    `reported`: another filter, installed before, reports these calls to a program outside that does
    them in a safe way; so this one must leave them to it (`bubblewrap.unix_sockets`).
    """
    with Filter(ALLOW, architecture) as rules:
        # Calls of another architecture (32-bit, x32) have other numbers: a process that tries one
        # is killed.
        rules.on_bad_architecture(KILL_PROCESS)
        for number, _reason, calls in DENIED:
            for call in calls:
                rules.add(errno_action(number), call)
        _deny_sockets(rules, reported)
        _deny_namespaces(rules)
        _deny_terminal_input(rules)
        return _newer_calls(architecture) + rules.export()


def _deny_sockets(rules: Filter, reported: Reported) -> None:
    """Leave sockets of the sandbox's own network; a Unix socket would reach the machine's.

    A reported connect or bind is the only way of a stream or of packets to another socket. A
    datagram carries an address of its own, past those calls.
    """
    refused = errno_action(errno.EAFNOSUPPORT)
    unsupported = errno_action(errno.EPROTONOSUPPORT)
    streams = {socket.SOCK_STREAM, socket.SOCK_SEQPACKET}
    unix = masked(0, _LOW_32, socket.AF_UNIX)
    for family in range(1 << _FAMILY_BITS):
        if family not in _FAMILIES and family != socket.AF_UNIX:
            rules.add(refused, "socket", masked(0, _LOW_32, family))
        if family != socket.AF_UNIX:
            rules.add(refused, "socketpair", masked(0, _LOW_32, family))
    for bit in range(_FAMILY_BITS, 32):
        for call in ("socket", "socketpair"):
            rules.add(refused, call, masked(0, 1 << bit, 1 << bit))
    if reported is Reported.SOCKETS:
        for kind in set(range(_TYPE_MASK + 1)) - streams:
            rules.add(unsupported, "socket", unix, masked(1, _TYPE_MASK, kind))
        # The peer of a connection is the program outside that has made it.
        peer = (masked(1, _LOW_32, socket.SOL_SOCKET), masked(2, _LOW_32, _SO_PEERPIDFD))
        rules.add(errno_action(errno.ENOPROTOOPT), "getsockopt", *peer)
    else:
        rules.add(refused, "socket", unix)
    # Routes and addresses are what programs ask about; the other protocols reach far into the
    # kernel.
    netlink = masked(0, _LOW_32, socket.AF_NETLINK)
    rules.add(unsupported, "socket", netlink, not_equal(2, _NETLINK_ROUTE))
    # A datagram socket of a pair can be connected to another socket later.
    allowed = set(streams)
    if reported is not Reported.NOTHING:
        allowed.add(socket.SOCK_DGRAM)
    for kind in set(range(_TYPE_MASK + 1)) - allowed:
        rules.add(unsupported, "socketpair", masked(1, _TYPE_MASK, kind))


def _deny_namespaces(rules: Filter) -> None:
    """Deny new namespaces: in one of its own a process has every capability."""
    refused = errno_action(errno.EPERM)
    for flag in _NAMESPACES.values():
        for call in ("clone", "unshare"):
            rules.add(refused, call, masked(0, flag, flag))
    rules.add(refused, "unshare", masked(0, _CLONE_NEWTIME, _CLONE_NEWTIME))


def _deny_terminal_input(rules: Filter) -> None:
    """Deny typing into the user's terminal, whose shell would read it after the run."""
    for request in (termios.TIOCSTI, _TIOCLINUX):
        # Only the low half counts: with a higher bit set the kernel does the same (CVE-2019-7303).
        rules.add(errno_action(errno.EPERM), "ioctl", masked(1, _LOW_32, request))


def _newer_calls(architecture: str) -> bytes:
    """Return instructions that deny the newer calls, and run on into the filter after them."""
    load, equal, end = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    program = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 0, 1 + 2 * len(NEWER), ARCHITECTURES[architecture]),
        (load, 0, 0, 0),  # seccomp_data.nr
    ]
    for number, _name, call in NEWER:
        program += [(equal, 0, 1, call), (end, 0, 0, errno_action(number))]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def main() -> None:
    """Write the filters."""
    DIRECTORY.mkdir(exist_ok=True)
    for architecture in ARCHITECTURES:
        for reported in Reported:
            path = DIRECTORY / f"{architecture}{reported.value}.bpf"
            path.write_bytes(build(architecture, reported))
            sys.stdout.write(f"{path.name}: {path.stat().st_size // 8} instructions\n")


if __name__ == "__main__":
    main()
