"""The proxy process: what stops a start, and that all of it is checked before the engine."""

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import certifi
import pytest

from claude_proxy.config import policy_files
from claude_proxy.config.settings import (
    Base,
    Gateway,
    Settings,
    TcpListen,
)
from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.binding import Injection
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.request import Scheme
from claude_proxy.server import app, startup
from claude_proxy.server.listening_sockets import OpenListener
from claude_proxy.wire.authority import Authority

API = Authority.of("127.0.0.1", 8080)


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


def test_a_gateway_that_forwards_to_this_proxy_is_refused() -> None:
    own = OpenListener("tcp", "http://127.0.0.1:8080", (), address=API)
    given = Settings(Path("a"), Path("c"), Path("s"), gateway=gateway())

    with pytest.raises(ConfigError, match="this proxy itself"):
        app._refuse_loop(given, (own,))


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


# What each may say that stops a start; the engine cannot be imported, so nothing may need it.
_NO_ENGINE = """
import os, pickle, sys
from pathlib import Path
sys.modules["mitmproxy"] = None
from claude_proxy.config.settings import Settings, TcpListen
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.server.app import serve
from claude_proxy.system.sd_notify import Lifeline
place = Path(sys.argv[1])
settings = Settings(place / "allowlist.yaml", place / "conf", place / "state",
    listen=(TcpListen("127.0.0.1", int(sys.argv[2])),), upstream_ca=place / "roots.pem")
loaded = (place / "loaded").read_bytes() if (place / "loaded").exists() else pickle.dumps(None)
def checked():
    print("checked", "read" if "yaml" in sys.modules else "given", flush=True)
lifeline = Lifeline(checked, sys.exit, os.pipe()[0])
try:
    serve(settings, loaded=pickle.loads(loaded), lifeline=lifeline)
except ClaudeProxyError as error:
    print(error.what)
except ImportError as error:
    print("imported", error.name)
"""


def started_without_engine(place: Path, port: int = 0) -> list[str]:
    place.chmod(0o700)
    if not (place / "allowlist.yaml").exists():
        (place / "allowlist.yaml").write_text("allow: [one.example]\n", "utf-8")
    if not (place / "roots.pem").exists():
        shutil.copy(certifi.where(), place / "roots.pem")
    ran = subprocess.run(
        [sys.executable, "-c", _NO_ENGINE, str(place), str(port)],
        capture_output=True,
        check=True,
        text=True,
    )
    return ran.stdout.splitlines()


def test_all_is_checked_and_listened_on_before_the_engine_is_imported(place: Path) -> None:
    first, last = started_without_engine(place)

    assert (first, last.partition(".")[0]) == ("checked read", "imported mitmproxy")
    assert (place / "state").is_dir()


@pytest.mark.parametrize("change", ["", "allow: [two.example]\n", "allow: ['*']\n"])
def test_a_policy_that_was_read_already_is_read_again_only_if_it_has_changed(
    place: Path, change: str
) -> None:
    place.chmod(0o700)
    (place / "allowlist.yaml").write_text("allow: [one.example]\n", "utf-8")
    loaded = policy_files.load(place / "allowlist.yaml", place / "conf")
    (place / "loaded").write_bytes(pickle.dumps(loaded))
    if change:
        (place / "allowlist.yaml").write_text(change, "utf-8")

    first, *_ = started_without_engine(place)

    expected = {"": "checked given", "allow: ['*']\n": 'the host pattern "*" matches every host'}
    assert first == expected.get(change, "checked read")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("allowlist.yaml", "matches every host"),
        ("roots.pem", "no readable certificate"),
        ("conf", "directory"),
        ("state", "the state directory"),
    ],
)
def test_what_stops_a_start_does_so_without_the_engine(
    place: Path, name: str, problem: str
) -> None:
    (place / name).write_text("allow: ['*']\n", "utf-8")

    [said] = started_without_engine(place)

    assert problem in said


def test_a_port_that_is_taken_stops_a_start_without_the_engine(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        [said] = started_without_engine(place, taken.getsockname()[1])

    assert "cannot listen" in said
