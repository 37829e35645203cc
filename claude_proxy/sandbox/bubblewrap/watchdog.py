"""Watchdog: kills a sandbox whose launcher is gone; a separate program, run by its path.

bwrap's --die-with-parent does not cover everything: until COMMAND starts, the first process inside
is not tied to its parent, and would wait forever for a byte that no process can send any more. So
the watchdog is started before bwrap. It receives a pidfd of that first process; until then it finds
the processes of the sandbox by the pipe that holds COMMAND back, which only they have open.

It limits what the sandbox uses as well (`resource_limits`), because it is there anyway. Every run
waits until it has started, so it imports only what loads at once: neither `socket` nor `signal`,
which make enumerations for longer than an interpreter takes to start.
"""

import _signal as signal  # type: ignore[import-not-found] # which typeshed does not describe
import _socket
import os
import select
import sys

if __name__ == "__main__":  # started by its path, it finds its package by that
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))  # noqa: PTH100, PTH118, PTH120

from claude_proxy.sandbox.bubblewrap.resource_limits import MemoryWatch, limit_processes
from claude_proxy.sandbox.light_suppress import suppress

_MESSAGE_LIMIT = 128
_DESCRIPTOR = 4  # bytes of its number in a message


def main(channel: _socket.socket, start_pipe: int) -> None:
    """Wait until the launcher or its sandbox ends; kill the sandbox if the launcher ended first."""
    init: int | None = None
    memory: MemoryWatch | None = None
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    while True:
        pause_ms = None if memory is None else memory.pause_s * 1000
        ready = {descriptor for descriptor, _ in poll.poll(pause_ms)}
        if memory is not None and not ready and (killed := memory.look()) is not None:
            with suppress(OSError):
                channel.send(f"{killed[1]} {killed[0]}".encode(), _socket.MSG_DONTWAIT)
        if init is not None and init in ready:
            return  # the sandbox is gone
        if channel.fileno() not in ready:
            continue
        descriptor, limits = _received(channel)
        if descriptor is None:
            break
        init = descriptor
        poll.register(init, select.POLLIN)
        pid, processes, size = (*limits, 0, 0, 0)[:3]
        memory = MemoryWatch(pid, size) if size else None
        limited = not processes or limit_processes(pid, processes)
        with suppress(OSError):  # the launcher has just ended: the next round finds out
            channel.send(b"seen" if limited else b"unlimited")
    if init is not None:
        _kill(init)
        return
    # Repeat until none is left: a process found here may have forked in the meantime.
    while found := holders(start_pipe):
        for pid in found:
            end_holder(pid, start_pipe)


def _received(channel: _socket.socket) -> tuple[int | None, list[int]]:
    """Return the descriptor that was sent, and numbers; None: the launcher is gone."""
    try:
        message, beside, _, _ = channel.recvmsg(_MESSAGE_LIMIT, _socket.CMSG_LEN(_DESCRIPTOR))
    except OSError:
        return None, []  # reset: the launcher ended with unread data
    numbers = [int(word) for word in message.split()[1:]]
    for level, kind, data in beside:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS) and len(data) >= _DESCRIPTOR:
            return int.from_bytes(data[:_DESCRIPTOR], sys.byteorder), numbers
    return None, numbers


def holders(start_pipe: int) -> list[int]:
    """Return the other processes that have the pipe open."""
    wanted = os.fstat(start_pipe).st_ino
    names = os.listdir("/proc")  # noqa: PTH208 - pathlib takes milliseconds to import
    others = {name for name in names if name.isdecimal()} - {str(os.getpid())}
    return [int(name) for name in others if _holds(name, wanted)]


def _holds(name: str, wanted: int) -> bool:
    try:
        for number in os.listdir(f"/proc/{name}/fd"):  # noqa: PTH208
            try:
                if os.readlink(f"/proc/{name}/fd/{number}") == f"pipe:[{wanted}]":  # noqa: PTH115
                    return True
            except OSError:
                continue  # closed meanwhile
    except OSError:
        pass  # another user's, or gone
    return False


def end_holder(pid: int, start_pipe: int) -> None:
    """Kill a process that has the pipe open, if it still has."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    if _holds(str(pid), os.fstat(start_pipe).st_ino):
        _kill(descriptor)
    os.close(descriptor)


def _kill(descriptor: int) -> None:
    with suppress(OSError):  # it may have ended by itself
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)


def run(words: list[str]) -> None:
    """Run the program with the words of its command line."""
    main(_socket.socket(fileno=int(words[0])), int(words[1]))


if __name__ == "__main__":
    run(sys.argv[1:])
