"""Drives the load generator: lets it set up, looks at the proxy, lets it go, looks again."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.place import BUILT, HOST, JSON_BYTES
from bench.processes import LOOPBACK, busy_s, cost_of, forget_peak
from bench.proxies import Running

_SETTLE_S = 0.5
_LIMIT_S = 180.0

POST = ("--method", "POST", "--path", "/json", "--body", "10240", "--expect", str(JSON_BYTES))


class LoadError(Exception):
    """The load generator could not do its work."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the load generator is told to do."""

    mode: str
    connections: int
    port: int
    options: tuple[str, ...] = ()
    secs: float = 0.0
    host: str = HOST

    def argv(self, running: Running) -> list[str]:
        """Return the command that does it by way of `running`."""
        address = f"{LOOPBACK}:{self.port}" if running.direct else running.address
        return [
            *(str(BUILT / "load"), self.mode, "--proxy", address),
            *("--direct", str(int(running.direct)), "--ca", str(running.ca)),
            *("--host", self.host, "--port", str(self.port)),
            *("--connections", str(self.connections), "--secs", str(self.secs), *self.options),
        ]


@dataclass(slots=True)
class Load:
    """A load that is set up: connected, and waiting for the word."""

    process: "subprocess.Popen[str]"
    result: dict[str, Any] = field(default_factory=dict)

    def go(self) -> dict[str, Any]:
        """Let it work and return its result; its connections stay open."""
        self._say()
        self.result = self._read()
        return self.result

    def _say(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.write("\n")
            self.process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout is not None else ""
        if not line:
            raise LoadError("the load generator was ended: too slow")
        result: dict[str, Any] = json.loads(line)
        return result


@contextmanager
def load(argv: Sequence[str | Path], limit_s: float = _LIMIT_S) -> Iterator[Load]:
    """Set a load up; at the end it lets go of its connections, and too slow a one is ended."""
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        alarm = threading.Timer(limit_s, process.kill)
        alarm.start()
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                told = process.stderr.read() if process.stderr is not None else ""
                raise LoadError(told.strip() or "too slow to get ready")
            yield Load(process)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                process.kill()
            alarm.cancel()


def measure(running: Running, work: Work) -> dict[str, Any]:
    """Do `work` by way of a proxy; return the result and what it cost the proxy."""
    with load(work.argv(running)) as ready:
        if running.pid is not None:
            forget_peak(running.pid)
        return watched(running.pid, ready.go)


def measure_idle(running: Running, work: Work) -> dict[str, Any]:
    """Hold idle tunnels; return what each takes of the proxy's memory."""
    if running.pid is None:
        return {}
    time.sleep(_SETTLE_S)
    before = cost_of(running.pid).rss_kib
    with load(work.argv(running)) as ready:
        time.sleep(_SETTLE_S)
        result = watched(running.pid, ready.go)
    held = max(1, int(result["count"]))
    return {**result, "kib_each": (result["rss_kib"] - before) / held}


def watched(pid: int | None, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Act, and add what that cost the proxy and what others took of the machine meanwhile."""
    whole, ours = busy_s()
    start, before = time.monotonic(), cost_of(pid) if pid is not None else None
    result = act()
    after, wall = cost_of(pid) if pid is not None else None, time.monotonic() - start
    whole_after, ours_after = busy_s()
    others = (whole_after - whole - (ours_after - ours)) / wall
    result = {**result, "others_cores": round(max(0.0, others), 2)}
    if before is not None and after is not None:
        result["cpu_s"] = round(after.cpu_s - before.cpu_s, 3)
        result["rss_kib"], result["peak_kib"] = after.rss_kib, after.peak_kib
    return result
