"""Workbench of a build or update: the engine, a directory, a closed network, and a log.

Law kept: fail closed. Programs run in the closed network only, the engine itself among them.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.sandbox.container.closed_network import ClosedNetwork
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.work_directory import WorkDirectory

_LONGEST = 64 * 1024
_LINE_ENDS = lazy_pattern(rb"(?<=[\r\n])")
# The declarations of the variables of the proxy, and what buildah says of those that no step uses.
_OURS = lazy_pattern(rb"STEP \d+/\d+: ARG ws_proxy |build args were not consumed: \[.*APT_CONFIG")


@dataclass(frozen=True, slots=True)
class Reports:
    """Where it is said what happens."""

    say: Callable[[str], None]  # a line of our own
    output: Callable[[bytes], None]  # what programs print, a piece at a time


class OutputTail:
    """What a program prints: kept, and passed on but for lines about our own arguments."""

    def __init__(self, output: Callable[[bytes], None]) -> None:
        self._output = output
        self.data = bytearray()
        self._begun = b""

    def take(self, piece: bytes) -> None:
        """Take what was printed."""
        self.data += piece
        # A progress bar ends its lines with a carriage return.
        *lines, self._begun = _LINE_ENDS.split(self._begun + piece)
        self._pass_on(lines)
        if len(self._begun) > _LONGEST:
            self.finish()

    def finish(self) -> None:
        """Pass on what is left of a line."""
        self._pass_on([self._begun])
        self._begun = b""

    def _pass_on(self, lines: Sequence[bytes]) -> None:
        shown = b"".join(line for line in lines if not _OURS.search(line))
        if shown:
            self._output(shown)


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
        try:
            return self.network.run(
                words,
                output=self.tail.take,
                environ={**self.engine.environ, **own, **(more or {})},
                through=(str(self.engine.program), "unshare") if self.rootless else (),
            )
        finally:
            self.tail.finish()


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
