"""Stopper: stops every process of a sandbox as soon as a guarded entry is replaced outside.

It waits inside the sandbox's process namespace, because from there kill(2) with -1 reaches all
processes in one call that no fork can escape. So processes inside can signal it; it ignores what
can be ignored, and `mount_guard` ends the run when it is stopped or killed. It has capabilities
that they lack, so they cannot trace it, open what it has open, nor change its priority
(capabilities(7)).
"""

import ctypes
import os
import select
import signal
import socket
import struct
from contextlib import suppress

from claude_proxy.sandbox.bubblewrap.stop_generation import StopGeneration

STOPPED, AGAIN, ARM, CONTINUE = b"stopped", b"again", b"arm", b"continue"

# One whole read, so that an agent that makes many other entries cannot delay the one that counts.
_EVENTS_BYTES = 1 << 17
_EVENT = struct.Struct("iIII")
_OVERFLOW = 0x4000
_ORDER_BYTES = 1 << 17
_PR_SET_DUMPABLE = 4
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_ATTRIBUTES = struct.Struct("IIQiIQQQ")  # sched_setattr(2)
_SLICE_NS = 100_000

_libc = ctypes.CDLL(None)


def run(
    events: int,
    mounts: int,
    orders: socket.socket,
    generation: StopGeneration,
    needles: frozenset[bytes],
) -> None:
    """Wait for replacements; stop the sandbox, report it, and obey until it is to continue."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    _libc.prctl(_PR_SET_DUMPABLE, 0)
    _hurry()
    # `\0`, because the size of the name comes before it, and its padding after it.
    wanted = tuple(b"\0" + name + b"\0" for name in needles)
    waiting = select.poll()
    waiting.register(orders, select.POLLIN)
    waiting.register(events, select.POLLIN)
    waiting.register(mounts, select.POLLPRI)
    orders.send(str(os.getpid()).encode())
    while True:
        ready = [descriptor for descriptor, _ in waiting.poll()]
        if mounts not in ready and not (events in ready and _counts(_read(events), wanted)):
            if orders.fileno() in ready and not orders.recv(_ORDER_BYTES):
                return
            continue
        generation.begin()
        _stop_all()
        orders.send(STOPPED)
        if not _obey(orders, mounts, generation):
            return


def _hurry() -> None:
    """Ask for a short time slice, so that it runs as soon as it wakes up (sched(7), Linux 6.12).

    Elsewhere the call fails or changes nothing.
    """
    number = _SCHED_SETATTR.get(os.uname().machine)
    if number is not None:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        _libc.syscall(
            number, 0, _ATTRIBUTES.pack(_ATTRIBUTES.size, 0, 0, nice, 0, _SLICE_NS, 0, 0), 0
        )


def _stop_all() -> None:
    with suppress(ProcessLookupError):  # nobody is left
        os.kill(-1, signal.SIGSTOP)


def _read(events: int) -> bytes:
    try:
        return os.read(events, _EVENTS_BYTES)
    except BlockingIOError:
        return b""


def _counts(data: bytes, wanted: tuple[bytes, ...]) -> bool:
    return any(name in data for name in wanted) or overflowed(data)


def overflowed(data: bytes) -> bool:
    """Tell whether the kernel has dropped events."""
    return b"\xff\xff\xff\xff" in data and any(mask & _OVERFLOW for _, mask, _ in parsed(data))


def parsed(data: bytes) -> list[tuple[int, int, bytes]]:
    """Return the watch, mask and name of each event that was read."""
    found = []
    at = 0
    while at + _EVENT.size <= len(data):
        watch, mask, _, size = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        found.append((watch, mask, data[at : at + size].rstrip(b"\0")))
        at += size
    return found


def _continue(pid: int, *stops: int) -> None:
    """Continue a process, and send it the stops again that this discards."""
    with suppress(ProcessLookupError):
        for number in (signal.SIGCONT, *stops):
            os.kill(pid, number)


def _obey(orders: socket.socket, mounts: int, generation: StopGeneration) -> bool:
    """Obey `mount_guard` while the sandbox is stopped; return whether it goes on."""
    own = select.poll()
    own.register(mounts, select.POLLPRI)
    while True:
        order, *words = orders.recv(_ORDER_BYTES).split(b" ")
        if order == AGAIN:
            _stop_all()
        elif order == ARM:
            own.poll(0)  # the mounts that the guard itself has made
        elif order == CONTINUE:
            for word in words:
                _continue(*map(int, word.split(b":")))
            generation.end()
            return True
        else:
            return False
        orders.send(order)
