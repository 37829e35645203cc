"""The proxy process: what it assembles, what stops a start, and what survives an error."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from mitmproxy.options import Options

from claude_proxy.config.settings import (
    Base,
    Gateway,
    Settings,
    TcpListen,
    UpstreamProxy,
)
from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.binding import Injection
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.request import Scheme
from claude_proxy.server import app, startup
from claude_proxy.server.listening_sockets import OpenListener
from claude_proxy.wire.authority import Authority

API = Authority.of("127.0.0.1", 8080)
CORPORATE = UpstreamProxy(Authority.of("proxy.corp.test", 3128), exceptions=(".corp.test",))


def gateway(scheme: Scheme = Scheme.HTTP) -> Gateway:
    injection = Injection(EnvironmentSource("KEY"), strips=True)
    return Gateway((), Base(scheme, API), injection)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    tmp_path.chmod(0o700)
    allowlist = tmp_path / "allowlist.yaml"
    allowlist.write_text("allow: [one.example]\n", "utf-8")
    return Settings(
        allowlist=allowlist,
        confdir=tmp_path / "conf",
        statedir=tmp_path / "state",
        listen=(TcpListen("127.0.0.1", 0),),
    )


def test_the_master_loads_only_its_own_addons() -> None:
    addon = object()

    async def made() -> list[object]:
        return list(app.ProxyMaster(Options(), addon).addons.chain)

    assert asyncio.run(made()) == [addon]


def test_a_gateway_that_forwards_to_this_proxy_is_refused() -> None:
    own = OpenListener("tcp", "http://127.0.0.1:8080", (), address=API)
    given = Settings(Path("a"), Path("c"), Path("s"), gateway=gateway())

    with pytest.raises(ConfigError, match="this proxy itself"):
        app._refuse_loop(given, (own,))


@pytest.mark.parametrize(
    ("scheme", "more"),
    [(Scheme.HTTP, (API.host,)), (Scheme.HTTPS, ())],
    ids=["a plain upstream of this machine", "an upstream over TLS"],
)
def test_a_plain_upstream_of_the_gateway_goes_past_the_upstream_proxy(
    scheme: Scheme, more: tuple[str, ...]
) -> None:
    given = Settings(Path("a"), Path("c"), Path("s"), upstream_proxy=CORPORATE)

    found = app._corporate_proxy(replace(given, gateway=gateway(scheme)))

    assert found is not None
    assert found.exceptions == (".corp.test", *more)


def test_a_signal_during_the_start_ends_it_and_leaves_nothing_open(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Settings) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(startup, "upstream_roots", interrupted)

    assert app.serve(settings) == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_list_that_is_not_valid_stops_the_start(settings: Settings) -> None:
    settings.allowlist.write_text("allow: ['*']\n", "utf-8")

    with pytest.raises(ConfigError):
        app.serve(settings)


def test_a_periodic_task_survives_an_error() -> None:
    calls: list[int] = []

    async def run() -> None:
        enough = asyncio.Event()

        def fail() -> None:
            calls.append(1)
            if len(calls) == 3:
                enough.set()
            raise ValueError

        task = asyncio.create_task(app._every(0, fail))
        await enough.wait()
        task.cancel()

    asyncio.run(run())

    assert len(calls) == 3
