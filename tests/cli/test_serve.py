"""The command `serve`: which command line runs it, and its variables."""

from collections.abc import Callable

import click
import pytest

from claude_proxy.cli import serve
from claude_proxy.config.settings import (
    Settings,
    TcpListen,
)

type Served = Callable[..., Settings]


def port_of(settings: Settings) -> int:
    """Return the port of the one listener that there is."""
    (listen,) = settings.listen
    assert isinstance(listen, TcpListen)
    return listen.port


def test_no_arguments_serve(served: Served) -> None:
    settings = served()

    assert settings.listen == (TcpListen("127.0.0.1", 9051),)


def test_options_without_a_command_are_serves(served: Served) -> None:
    assert port_of(served("--port", "9052")) == 9052
    assert port_of(served("--port=9053")) == 9053
    assert port_of(served("serve", "--port", "9054")) == 9054


WITHOUT_VARIABLE = {"cadir", "help"}


@pytest.mark.parametrize(
    "option", [param for param in serve.command.params if param.name not in WITHOUT_VARIABLE]
)
def test_every_option_is_an_environment_variable_too(option: click.Parameter) -> None:
    assert option.envvar == "CLAUDE_PROXY_" + str(option.name).upper()


def test_cadir_has_no_variable_as_env_and_run_would_not_read_it() -> None:
    [option] = [param for param in serve.command.params if param.name == "cadir"]

    assert option.envvar is None


def test_a_variable_is_read_and_an_option_wins_over_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_PROXY_PORT", "9999")
    monkeypatch.setenv("CLAUDE_PROXY_CLIENT", "10.0.0.0/8 192.168.0.0/16")

    assert port_of(served()) == 9999
    assert len(served().clients) == 2
    assert port_of(served("--port", "9052")) == 9052


@pytest.mark.parametrize(
    "option", [param for param in serve.command.params if param.name != "help"]
)
def test_an_empty_variable_is_as_good_as_none(
    option: click.Parameter, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = served()
    monkeypatch.setenv(str(option.envvar), "")

    assert served() == usual


def test_a_password_among_the_arguments_is_warned_of(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    served("--upstream-proxy", "http://me:hunter2@corp.test:3128")

    shown = capsys.readouterr().err
    assert "warning" in shown
    assert "CLAUDE_PROXY_UPSTREAM_PROXY" in shown
    assert "hunter2" not in shown
