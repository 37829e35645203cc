"""Datagram pairs: socketpair(AF_UNIX, SOCK_DGRAM) of a sandbox, answered with a pair of packets.

socat, syslog clients and others need such a pair, but each end of one can be connected again, to
any Unix socket that is visible: a way out. Ends of SOCK_SEQPACKET keep the limits of messages too,
and stay connected. So the kernel reports the call here (seccomp_unotify(2)), this program makes the
pair, and the kernel installs both ends in the caller, which continues as if its call had been done.

It runs outside, one process for each run, by its path and with imports that load in milliseconds.
Law kept: fail closed: if it is not there, the call fails.
"""

import ctypes
import errno
import os
import platform
import select
import socket
import struct
import sys
from contextlib import suppress

_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SYS_SOCKETPAIR = {"x86_64": 53, "aarch64": 199}
_AUDIT_ARCH = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_NEW_LISTENER, _WAIT_KILLABLE = 0x8, 0x20
_USER_NOTIF, _ALLOW = 0x7FC0_0000, 0x7FFF_0000
_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06  # BPF_LD|W|ABS, ALU|AND|K, JMP|JEQ|K, RET|K
_NR, _ARCH, _FAMILY, _TYPE = 0, 4, 16, 24  # offsets in struct seccomp_data; the low halves
_TYPE_MASK = 0xF

# ioctls and structs of <linux/seccomp.h>; both machines are little-endian.
_RECV, _SEND, _IS_VALID, _ADD = 0xC050_2100, 0xC018_2101, 0x4008_2102, 0x4018_2103
_NOTIFICATION = struct.Struct("<QIIiIQ6Q")  # id, pid, flags, and struct seccomp_data
_RESPONSE = struct.Struct("<QqiI")  # id, value, error, flags
_ADDITION = struct.Struct("<QIIII")  # id, flags, descriptor here, descriptor there, its flags
_PAIR = struct.Struct("<ii")

_ADD_SINCE = (5, 9)  # of Linux: SECCOMP_IOCTL_NOTIF_ADDFD


def filter_program(machine: str) -> bytes:
    """Return the filter that reports the creation of datagram pairs, and nothing else."""
    checks = [
        (_ARCH, None, _AUDIT_ARCH[machine]),
        (_NR, None, _SYS_SOCKETPAIR[machine]),
        (_FAMILY, None, int(socket.AF_UNIX)),
        (_TYPE, _TYPE_MASK, int(socket.SOCK_DGRAM)),
    ]
    program: list[tuple[int, int, int, int]] = []
    sizes = [3 if mask is not None else 2 for _, mask, _ in checks]
    for number, (offset, mask, wanted) in enumerate(checks):
        program.append((_LOAD, 0, 0, offset))
        if mask is not None:
            program.append((_AND, 0, 0, mask))
        # To the last instruction, past the later checks and the one that reports.
        program.append((_EQUAL, 0, sum(sizes[number + 1 :]) + 1, wanted))
    program += [(_RETURN, 0, 0, _USER_NOTIF), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


# In the child that becomes bwrap


def is_supported(bwrap: str) -> bool:
    """Tell whether this kernel can report calls, to a bwrap that needs no privileges."""
    machine = platform.machine()
    release = tuple(int(part) for part in platform.release().split(".")[:2] if part.isdecimal())
    if machine not in _SYS_SECCOMP or release < _ADD_SINCE:
        return False
    try:
        # A program with privileges gets none once a filter is installed without them.
        if os.stat(bwrap).st_mode & 0o6000 or "security.capability" in os.listxattr(bwrap):  # noqa: PTH116
            return False
    except OSError:
        return False
    action = ctypes.c_uint32(_USER_NOTIF)
    return _seccomp(machine, _GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0


def install(channel: socket.socket) -> None:
    """Filter this process and all that it starts; send the listener to the program.

    OSError if the kernel refuses: then the stricter filter has to do.
    """
    machine = platform.machine()
    code = filter_program(machine)
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


_LIBC = ctypes.CDLL(None, use_errno=True)


def _seccomp(machine: str, operation: int, flags: int, argument: object) -> int:
    number = ctypes.c_long(_SYS_SECCOMP[machine])
    return int(_LIBC.syscall(number, ctypes.c_ulong(operation), ctypes.c_ulong(flags), argument))


# In the program


def main(channel: socket.socket, lifeline: int) -> None:
    """Answer calls until the launcher is gone."""
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.register(channel, select.POLLIN)
    listener = -1
    while True:
        ready = dict(poll.poll())
        if lifeline in ready:
            return
        if channel.fileno() in ready:
            poll.unregister(channel)
            descriptors = socket.recv_fds(channel, 16, 1)[1]
            if descriptors:
                listener = descriptors[0]
                poll.register(listener, select.POLLIN)
        elif listener in ready:
            if not ready[listener] & select.POLLIN:  # no process is left that it filters
                poll.unregister(listener)
                os.close(listener)
                listener = -1
                continue
            serve_one(listener)


def serve_one(listener: int) -> None:
    """Answer one call, unless its process has ended meanwhile."""
    buffer = bytearray(_NOTIFICATION.size)  # zeros, as the kernel demands
    try:
        _ioctl(listener, _RECV, buffer)
    except OSError:
        return
    cookie, pid, _, _, _, _, _, kind, protocol, address, _, _ = _NOTIFICATION.unpack(buffer)
    try:
        value, error = 0, 0
        _give_pair(listener, cookie, pid, (kind, protocol, address))
    except OSError as problem:
        value, error = -1, -(problem.errno or errno.EPROTONOSUPPORT)
    with suppress(OSError):  # its process has ended
        _ioctl(listener, _SEND, bytearray(_RESPONSE.pack(cookie, value, error, 0)))


def _give_pair(listener: int, cookie: int, pid: int, arguments: tuple[int, int, int]) -> None:
    """Install a pair in the caller, and write the numbers where it wants them."""
    kind, protocol, address = (arguments[0] & 0xFFFF_FFFF, arguments[1] & 0xFFFF_FFFF, arguments[2])
    flags = kind & ~_TYPE_MASK
    if protocol not in (0, socket.AF_UNIX):
        raise OSError(errno.EPROTONOSUPPORT, "protocol")
    if flags & ~(socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC):
        raise OSError(errno.EINVAL, "flags")
    # Opened before the check: from then on it is the caller's memory, if another process gets its
    # number as well.
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        _ioctl(listener, _IS_VALID, bytearray(struct.pack("<Q", cookie)))
        _refuse_unmapped(memory, address)
        kept = os.O_CLOEXEC if flags & socket.SOCK_CLOEXEC else 0
        nonblocking = flags & socket.SOCK_NONBLOCK
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with one, other:
            one.setblocking(not nonblocking)
            other.setblocking(not nonblocking)
            numbers = [
                _ioctl(
                    listener,
                    _ADD,
                    bytearray(_ADDITION.pack(cookie, 0, end.fileno(), 0, kept)),
                )
                for end in (one, other)
            ]
        os.pwrite(memory, _PAIR.pack(*numbers), address)
    finally:
        os.close(memory)


def _refuse_unmapped(memory: int, address: int) -> None:
    """Raise EFAULT as the call does, before anything is installed."""
    try:
        if address < 1 << 63 and len(os.pread(memory, _PAIR.size, address)) == _PAIR.size:
            return
    except OSError:
        pass
    raise OSError(errno.EFAULT, "address")


def _ioctl(listener: int, request: int, buffer: bytearray) -> int:
    held = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    result = int(_LIBC.ioctl(listener, ctypes.c_ulong(request), held))
    if result < 0:
        raise OSError(ctypes.get_errno(), "ioctl")
    return result


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
