"""Workbench of a build or update: the engine, a directory, a closed network, and a log.

Law kept: fail closed. Programs run in the closed network only, the engine itself among them.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox.container.closed_network import ClosedNetwork
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.work_directory import WorkDirectory


@dataclass(frozen=True, slots=True)
class Reports:
    """Where it is said what happens."""

    say: Callable[[str], None]  # a line of our own
    output: Callable[[bytes], None]  # what programs print, a piece at a time


class OutputTail:
    """What a program prints: passed on, and kept."""

    def __init__(self, output: Callable[[bytes], None]) -> None:
        self._output = output
        self.data = bytearray()

    def take(self, piece: bytes) -> None:
        """Take what was printed."""
        self.data += piece
        self._output(piece)


@dataclass(frozen=True, slots=True)
class Workbench:
    """What one build or update works with."""

    engine: Engine
    work: WorkDirectory
    network: ClosedNetwork
    tail: OutputTail
    rootless: bool

    def run(self, words: Sequence[str], more: Mapping[str, str] | None = None) -> int:
        """Run a program that sees the host's files in the closed network; return its exit code."""
        # It trusts the CA for what it fetches itself, such as the base of an image.
        own = self.network.environment(self.network.own_trust)
        return self.network.run(
            words,
            output=self.tail.take,
            environ={**self.engine.environ, **own, **(more or {})},
            through=(str(self.engine.program), "unshare") if self.rootless else (),
        )


@contextlib.contextmanager
def workbench(
    engine: Engine, work: WorkDirectory, network: ClosedNetwork, reports: Reports
) -> Iterator[Workbench]:
    """Yield a workbench; what was printed is kept in the log if the work fails for any reason."""
    tail = OutputTail(reports.output)
    try:
        yield Workbench(engine, work, network, tail, engine.facts().rootless)
    except BaseException:
        if tail.data:
            with contextlib.suppress(OSError):
                work.keep_log(bytes(tail.data))
        raise
