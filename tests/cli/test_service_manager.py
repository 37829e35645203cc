"""Sockets of a service manager are taken once, and no child process gets them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from claude_proxy.cli import main
from claude_proxy.config.settings import (
    InheritedListen,
    Listen,
    Settings,
    TcpListen,
    UnixListen,
)

type Served = Callable[..., Settings]


def test_passed_sockets_replace_the_default_listener(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given(names: str = "", count: str = "2", pid: int | None = None) -> tuple[Listen, ...]:
        monkeypatch.setenv("LISTEN_FDS", count)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid() if pid is None else pid))
        monkeypatch.setenv("LISTEN_FDNAMES", names)
        listen = served().listen
        assert not [name for name in os.environ if name.startswith("LISTEN_")]
        return listen

    default = (TcpListen("127.0.0.1", 9051),)
    assert given() == (InheritedListen(3, ""), InheritedListen(4, ""))
    assert given("web:unix") == (InheritedListen(3, "web"), InheritedListen(4, "unix"))
    assert given("same:same") == (InheritedListen(3, ""), InheritedListen(4, ""))
    assert given("unknown") == (InheritedListen(3, ""), InheritedListen(4, ""))
    assert given(pid=1) == default
    assert given(count="0") == default

    monkeypatch.setenv("CLAUDE_PROXY_LISTEN", "unix:/run/p.sock")
    assert given(count="1") == (InheritedListen(3, ""), UnixListen(Path("/run/p.sock")))


@pytest.mark.parametrize("count", ["", "two", "-1", "9999", "1 "])
def test_a_wrong_number_of_sockets_stops_the_start(
    count: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)

    assert main.main([]) == 2

    assert "LISTEN_FDS" in capsys.readouterr().err


def test_the_notify_address_is_kept_from_child_processes(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "@manager")

    assert served().notify == "@manager"
    assert "NOTIFY_SOCKET" not in os.environ
