"""Datagram pairs: socketpair(AF_UNIX, SOCK_DGRAM) of a sandbox, answered with a pair of packets.

socat, syslog clients and others need such a pair, but each end of one can be connected again, to
any Unix socket that is visible: a way out. Ends of SOCK_SEQPACKET keep the limits of messages too,
and stay connected. The pair is made here, and the kernel installs both ends in the caller, which
continues as if its call had been done.
"""

import errno
import os
import socket
import struct

from claude_proxy.sandbox.bubblewrap.seccomp_notify import TYPE_MASK, Listener, ReportedCall

_PAIR = struct.Struct("<ii")


def give_pair(listener: Listener, call: ReportedCall, processes: int) -> None:
    """Install a pair in the caller, and write the numbers where it wants them.

    `processes` is a descriptor of /proc. OSError with the number that the caller gets.
    """
    kind, protocol = (argument & 0xFFFF_FFFF for argument in call.arguments[1:3])
    address = call.arguments[3]
    flags = kind & ~TYPE_MASK
    if protocol not in (0, socket.AF_UNIX):
        raise OSError(errno.EPROTONOSUPPORT, "protocol")
    if flags & ~(socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC):
        raise OSError(errno.EINVAL, "flags")
    # Opened before the check: from then on it is the caller's memory, if another process gets its
    # number as well.
    memory = os.open(f"{call.thread}/mem", os.O_RDWR | os.O_CLOEXEC, dir_fd=processes)
    try:
        listener.refuse_ended(call)
        _refuse_unmapped(memory, address)
        kept = os.O_CLOEXEC if flags & socket.SOCK_CLOEXEC else 0
        nonblocking = flags & socket.SOCK_NONBLOCK
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with one, other:
            one.setblocking(not nonblocking)
            other.setblocking(not nonblocking)
            numbers = [listener.give(call, end.fileno(), kept) for end in (one, other)]
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
