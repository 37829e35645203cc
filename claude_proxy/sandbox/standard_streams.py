"""Standard streams of COMMAND: terminals and pipes as they are, files through pipes.

Law kept: the sandbox cannot move its own wall. A process can open its standard streams once more in
/proc/self/fd: a file that was opened for reading, for writing; a directory, with everything above
it. So COMMAND gets a pipe instead of a file or a device, and no directory at all. Terminals,
pipes without a name and sockets stay as they are.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import field
from types import TracebackType
from typing import Self

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.bubblewrap.bwrap import StandardStreams, Stream
from claude_proxy.sandbox.helper_processes import HelperProcess, start_stream_pump
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import RunLog

_NAMES = ("standard input", "standard output", "standard error")
_MEMORY = 1  # the major number of /dev/null and its like
_HARMLESS = frozenset({3, 5, 7, 8, 9})  # null, zero, full, random, urandom
_OUTPUT_LOST = 74  # EX_IOERR of sysexits.h
_WRITER_KILLED = 141  # 128 + SIGPIPE: what COMMAND ends with if it cannot write


@dataclass(slots=True)
class Streams:
    """The streams of one COMMAND, and the process that copies those that are files."""

    of_command: StandardStreams
    _theirs: list[int] = field(default_factory=list)
    _pump: HelperProcess | None = None

    @classmethod
    def of(cls, given: StandardStreams, run_directory: RunDirectory, log: RunLog) -> Self:
        """Return the streams for COMMAND, for which `given` are those of the caller.

        Raises ConfigError if one of the launcher's own is a directory.
        """
        own = [at for at, stream in enumerate(given) if stream is None and _is_file(at)]
        if not own:
            return cls(given)
        streams: list[Stream] = list(given)
        theirs: list[int] = []
        ours: list[int] = []
        words: list[str] = []
        if 0 in own:
            reading, writing = os.pipe()
            file = os.dup(0)
            ours += [file, writing]
            words.append(f"in={file},{writing},{reading}")
            streams[0] = reading
            theirs.append(reading)
        for at in (number for number in own if number):
            if at == 2 and 1 in own and _are_one(1, 2):  # noqa: PLR2004 - `2>&1`: in order
                streams[2] = streams[1]
                continue
            reading, writing = os.pipe()
            file = os.dup(at)
            ours += [file, reading]
            words.append(f"out={reading},{file}")
            streams[at] = writing
            theirs.append(writing)
        passed = [*ours, *(theirs[:1] if 0 in own else [])]
        try:
            pump = start_stream_pump(words, passed, run_directory, log)
        except BaseException:
            _close(theirs)
            raise
        finally:
            _close(ours)
        return cls((streams[0], streams[1], streams[2]), theirs, pump)

    def let_go(self) -> None:
        """Close the ends that only COMMAND has from now on."""
        _close(self._theirs)
        self._theirs = []

    def finish(self, code: int, say: Callable[[str], None]) -> int:
        """Wait until everything is written after the end of COMMAND; return the run's exit code."""
        if self._pump is None:
            return code
        self.let_go()
        self._pump.close_lifeline()
        problem = self._pump.process.wait()
        if problem in {0, errno.EPIPE}:  # of a pipe, whose reader has seen enough
            return code
        reason = os.strerror(problem).lower() if problem > 0 else f"killed by signal {-problem}"
        say(f"warning: the output of COMMAND is not complete: {reason}")
        return _OUTPUT_LOST if code in {0, _WRITER_KILLED} else code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.let_go()
        if self._pump is not None:
            self._pump.end()


def _is_file(descriptor: int) -> bool:
    """Tell whether a stream can be opened once more in a way that COMMAND must not."""
    found = os.fstat(descriptor)
    if stat.S_ISDIR(found.st_mode):
        raise ConfigError(
            f"{_NAMES[descriptor]} is a directory, which COMMAND would see with all around it",
            where=_NAMES[descriptor],
            fix="redirect it to a file or to /dev/null; show a directory with --allow-ro",
        )
    if stat.S_ISCHR(found.st_mode):
        number = os.minor(found.st_rdev)
        harmless = os.major(found.st_rdev) == _MEMORY and number in _HARMLESS
        return not harmless and not os.isatty(descriptor)
    if stat.S_ISFIFO(found.st_mode):
        # One with a name may have other readers and writers.
        return not os.readlink(f"/proc/self/fd/{descriptor}").startswith("pipe:")  # noqa: PTH115
    return not stat.S_ISSOCK(found.st_mode)


def _are_one(one: int, other: int) -> bool:
    """Tell whether two streams are one file with one offset, as far as that shows."""
    flags = {fcntl.fcntl(descriptor, fcntl.F_GETFL) for descriptor in (one, other)}
    return os.path.sameopenfile(one, other) and len(flags) == 1


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
