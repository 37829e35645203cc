"""Watchdog: kills a sandbox whose launcher is gone; a separate program, run by its path.

bwrap's --die-with-parent does not cover everything: until COMMAND starts, the first process inside
is not tied to its parent, and would wait forever for a byte that no process can send any more. So
the watchdog is started before bwrap. It receives a pidfd of that first process; until then it finds
the processes of the sandbox by the pipe that holds COMMAND back, which only they have open.

Every run waits until it has started, so it imports only what loads in milliseconds.
"""

import os
import select
import signal
import socket
import sys
from contextlib import suppress


def main(channel: socket.socket, start_pipe: int) -> None:
    """Wait until the launcher or its sandbox ends; kill the sandbox if the launcher ended first."""
    init: int | None = None
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if init is not None and init in ready:
            return  # the sandbox is gone
        if channel.fileno() not in ready:
            continue
        descriptor = _received(channel)
        if descriptor is None:
            break
        init = descriptor
        poll.register(init, select.POLLIN)
        with suppress(OSError):  # the launcher has just ended: the next round finds out
            channel.send(b"seen")
    if init is not None:
        _kill(init)
        return
    # Repeat until none is left: a process found here may have forked in the meantime.
    while found := holders(start_pipe):
        for pid in found:
            end_holder(pid, start_pipe)


def _received(channel: socket.socket) -> int | None:
    """Return the descriptor that was sent; None: the launcher is gone."""
    try:
        descriptors = socket.recv_fds(channel, 16, 1)[1]
    except OSError:
        return None  # reset: the launcher ended with unread data
    return descriptors[0] if descriptors else None


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


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
