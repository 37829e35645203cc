"""Lists what is measured under load, and how its headline is worked out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.loads import POST, Work, load, measure, measure_idle
from bench.place import DENIED_HOST
from bench.processes import StartError
from bench.proxies import Proxy, Running, Target

type Row = Mapping[str, Any]

_MIB = 1024 * 1024
_DOWNLOAD_MIB = 256
_US_PER_S = 1_000_000
IDLE_TUNNELS = 2000


@dataclass(frozen=True, slots=True)
class Measurement(ABC):
    """One thing that is measured of every proxy; what it does is its subclass's."""

    name: str
    title: str
    unit: str
    value: Callable[[Row], float]
    more_is_better: bool = True
    without: tuple[str, ...] = ()  # names of proxies of which it makes no sense
    needs_running: bool = True  # else the proxies are not started for it

    def applies_to(self, proxy: Proxy) -> bool:
        """Tell whether it makes sense of a proxy."""
        return proxy.name not in self.without

    @abstractmethod
    def take(self, proxy: Proxy, running: Running, secs: float) -> dict[str, Any]:
        """Measure, and return all there is to know; the headline is `value` of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderLoad(Measurement):
    """What the load generator does by way of a proxy that runs."""

    work: Callable[[Target, float], Work]

    def take(self, proxy: Proxy, running: Running, secs: float) -> dict[str, Any]:
        """Have the work done."""
        return measure(running, self.work(proxy.target, secs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle(Measurement):
    """What idle tunnels take of the memory of a proxy that was started for them."""

    work: Callable[[Target, float], Work]

    def take(self, proxy: Proxy, running: Running, secs: float) -> dict[str, Any]:
        """Start one, and hold tunnels."""
        del running
        started = proxy.start()
        try:
            warm_up(proxy, started)
            return measure_idle(started, self.work(proxy.target, secs))
        finally:
            started.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowded(Measurement):
    """Work by way of a proxy that was started for it, and that holds idle tunnels meanwhile."""

    work: Callable[[Target, float], Work]

    def take(self, proxy: Proxy, running: Running, secs: float) -> dict[str, Any]:
        """Start one, hold tunnels, and have the work done."""
        del running
        started = proxy.start()
        try:
            warm_up(proxy, started)
            idle = Work("idle", IDLE_TUNNELS, proxy.target.tls)
            with load(idle.argv(started)) as held:
                row = measure(started, self.work(proxy.target, secs))
                still = held.go()
            lost = IDLE_TUNNELS - int(still["count"])
            why = {"error": f"{lost} idle tunnels were closed"} if lost else {}
            return row | {"errors": row["errors"] + still["errors"] + lost} | why
        finally:
            started.stop()


def warm_up(proxy: Proxy, running: Running) -> None:
    """Have a proxy make its first certificate, and see that it decrypts: only its CA is trusted."""
    result = measure(running, Work("requests", 1, proxy.target.tls, POST, 0.2))
    if result["errors"] or not result["count"]:
        raise StartError(f"no request went through it: {result['error']}")


def _requests(connections: int) -> Measurement:
    return UnderLoad(
        f"requests-{connections}",
        f"requests on {_counted(connections)} kept, POST 10 KiB, answer 1 KiB of JSON",
        "requests/s",
        _per_second,
        work=lambda target, secs: Work("requests", connections, target.tls, POST, secs),
    )


def _tunnels(connections: int) -> Measurement:
    return UnderLoad(
        f"tunnels-{connections}",
        f"new tunnels, {connections} at a time: TCP, CONNECT, TLS, one POST, close",
        "tunnels/s",
        _per_second,
        work=lambda target, secs: Work("tunnels", connections, target.tls, POST, secs),
    )


def _download(connections: int) -> Measurement:
    size = _DOWNLOAD_MIB // connections * _MIB
    options = ("--path", f"/bytes?n={size}", "--expect", str(size))
    return UnderLoad(
        f"download-{connections}",
        f"download of {_DOWNLOAD_MIB} MiB over {_counted(connections)}",
        "MB/s",
        lambda row: row["bytes"] / row["wall_s"] / 1e6,
        work=lambda target, _: Work("download", connections, target.own_tls, options),
    )


def _streaming(connections: int, rate: int) -> Callable[[Target, float], Work]:
    def work(target: Target, secs: float) -> Work:
        path = f"/events?n={max(1, round(rate * secs))}&rate={rate}"
        return Work("events", connections, target.own_tls, ("--path", path))

    return work


def _events(connections: int, rate: int) -> Measurement:
    return UnderLoad(
        f"events-{connections}",
        f"server-sent events, {_streams(connections)} of {rate} a second: how late they are",
        "µs late",
        lambda row: float(row["p50_us"]),
        more_is_better=False,
        work=_streaming(connections, rate),
    )


def _per_second(row: Row) -> float:
    return float(row["count"] / row["wall_s"])


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"


def _counted(connections: int) -> str:
    return "1 connection" if connections == 1 else f"{connections} connections"


LOADS: tuple[Measurement, ...] = (
    _requests(1),
    _requests(16),
    _requests(64),
    _tunnels(1),
    _tunnels(16),
    UnderLoad(
        "plain-16",
        "plain http (absolute-form) on 16 connections kept, the same POST",
        "requests/s",
        _per_second,
        work=lambda target, secs: Work("requests", 16, target.plain, ("--plain", "1", *POST), secs),
    ),
    UnderLoad(
        "refusals-8",
        "tunnels to a host that is not allowed, 8 at a time",
        "refusals/s",
        _per_second,
        work=lambda target, secs: Work("refusals", 8, target.tls, (), secs, DENIED_HOST),
        without=("no proxy",),
    ),
    _download(1),
    _download(4),
    _events(1, 100),
    _events(50, 20),
    _events(200, 10),
    _events(500, 4),
    Crowded(
        "crowd",
        f"events of 500 streams of 4 a second beside {IDLE_TUNNELS:,} idle tunnels",
        "µs late",
        lambda row: float(row["p50_us"]),
        more_is_better=False,
        work=_streaming(500, 4),
        without=("no proxy",),
    ),
    Idle(
        "idle",
        f"memory of {IDLE_TUNNELS:,} idle tunnels, TLS included",
        "KiB each",
        lambda row: float(row["kib_each"]),
        more_is_better=False,
        work=lambda target, _: Work("idle", IDLE_TUNNELS, target.tls),
        without=("no proxy",),
    ),
)
