"""Measures what a person waits for: until a proxy serves, and until a sandboxed command runs."""

import http.client
import os
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.loads import LoadError, watched
from bench.measurements import Measurement, Row
from bench.place import HOST, JSON_BYTES
from bench.processes import PATIENCE_S
from bench.proxies import Proxy, Running, Sandboxed

_MS = 1e3
_NS_PER_S = 1_000_000_000
_LEAST = 3  # starts in one measurement
_MOST = 40


@dataclass(frozen=True, slots=True)
class StartOfProxy(Measurement):
    """How long a proxy that is started takes, as often as the time allows."""

    lasts: Callable[[Proxy], tuple[float, float]] = lambda _: (0.0, 0.0)

    def take(self, proxy: Proxy, running: Running, secs: float) -> dict[str, Any]:
        """Start it again and again."""
        del running
        return watched(None, lambda: again(lambda: self.lasts(proxy), secs))


@dataclass(frozen=True, slots=True)
class StartOfRun(Measurement):
    """How long a command in a sandbox of its own takes, as often as the time allows."""

    lasts: Callable[[Sandboxed, Path], tuple[float, float]] = lambda *_: (0.0, 0.0)
    inside: Sequence[str] = ("true",)
    needs_running: bool = False

    def applies_to(self, proxy: Proxy) -> bool:
        """Need a sandbox."""
        return proxy.sandboxed(self.inside) is not None

    def take(self, proxy: Proxy, running: Running, secs: float) -> dict[str, Any]:
        """Run it again and again, once without being measured: that one makes the CA."""
        del running
        how = proxy.sandboxed(self.inside)
        if how is None:
            return {"count": 0, "errors": 0}
        project = proxy.place.directory / "project"
        project.mkdir(exist_ok=True)
        self.lasts(how, project)
        return watched(None, lambda: again(lambda: self.lasts(how, project), secs))


def again(once: Callable[[], tuple[float, float]], secs: float) -> dict[str, Any]:
    """Do it until the time is over; return the times, and the CPU seconds of all together."""
    times: list[float] = []
    cpu_s, end = 0.0, time.monotonic() + secs
    while len(times) < _LEAST or (time.monotonic() < end and len(times) < _MOST):
        took, used = once()
        times.append(took)
        cpu_s += used
    row = {"count": len(times), "errors": 0, "times_ms": [round(one * _MS, 1) for one in times]}
    row["median_ms"] = round(statistics.median(times) * _MS, 2)
    return row | ({"cpu_s": round(cpu_s, 3)} if cpu_s else {})


# --- a proxy


def until_accepted(proxy: Proxy) -> tuple[float, float]:
    """Return how long it is from the start of a proxy until it accepts a connection."""
    started = proxy.start()
    started.stop()
    return started.startup_s, 0.0


def until_answered(proxy: Proxy) -> tuple[float, float]:
    """Return how long it is from the start of a proxy until a request through it is answered."""
    started = proxy.start()
    accepted_at = time.monotonic()
    try:
        _ask(proxy, started)
    finally:
        took = started.startup_s + time.monotonic() - accepted_at
        started.stop()
    return took, 0.0


def _ask(proxy: Proxy, running: Running) -> None:
    """Do one request in a tunnel, trusting the proxy's CA alone."""
    host, _, port = running.address.rpartition(":")
    context = ssl.create_default_context(cafile=running.ca)
    connection = http.client.HTTPSConnection(host, int(port), timeout=PATIENCE_S, context=context)
    try:
        connection.set_tunnel(HOST, proxy.target.tls)
        connection.request("POST", "/json", b"x" * 100)
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK or len(answer.read()) != JSON_BYTES:
            raise LoadError(f"the first request was answered with {answer.status}")
    except (OSError, http.client.HTTPException) as error:
        raise LoadError(f"the first request was not answered: {error}") from error
    finally:
        connection.close()


# --- a sandbox


def until_ended(how: Sandboxed, project: Path) -> tuple[float, float]:
    """Return how long a command takes in a sandbox, and the CPU seconds of all its processes."""
    start, _, end, cpu_s = _ran(how, project)
    return end - start, cpu_s


def until_command(how: Sandboxed, project: Path) -> tuple[float, float]:
    """Return how long it is until the command, which prints the time, runs."""
    start, out, _, cpu_s = _ran(how, project)
    lines = out.split()
    if not lines or not lines[-1].isdigit():
        raise LoadError(f"the command in the sandbox printed {out!r} instead of the time")
    return int(lines[-1]) / _NS_PER_S - start, cpu_s


def _ran(how: Sandboxed, project: Path) -> tuple[float, str, float, float]:
    """Run it; return when it started, what it printed, when it ended and the CPU seconds."""
    with tempfile.TemporaryFile("w+") as told:
        start = time.time()
        with subprocess.Popen(
            [str(word) for word in how.argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=told,
            cwd=project,
            env=how.environment,
            text=True,
        ) as process:
            out = process.stdout.read() if process.stdout is not None else ""
            _, status, used = os.wait4(process.pid, 0)
            end = time.time()
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            told.seek(0)
            why = " | ".join(told.read().splitlines()[:4])
            raise LoadError(f"exit code {process.returncode}: {why}")
    return start, out, end, used.ru_utime + used.ru_stime


def _median_ms(row: Row) -> float:
    return float(row["median_ms"])


STARTS: tuple[Measurement, ...] = (
    StartOfProxy(
        "start-serve",
        "start of a proxy until it accepts a connection",
        "ms",
        _median_ms,
        more_is_better=False,
        without=("no proxy",),
        lasts=until_accepted,
    ),
    StartOfProxy(
        "start-answer",
        "start of a proxy until a first request through it is answered",
        "ms",
        _median_ms,
        more_is_better=False,
        without=("no proxy",),
        lasts=until_answered,
    ),
    StartOfRun(
        "start-command",
        "start of a sandbox until the command in it runs",
        "ms",
        _median_ms,
        more_is_better=False,
        lasts=until_command,
        inside=("date", "+%s%N"),
    ),
    StartOfRun(
        "start-run",
        "`true` in a sandbox, from start to end",
        "ms",
        _median_ms,
        more_is_better=False,
        lasts=until_ended,
    ),
)
