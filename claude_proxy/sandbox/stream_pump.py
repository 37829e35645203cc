"""Stream pump: copies between files and the pipes that a sandbox has instead; a separate program.

Usage: stream_pump.py LIFELINE STREAM...

A STREAM is `in=FILE,WRITING,READING` or `out=READING,FILE`, all descriptors. The program ends when
the lifeline is closed and the outputs are at their end. Its exit code is 0, or the errno of an
output that could not be written.

Law kept: the sandbox cannot move its own wall. A process that has a file as a standard stream can
open it once more in /proc/self/fd, for writing as well, and change its permissions. A pipe leads
nowhere.

The files are the caller's own descriptors: what appends still appends, and the next program goes on
at the same offset. What COMMAND has not read of its input is left for that program as well.
"""

import errno
import fcntl
import os
import select
import sys
import termios

if not __package__:  # run by its path
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 2)))  # noqa: PTH100, PTH118, PTH120

from claude_proxy.sandbox.light_suppress import suppress

_PIECE = 64 * 1024  # the capacity of a pipe


class Input:
    """A file that is copied into a pipe."""

    def __init__(self, file: int, writing: int, reading: int) -> None:
        self.pipe: int | None = writing
        self._file = file
        self._reading = reading  # to count what nobody has read
        self._pending = b""
        self._start: int | None = None
        with suppress(OSError):  # a device and a FIFO have no offset
            self._start = os.lseek(file, 0, os.SEEK_CUR)
        os.set_blocking(writing, False)

    @property
    def awaited(self) -> tuple[int, int]:
        """The descriptor and the event after which a step does not block."""
        # A file is always readable; what else there is may keep one waiting.
        if self._start is None and not self._pending:
            return self._file, select.POLLIN
        return self.pipe or 0, select.POLLOUT

    def step(self, descriptor: int) -> None:
        """Copy a piece; close the pipe at the end of the file."""
        try:
            self._pending = self._pending or os.read(self._file, _PIECE)
        except OSError:
            self._pending = b""  # an error looks like the end of the file
        if not self._pending:
            self.close()
            return
        with suppress(BlockingIOError):
            self._pending = self._pending[os.write(descriptor, self._pending) :]

    def close(self) -> None:
        """Let the reader come to the end."""
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None

    def rewind(self) -> None:
        """Set the file's offset behind what was read."""
        if self._start is None:
            return
        count = bytearray(4)
        fcntl.ioctl(self._reading, termios.FIONREAD, count)
        unread = len(self._pending) + int.from_bytes(count, sys.byteorder)
        at = os.lseek(self._file, 0, os.SEEK_CUR)
        # Something inside may have written to the pipe as well.
        os.lseek(self._file, max(self._start, at - unread), os.SEEK_SET)


class Output:
    """A pipe that is copied into a file."""

    def __init__(self, reading: int, file: int) -> None:
        self.pipe: int | None = reading
        self.error = 0
        self._file = file

    @property
    def awaited(self) -> tuple[int, int]:
        """The descriptor and the event after which a step does not block."""
        return self.pipe or 0, select.POLLIN

    def step(self, descriptor: int) -> None:
        """Copy a piece; close the pipe at its end, or when the file cannot be written."""
        data = os.read(descriptor, _PIECE)
        try:
            rest = data
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            self.error = error.errno or errno.EIO
        if self.error or not data:
            os.close(descriptor)
            self.pipe = None


def main(lifeline: int, inputs: list[Input], outputs: list[Output]) -> int:
    """Copy until the sandbox has ended and all is written; return the errno of a failure, or 0."""
    every: list[Input | Output] = [*inputs, *outputs]
    running = True
    while running or any(output.pipe is not None for output in outputs):
        poll = select.poll()
        streams: dict[int, Input | Output] = {}
        for stream in every:
            if stream.pipe is not None:
                descriptor, event = stream.awaited
                streams[descriptor] = stream
                poll.register(descriptor, event)
        if running:
            poll.register(lifeline, select.POLLIN)
        for descriptor, _ in poll.poll():
            if descriptor != lifeline:
                stream = streams[descriptor]
                stream.step(stream.pipe or 0)
                continue
            running = False
            for one in inputs:
                one.close()
            break
    for one in inputs:
        one.rewind()
    return next((output.error for output in outputs if output.error), 0)


def _numbers(words: list[str], kind: str) -> list[list[int]]:
    chosen = [word.removeprefix(kind) for word in words if word.startswith(kind)]
    return [[int(number) for number in numbers.split(",")] for numbers in chosen]


def run(words: list[str]) -> int:
    """Run the program with the words of its command line; return its exit code."""
    return main(
        int(words[0]),
        [Input(*numbers) for numbers in _numbers(words[1:], "in=")],
        [Output(*numbers) for numbers in _numbers(words[1:], "out=")],
    )


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
