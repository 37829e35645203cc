"""A small binding to libseccomp by ctypes: build a filter, export it, or load it.

Only the tools and the tests use it. The program itself ships filters and needs no library.
"""

import ctypes
import errno
import os
from typing import Self

ALLOW = 0x7FFF_0000
KILL_PROCESS = 0x8000_0000

NOT_EQUAL, EQUAL, MASKED_EQUAL = 1, 4, 7  # enum scmp_compare

# AUDIT_ARCH_* of <linux/audit.h>, by the name that `platform.machine` has for it.
ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

_ATTRIBUTE_BAD_ARCHITECTURE = 2  # SCMP_FLTATR_ACT_BADARCH
_UNKNOWN_CALL = -1


def errno_action(number: int) -> int:
    """Return the action that fails a system call with an error number."""
    return 0x0005_0000 | number


class Condition(ctypes.Structure):
    """A condition on one argument of a system call (struct scmp_arg_cmp)."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def not_equal(argument: int, value: int) -> Condition:
    """Return the condition that an argument, all 64 bits of it, is not a value."""
    return Condition(argument, NOT_EQUAL, value, 0)


def equal(argument: int, value: int) -> Condition:
    """Return the condition that an argument, all 64 bits of it, is a value."""
    return Condition(argument, EQUAL, value, 0)


def masked(argument: int, mask: int, value: int) -> Condition:
    """Return the condition that an argument has a value in the bits of a mask."""
    return Condition(argument, MASKED_EQUAL, mask, value)


class Filter:
    """A filter for one architecture, this machine's unless another one is named."""

    def __init__(self, default: int, architecture: str | None = None) -> None:
        self._library = _library()
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))
        if not self._context:
            raise OSError(errno.ENOMEM, "seccomp_init failed")
        if architecture is not None:
            native = ctypes.c_uint32(0)  # SCMP_ARCH_NATIVE
            self._check(self._library.seccomp_arch_remove(self._context, native))
            token = ctypes.c_uint32(ARCHITECTURES[architecture])
            self._check(self._library.seccomp_arch_add(self._context, token))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.seccomp_release(self._context)

    def on_bad_architecture(self, action: int) -> None:
        """Choose what becomes of the calls of every other architecture."""
        attribute = _ATTRIBUTE_BAD_ARCHITECTURE
        self._check(
            self._library.seccomp_attr_set(self._context, attribute, ctypes.c_uint32(action))
        )

    def add(self, action: int, call: str | int, *tests: Condition) -> None:
        """Add a rule; a call that the architecture does not have is passed over."""
        number = call_number(call) if isinstance(call, str) else call
        array = (Condition * len(tests))(*tests)
        self._check(
            self._library.seccomp_rule_add_array(
                self._context, ctypes.c_uint32(action), number, len(tests), array
            )
        )

    def export(self) -> bytes:
        """Return the filter as a BPF program."""
        with open(os.memfd_create("filter", os.MFD_CLOEXEC), "w+b") as file:  # noqa: PTH123 - has no path
            self._check(self._library.seccomp_export_bpf(self._context, file.fileno()))
            file.seek(0)
            return file.read()

    def load(self) -> None:
        """Put this process under the filter."""
        self._check(self._library.seccomp_load(self._context))

    @staticmethod
    def _check(result: int) -> None:
        if result < 0:
            raise OSError(-result, os.strerror(-result))


def call_number(name: str, architecture: str | None = None) -> int:
    """Return the number of a system call, negative on an architecture without it.

    LookupError if libseccomp does not know the name at all.
    """
    library = _library()
    if architecture is None:
        number = library.seccomp_syscall_resolve_name(name.encode())
    else:
        token = ctypes.c_uint32(ARCHITECTURES[architecture])
        number = library.seccomp_syscall_resolve_name_arch(token, name.encode())
    if number == _UNKNOWN_CALL:
        raise LookupError(f"libseccomp does not know {name}")
    return int(number)


def call_name(number: int, architecture: str) -> str | None:
    """Return the name of a system call; None if libseccomp knows none of this number."""
    resolve = _library().seccomp_syscall_resolve_num_arch
    resolve.restype = ctypes.c_void_p
    place = resolve(ctypes.c_uint32(ARCHITECTURES[architecture]), number)
    if not place:
        return None
    try:
        return ctypes.string_at(place).decode()
    finally:
        ctypes.CDLL(None).free(ctypes.c_void_p(place))


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    return library
