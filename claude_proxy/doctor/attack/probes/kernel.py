"""Kernel probes: foreign system calls, namespaces, mounts, keyrings, other interfaces."""

import ctypes
import mmap
import os
import platform
import signal
import socket
import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

from claude_proxy.doctor.attack.probes.outcome import KERNEL, Spec, Try, attempt, in_child, stopped
from claude_proxy.doctor.attack.probes.syscalls import HIGH_BIT, LIBC, NUMBERS, call


def io_uring(_: Spec) -> Iterator[Try]:
    """Create a ring, which can open sockets unseen by a filter."""
    parameters = ctypes.create_string_buffer(120)
    yield attempt(
        "io_uring_setup",
        lambda: os.close(call("io_uring_setup", 2, ctypes.byref(parameters))),
        filtered=True,
    )


# The machine code of a 32-bit system call, and the numbers of 32-bit x86 and x32:
#   push rbx; mov eax, edi; mov ebx, esi; mov ecx, edx; xor edx, edx; int 0x80; pop rbx; ret
_GATE_32 = bytes.fromhex("53 89 f8 89 f3 89 d1 31 d2 cd 80 5b c3".replace(" ", ""))
_SOCKET_32, _GETPID_32 = 359, 20
_X32_BIT = 0x40000000


def foreign_calls(_: Spec) -> Iterator[Try]:
    """Make system calls of other architectures, which have other numbers."""
    if platform.machine() != "x86_64":
        yield stopped("32-bit calls", KERNEL, f"not tried on {platform.machine()}")
        return
    unix, stream = int(socket.AF_UNIX), int(socket.SOCK_STREAM)
    yield in_child("32-bit socket(AF_UNIX)", lambda: _gate_32(_SOCKET_32, unix, stream))
    yield in_child("32-bit getpid", lambda: _gate_32(_GETPID_32, 0, 0))
    yield in_child("x32 socket(AF_UNIX)", lambda: _x32(NUMBERS["socket"][0], unix, stream))


def _gate_32(number: int, first: int, second: int) -> int:
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(_GATE_32)
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)
    call = kind(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    result = int(call(number, first, second))
    if result < 0:
        raise OSError(-result, "32-bit")
    return result


def _x32(number: int, first: int, second: int) -> int:
    numbers = [ctypes.c_long(n) for n in (number | _X32_BIT, first, second, 0)]
    result = int(LIBC.syscall(*numbers))
    if result == -1:
        raise OSError(ctypes.get_errno(), "x32")
    return result


_NEW_USER, _NEW_NET, _NEW_NS, _NEW_PID = 0x10000000, 0x40000000, 0x00020000, 0x20000000
_NEW_IPC, _NEW_UTS = 0x08000000, 0x04000000
_SIGCHLD = int(signal.SIGCHLD)


def nested_namespaces(_: Spec) -> Iterator[Try]:
    """Create a user or network namespace, in which a process is root."""
    flags = (
        ("user + network", _NEW_USER | _NEW_NET),
        ("user", _NEW_USER),
        ("network", _NEW_NET),
        ("mount", _NEW_NS),
        ("pid", _NEW_PID),
        ("ipc, uts", _NEW_IPC | _NEW_UTS),
    )
    for what, flag in flags:
        yield in_child(f"unshare {what}", partial(call, "unshare", flag))
    for what, flag in (("user", _NEW_USER), ("user, high bit", _NEW_USER | HIGH_BIT)):
        yield in_child(f"clone {what}", partial(_clone, flag))
    yield in_child("clone3 user", _clone3)
    for name in ("user", "net", "mnt", "pid"):
        yield in_child(f"setns of pid 1's {name}", partial(_enter, f"/proc/1/ns/{name}"))


def _clone(flags: int) -> None:
    child = call("clone", flags | _SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _clone3() -> None:
    arguments = ctypes.create_string_buffer(
        struct.pack("=8Q", _NEW_USER, 0, 0, 0, _SIGCHLD, 0, 0, 0)
    )
    child = call("clone3", ctypes.byref(arguments), 64)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _enter(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        call("setns", descriptor, 0)
    finally:
        os.close(descriptor)


def mounts(_: Spec) -> Iterator[Try]:
    """Mount, unmount and change the root."""
    tmpfs = ctypes.c_char_p(b"tmpfs")
    there = ctypes.c_char_p(b"/tmp")
    root = ctypes.c_char_p(b"/")
    none = ctypes.c_void_p(None)
    bind, recursive, remount = 4096, 16384, 32
    calls: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
        ("a tmpfs", "mount", (tmpfs, there, tmpfs, 0, none)),
        ("a bind mount", "mount", (root, there, none, bind | recursive, none)),
        ("the root writable", "mount", (none, root, none, bind | remount, none)),
        ("unmounting /usr", "umount2", (ctypes.c_char_p(b"/usr"), 2)),
        ("unmounting the allowlist", "umount2", (ctypes.c_char_p(b"/run/claude-proxy"), 2)),
        ("pivot_root", "pivot_root", (there, there)),
        ("chroot", "chroot", (there,)),
        ("fsopen", "fsopen", (tmpfs, 0)),
        ("open_tree", "open_tree", (-100, root, 1)),
        ("mount_setattr", "mount_setattr", (-100, root, 0, _mount_attributes(), 32)),
    )
    for what, name, arguments in calls:
        yield in_child(what, partial(call, name, *arguments))


def _mount_attributes() -> Any:
    read_only = 1
    return ctypes.byref(ctypes.create_string_buffer(struct.pack("=4Q", 0, read_only, 0, 0)))


def kernel_interfaces(_: Spec) -> Iterator[Try]:
    """Use interfaces of the kernel that have had holes before."""
    attributes = ctypes.create_string_buffer(128)
    struct.pack_into("=IIIII", attributes, 0, 2, 4, 4, 1, 0)  # an array map of one entry
    counter = ctypes.create_string_buffer(128)
    struct.pack_into("=IIQ", counter, 0, 1, 112, 0)  # a software event: the CPU's clock
    empty = ctypes.create_string_buffer(16)
    user_mode_only = 1
    calls: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("bpf", (0, ctypes.byref(attributes), 128)),
        ("perf_event_open", (ctypes.byref(counter), 0, -1, -1, 0)),
        ("userfaultfd", (os.O_NONBLOCK | os.O_CLOEXEC | user_mode_only,)),
        ("kexec_load", (0, 0, 0, 0)),
        ("init_module", (ctypes.byref(empty), 16, ctypes.c_char_p(b""))),
        ("sethostname", (ctypes.c_char_p(b"doctor"), 6)),
        ("open_by_handle_at", (-100, ctypes.byref(_root_handle()), os.O_RDONLY)),
    )
    for name, arguments in calls:
        yield in_child(name, partial(call, name, *arguments))


def _root_handle() -> Any:
    """Return the handle of inode 2, the root of many file systems (the "shocker" exploit)."""
    return ctypes.create_string_buffer(struct.pack("=IIQ", 8, 1, 2))


_KEYCTL_GET_ID, _KEYCTL_READ = 0, 11
_SESSION_KEYRING, _USER_KEYRING = -3, -4


def keyring(_: Spec) -> Iterator[Try]:
    """Read and write the kernel's keyrings, which no namespace separates."""
    user, word = ctypes.c_char_p(b"user"), ctypes.c_char_p(b"claude-proxy-doctor")
    calls: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
        ("the login's keyring", "keyctl", (_KEYCTL_GET_ID, _SESSION_KEYRING, 0)),
        ("the user's keyring", "keyctl", (_KEYCTL_GET_ID, _USER_KEYRING, 0)),
        ("add_key", "add_key", (user, word, word, 1, -1)),  # into this thread's own
        ("request_key", "request_key", (user, word, ctypes.c_void_p(None), 0)),
    )
    for what, name, arguments in calls:
        yield in_child(what, partial(call, name, *arguments))
