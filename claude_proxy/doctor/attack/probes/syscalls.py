"""Raw system calls, past the C library."""

import ctypes
import platform
from typing import Any

HIGH_BIT = 1 << 32  # passes a filter that compares 64 bits where the kernel reads 32
LIBC = ctypes.PyDLL(None, use_errno=True)
# Numbers on x86_64 and aarch64. From 424 on, they are the same on all architectures.
NUMBERS = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "ptrace": (101, 117),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "mount": (165, 40),
    "umount2": (166, 39),
    "sethostname": (170, 161),
    "init_module": (175, 105),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "perf_event_open": (298, 241),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "process_vm_readv": (310, 270),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "ioctl": (16, 29),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "pidfd_getfd": (438, 438),
    "mount_setattr": (442, 442),
}
_MACHINES = ("x86_64", "aarch64")


def call(name: str, *arguments: Any) -> int:
    """Make a system call; raise OSError if it fails."""
    column = _MACHINES.index(platform.machine())
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = int(LIBC.syscall(ctypes.c_long(NUMBERS[name][column]), *passed))
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result
