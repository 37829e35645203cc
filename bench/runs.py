"""Measures many sandboxes at a time: what each takes of memory, and how long one more takes.

claude-proxy's runs join one proxy, which serves them all; srt has a proxy for each.
"""

import os
import signal
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.loads import LoadError, watched
from bench.measurements import Measurement, warm_up
from bench.processes import PATIENCE_S, memory_kib
from bench.proxies import NOT_STARTED, Direct, Proxy, Running, Sandboxed

# Prints the time, then lives for as long as its standard input stays open.
_COMMAND = ("sh", "-c", "date +%s%N; exec cat")
_NS_PER_S = 1_000_000_000
_MS = 1e3
_FEW = 5  # starts at the beginning, to compare with


@dataclass(frozen=True, slots=True)
class ManyRuns(Measurement):
    """Starts sandboxes that stay, one after the other, and one more."""

    runs: int = 100
    needs_running: bool = False

    def applies_to(self, proxy: Proxy) -> bool:
        """Need a sandbox."""
        return not isinstance(proxy, Direct) and proxy.sandboxed(_COMMAND) is not None

    def take(self, proxy: Proxy, running: Running, secs: float) -> dict[str, Any]:
        """Start a proxy where they can join one, then them."""
        del running, secs
        with ExitStack() as stack:
            served = NOT_STARTED
            if proxy.joins:
                served = proxy.start()
                stack.callback(served.stop)
                warm_up(proxy, served)
            how = proxy.sandboxed(_COMMAND, join=served if proxy.joins else None)
            if how is None:
                return {"count": 0, "errors": 0}
            project = proxy.place.directory / "project"
            project.mkdir(exist_ok=True)
            return watched(None, lambda: self._started(how, project, served, stack))

    def _started(
        self, how: Sandboxed, project: Path, served: Running, stack: ExitStack
    ) -> dict[str, Any]:
        stack.enter_context(_Run(how, project))  # unmeasured: it finds nothing in the caches
        proxy_kib = _memory_of(served)
        started = [stack.enter_context(_Run(how, project)) for _ in range(self.runs)]
        runs_kib = statistics.median(memory_kib(*(run.pid for run in started)))
        grown_kib = (_memory_of(served) - proxy_kib) / self.runs
        last = stack.enter_context(_Run(how, project))
        first_s = statistics.median(run.took_s for run in started[:_FEW])
        return {
            "count": self.runs,
            "errors": 0,
            "last_ms": round(last.took_s * _MS, 1),
            "first_ms": round(first_s * _MS, 1),
            "run_kib": round(runs_kib),
            "proxy_kib_each": round(grown_kib, 1),
        }


def _memory_of(served: Running) -> int:
    return 0 if served.pid is None else memory_kib(served.pid)[0]


class _Run:
    """A sandbox whose command runs until the end of a `with`."""

    def __init__(self, how: Sandboxed, project: Path) -> None:
        self._how, self._project = how, project
        self._told = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        start = time.time()
        self._process = subprocess.Popen(
            [str(word) for word in self._how.argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._told,
            cwd=self._project,
            env=self._how.environment,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line.strip().isdigit():
            self.__exit__()
            raise LoadError(f"a sandbox did not start: {line.strip() or self._last_words}")
        self.took_s = int(line) / _NS_PER_S - start
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._told.seek(0)
        self._last_words = " | ".join(self._told.read().splitlines()[-4:])
        self._told.close()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _many(runs: int) -> Measurement:
    return ManyRuns(
        f"runs-{runs}",
        f"{runs} sandboxes at a time: start of one more until its command runs",
        "ms",
        lambda row: float(row["last_ms"]),
        more_is_better=False,
        runs=runs,
    )


RUNS: tuple[Measurement, ...] = (_many(10), _many(100))
