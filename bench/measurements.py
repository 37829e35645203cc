"""Lists what is measured, and how its headline is worked out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.loads import POST, Work, measure, measure_idle
from bench.place import DENIED_HOST
from bench.processes import StartError
from bench.proxies import Proxy, Running, Target

type Row = Mapping[str, Any]

_MIB = 1024 * 1024
_DOWNLOAD_MIB = 256
_US_PER_S = 1_000_000
IDLE_TUNNELS = 2000


@dataclass(frozen=True, slots=True)
class Measurement:
    """One thing that is measured of every proxy."""

    name: str
    title: str
    unit: str
    value: Callable[[Row], float]
    more_is_better: bool = True
    work: Callable[[Target, float], Work] | None = None
    fresh: bool = False  # of a proxy that was started for it
    without: tuple[str, ...] = ()  # names of proxies of which it makes no sense

    def take(self, proxy: Proxy, running: Running, secs: float) -> dict[str, Any]:
        """Measure, and return all there is to know; the headline is `value` of it."""
        if not self.fresh:
            return measure(running, self._work(proxy, secs))
        started = proxy.start()
        try:
            result: dict[str, Any] = {"startup_s": started.startup_s, "count": 1, "errors": 0}
            if self.work is not None:
                warm_up(proxy, started)
                result |= measure_idle(started, self._work(proxy, secs))
            return result
        finally:
            started.stop()

    def _work(self, proxy: Proxy, secs: float) -> Work:
        if self.work is None:
            raise NotImplementedError
        return self.work(proxy.target, secs)


def warm_up(proxy: Proxy, running: Running) -> None:
    """Have a proxy make its first certificate, and see that it decrypts: only its CA is trusted."""
    result = measure(running, Work("requests", 1, proxy.target.tls, POST, 0.2))
    if result["errors"] or not result["count"]:
        raise StartError(f"no request went through it: {result['error']}")


def _requests(connections: int) -> Measurement:
    return Measurement(
        f"requests-{connections}",
        f"requests on {_counted(connections)} kept, POST 10 KiB, answer 1 KiB of JSON",
        "requests/s",
        _per_second,
        work=lambda target, secs: Work("requests", connections, target.tls, POST, secs),
    )


def _tunnels(connections: int) -> Measurement:
    return Measurement(
        f"tunnels-{connections}",
        f"new tunnels, {connections} at a time: TCP, CONNECT, TLS, one POST, close",
        "tunnels/s",
        _per_second,
        work=lambda target, secs: Work("tunnels", connections, target.tls, POST, secs),
    )


def _download(connections: int) -> Measurement:
    size = _DOWNLOAD_MIB // connections * _MIB
    options = ("--path", f"/bytes?n={size}", "--expect", str(size))
    return Measurement(
        f"download-{connections}",
        f"download of {_DOWNLOAD_MIB} MiB over {_counted(connections)}",
        "MB/s",
        lambda row: row["bytes"] / row["wall_s"] / 1e6,
        work=lambda target, _: Work("download", connections, target.own_tls, options),
    )


def _events(connections: int, rate: int) -> Measurement:
    def work(target: Target, secs: float) -> Work:
        path = f"/events?n={max(1, round(rate * secs))}&rate={rate}"
        return Work("events", connections, target.own_tls, ("--path", path))

    return Measurement(
        f"events-{connections}",
        f"server-sent events, {connections} streams of {rate} a second: how late they are",
        "µs late",
        lambda row: float(row["p50_us"]),
        more_is_better=False,
        work=work,
    )


def _per_second(row: Row) -> float:
    return float(row["count"] / row["wall_s"])


def _counted(connections: int) -> str:
    return "1 connection" if connections == 1 else f"{connections} connections"


ALL = (
    _requests(1),
    _requests(16),
    _requests(64),
    _tunnels(1),
    _tunnels(16),
    Measurement(
        "plain-16",
        "plain http (absolute-form) on 16 connections kept, the same POST",
        "requests/s",
        _per_second,
        work=lambda target, secs: Work("requests", 16, target.plain, ("--plain", "1", *POST), secs),
    ),
    Measurement(
        "refusals-8",
        "tunnels to a host that is not allowed, 8 at a time",
        "refusals/s",
        _per_second,
        work=lambda target, secs: Work("refusals", 8, target.tls, (), secs, DENIED_HOST),
        without=("no proxy",),
    ),
    _download(1),
    _download(4),
    _events(50, 20),
    _events(200, 10),
    Measurement(
        "idle",
        f"memory of {IDLE_TUNNELS:,} idle tunnels, TLS included",
        "KiB each",
        lambda row: float(row["kib_each"]),
        more_is_better=False,
        work=lambda target, _: Work("idle", IDLE_TUNNELS, target.tls),
        fresh=True,
        without=("no proxy",),
    ),
    Measurement(
        "startup",
        "start until it accepts a connection",
        "s",
        lambda row: float(row["startup_s"]),
        more_is_better=False,
        fresh=True,
        without=("no proxy",),
    ),
)
