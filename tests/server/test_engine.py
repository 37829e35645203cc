"""The engine: what it assembles, and what survives an error."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from mitmproxy.options import Options

from claude_proxy.config.settings import Base, Gateway, Settings, UpstreamProxy
from claude_proxy.policy.credentials.binding import Injection
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.request import Scheme
from claude_proxy.server import engine
from claude_proxy.wire.authority import Authority

API = Authority.of("127.0.0.1", 8080)
CORPORATE = UpstreamProxy(Authority.of("proxy.corp.test", 3128), exceptions=(".corp.test",))


def gateway(scheme: Scheme = Scheme.HTTP) -> Gateway:
    injection = Injection(EnvironmentSource("KEY"), strips=True)
    return Gateway((), Base(scheme, API), injection)


def test_the_master_loads_only_its_own_addons() -> None:
    addon = object()

    async def made() -> list[object]:
        return list(engine.ProxyMaster(Options(), addon).addons.chain)

    assert asyncio.run(made()) == [addon]


@pytest.mark.parametrize(
    ("scheme", "more"),
    [(Scheme.HTTP, (API.host,)), (Scheme.HTTPS, ())],
    ids=["a plain upstream of this machine", "an upstream over TLS"],
)
def test_a_plain_upstream_of_the_gateway_goes_past_the_upstream_proxy(
    scheme: Scheme, more: tuple[str, ...]
) -> None:
    given = Settings(Path("a"), Path("c"), Path("s"), upstream_proxy=CORPORATE)

    found = engine._corporate_proxy(replace(given, gateway=gateway(scheme)))

    assert found is not None
    assert found.exceptions == (".corp.test", *more)


def test_a_periodic_task_survives_an_error() -> None:
    calls: list[int] = []

    async def run() -> None:
        enough = asyncio.Event()

        def fail() -> None:
            calls.append(1)
            if len(calls) == 3:
                enough.set()
            raise ValueError

        task = asyncio.create_task(engine._every(0, fail))
        await enough.wait()
        task.cancel()

    asyncio.run(run())

    assert len(calls) == 3
