"""Ends a sandbox whose launcher is gone, however that went; a program of its own, run by its path.

bwrap's --die-with-parent does not reach all of it: until COMMAND starts, the first process inside
has no such tie to its parent, and would wait for ever for a byte that nobody can send any more. So
this process is started before bwrap is. It is told who that first process is, and until then knows
those of a sandbox by the pipe that holds COMMAND back, which nobody else has.

It imports nothing but what starts in milliseconds, as every run waits for that.
"""

import os
import select
import signal
import socket
import sys
from contextlib import suppress


def main(channel: socket.socket, gate: int) -> None:
    """Wait for the end of the launcher, or of its sandbox, which is told by a descriptor."""
    init: int | None = None
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if init is not None and init in ready:
            return  # the sandbox is gone
        if channel.fileno() not in ready:
            continue
        descriptor = _told(channel)
        if descriptor is None:
            break
        init = descriptor
        poll.register(init, select.POLLIN)
        with suppress(OSError):  # a launcher that has just ended: told by the next round
            channel.send(b"seen")
    if init is not None:
        _kill(init)
        return
    # Again until there is none: whoever was not seen was made meanwhile by one that was.
    while found := holders(gate):
        for pid in found:
            end_holder(pid, gate)


def _told(channel: socket.socket) -> int | None:
    """Return the descriptor that has come; None: the launcher is gone."""
    try:
        descriptors = socket.recv_fds(channel, 16, 1)[1]
    except OSError:
        return None  # reset, as the launcher had not read all when it ended
    return descriptors[0] if descriptors else None


def holders(gate: int) -> list[int]:
    """Return the other processes that have the pipe open."""
    wanted = os.fstat(gate).st_ino
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


def end_holder(pid: int, gate: int) -> None:
    """End a process that has the pipe, if it is the same still."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    if _holds(str(pid), os.fstat(gate).st_ino):
        _kill(descriptor)
    os.close(descriptor)


def _kill(descriptor: int) -> None:
    with suppress(OSError):  # it may have gone by itself
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
