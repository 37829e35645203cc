"""System calls that the kernel reports to a program outside (seccomp_unotify(2)).

The first half runs in the child that becomes bwrap: it installs a filter that reports calls, and
sends the descriptor on which they are heard. The second half is for the program that answers them.

Laws kept: fail closed: a call that nobody answers fails. And nothing is decided on memory that the
caller can change afterwards, so SECCOMP_USER_NOTIF_FLAG_CONTINUE is for bwrap alone.
"""

import ctypes
import errno
import os
import select
import socket
import struct
from contextlib import suppress

CONNECT, BIND, SOCKETPAIR = "connect", "bind", "socketpair"
NUMBERS = {
    "x86_64": {CONNECT: 42, BIND: 49, SOCKETPAIR: 53},
    "aarch64": {CONNECT: 203, BIND: 200, SOCKETPAIR: 199},
}
TYPE_MASK = 0xF  # without SOCK_NONBLOCK and SOCK_CLOEXEC

_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
_AUDIT_ARCH = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_NEW_LISTENER, _WAIT_KILLABLE = 0x8, 0x20
_USER_NOTIF, _ALLOW = 0x7FC0_0000, 0x7FFF_0000
_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06  # BPF_LD|W|ABS, ALU|AND|K, JMP|JEQ|K, RET|K
_NR, _ARCH, _FAMILY, _TYPE = 0, 4, 16, 24  # offsets in struct seccomp_data; the low halves

# ioctls and structs of <linux/seccomp.h>; both machines are little-endian.
_RECV, _SEND, _IS_VALID, _ADD = 0xC050_2100, 0xC018_2101, 0x4008_2102, 0x4018_2103
_SET_FLAGS, _SYNC_WAKE_UP = 0x4008_2104, 0x1
_NOTIFICATION = struct.Struct("<QIIiIQ6Q")  # id, pid, flags, and struct seccomp_data
_RESPONSE = struct.Struct("<QqiI")  # id, value, error, flags
_ADDITION = struct.Struct("<QIIII")  # id, flags, descriptor here, descriptor there, its flags
_CONTINUE = 1

_PAIRS_SINCE = (5, 9)  # of Linux: SECCOMP_IOCTL_NOTIF_ADDFD
_SOCKETS_SINCE = (5, 14)  # of Linux: SO_NETNS_COOKIE, and before it mount_setattr(2)

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"

_LIBC = ctypes.CDLL(None, use_errno=True)


def filter_program(machine: str, *, private: bool) -> bytes:
    """Return the filter that reports calls, and allows all others.

    It reports the creation of datagram pairs and, with `private`, each connect and bind:
    a filter sees the number of a descriptor, not what kind of socket it is.
    """
    numbers = NUMBERS[machine]
    reported = (numbers[CONNECT], numbers[BIND]) if private else ()
    # Each check: what to load, its mask, the value, where to go on equality and otherwise.
    program: list[tuple[int, int, int, int]] = []
    rest = [
        (_EQUAL, numbers[SOCKETPAIR]),
        (_LOAD, _FAMILY),
        (_EQUAL, int(socket.AF_UNIX)),
        (_LOAD, _TYPE),
        (_AND, TYPE_MASK),
        (_EQUAL, int(socket.SOCK_DGRAM)),
    ]
    report = 3 + len(reported) + len(rest)  # the index of the instruction that reports
    program += [(_LOAD, 0, 0, _ARCH), (_EQUAL, 0, report - 1, _AUDIT_ARCH[machine])]
    program.append((_LOAD, 0, 0, _NR))
    for number in reported:
        program.append((_EQUAL, report - len(program) - 1, 0, number))
    for code, value in rest:
        beyond = report - len(program) if code == _EQUAL else 0
        program.append((code, 0, beyond, value))
    program += [(_RETURN, 0, 0, _USER_NOTIF), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


# In the child that becomes bwrap


def is_supported(bwrap: str, *, private: bool) -> bool:
    """Tell whether this kernel can report the calls, to a bwrap that needs no privileges."""
    system = os.uname()
    machine = system.machine
    release = tuple(int(part) for part in system.release.split(".")[:2] if part.isdecimal())
    since = _SOCKETS_SINCE if private else _PAIRS_SINCE
    if machine not in _SYS_SECCOMP or release < since:
        return False
    if private and _hides_processes():
        return False
    try:
        # A program with privileges gets none once a filter is installed without them.
        if os.stat(bwrap).st_mode & 0o6000 or "security.capability" in os.listxattr(bwrap):  # noqa: PTH116
            return False
    except OSError:
        return False
    action = ctypes.c_uint32(_USER_NOTIF)
    return _seccomp(machine, _GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0


def _hides_processes() -> bool:
    """Tell whether Yama keeps memory and descriptors of processes from everybody."""
    try:
        with open(_YAMA, "rb") as file:  # noqa: PTH123 - quick
            return file.read().strip() == b"3"
    except OSError:
        return False


def install(channel: socket.socket, *, private: bool) -> None:
    """Filter this process and all that it starts; send the listener to the program.

    OSError if the kernel refuses: then the stricter filter has to do.
    """
    machine = os.uname().machine
    code = filter_program(machine, private=private)
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, and a pointer to them
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(held))
    if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    listener = -1
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER):  # the second before Linux 5.19
        listener = _seccomp(machine, _SET_MODE_FILTER, flags, program)
        if listener >= 0 or ctypes.get_errno() != errno.EINVAL:
            break
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    socket.send_fds(channel, [b"listener"], [listener])
    os.close(listener)


def _seccomp(machine: str, operation: int, flags: int, argument: object) -> int:
    number = ctypes.c_long(_SYS_SECCOMP[machine])
    return int(_LIBC.syscall(number, ctypes.c_ulong(operation), ctypes.c_ulong(flags), argument))


# In the program


class ReportedCall:
    """A system call whose caller waits for the answer."""

    def __init__(self, buffer: bytes) -> None:
        fields = _NOTIFICATION.unpack(buffer)
        self.cookie: int = fields[0]
        self.thread: int = fields[1]  # its id, as this program sees it
        self.number: int = fields[3]
        self.arguments: tuple[int, ...] = fields[6:]


class Listener:
    """The calls that one filter reports."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        with suppress(OSError):  # before Linux 6.6; only quicker: caller and program take turns
            _ioctl(descriptor, _SET_FLAGS, bytearray(struct.pack("<Q", _SYNC_WAKE_UP)))

    def receive(self) -> ReportedCall | None:
        """Wait for a call; None if its process has ended meanwhile, or a signal came.

        OSError once there is no process left that the filter applies to.
        """
        buffer = bytearray(_NOTIFICATION.size)  # zeros, as the kernel demands
        try:
            _ioctl(self.descriptor, _RECV, buffer)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EINTR}:
                return None
            raise
        return ReportedCall(bytes(buffer))

    def is_over(self) -> bool:
        """Tell whether no process is left that the filter applies to."""
        poll = select.poll()
        poll.register(self.descriptor, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def still_waits(self, call: ReportedCall) -> bool:
        """Tell whether the caller has waited until now, so that its id is still its own."""
        try:
            _ioctl(self.descriptor, _IS_VALID, bytearray(struct.pack("<Q", call.cookie)))
        except OSError:
            return False
        return True

    def refuse_ended(self, call: ReportedCall) -> None:
        """Raise OSError if the caller's id may be another's by now."""
        if not self.still_waits(call):
            raise OSError(errno.ESRCH, "the caller has ended")

    def give(self, call: ReportedCall, descriptor: int, flags: int) -> int:
        """Install a descriptor in the caller, and return its number there."""
        return _ioctl(
            self.descriptor, _ADD, bytearray(_ADDITION.pack(call.cookie, 0, descriptor, 0, flags))
        )

    def answer(self, call: ReportedCall, error: int) -> None:
        """Let the caller go on, with an error number or with success (0)."""
        self._send(_RESPONSE.pack(call.cookie, -1 if error else 0, -error, 0))

    def let_pass(self, call: ReportedCall) -> None:
        """Let the kernel do the call. Only for a program that is trusted: it can lie."""
        self._send(_RESPONSE.pack(call.cookie, 0, 0, _CONTINUE))

    def _send(self, response: bytes) -> None:
        with suppress(OSError):  # its process has ended
            _ioctl(self.descriptor, _SEND, bytearray(response))


def _ioctl(listener: int, request: int, buffer: bytearray) -> int:
    held = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    result = int(_LIBC.ioctl(listener, ctypes.c_ulong(request), held))
    if result < 0:
        raise OSError(ctypes.get_errno(), "ioctl")
    return result
