"""The command line's frame: which command runs, and what a failure looks like."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click
import pytest

from claude_proxy import __version__
from claude_proxy.cli import main
from claude_proxy.config.settings import (
    Settings,
)
from claude_proxy.errors import ClaudeProxyError, ConfigError, ConfigErrors

type Failing = Callable[[BaseException], int]


@pytest.fixture
def failing() -> Failing:
    """Return a function that runs a proxy which fails with the error it is given."""

    def run(error: BaseException) -> int:
        def start(_: Settings) -> int:
            raise error

        return main.main([], start=start)

    return run


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0

    assert capsys.readouterr().out == f"claude-proxy, version {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_names_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(arguments) == 0

    shown = capsys.readouterr().out
    assert [name for name in main.COMMANDS if f"\n  {name} " not in shown] == []


@pytest.mark.parametrize("name", main.COMMANDS)
def test_a_command_is_described_as_it_describes_itself(name: str) -> None:
    command = import_module(main.module_of(name)).command

    assert command.get_short_help_str(200) == main.COMMANDS[name]


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([name, "--help"]) == 0

    assert capsys.readouterr().out.startswith(f"Usage: claude-proxy {name}")


def test_help_and_the_commands_import_no_mitmproxy() -> None:
    script = (
        "import sys\n"
        "from importlib import import_module\n"
        "from claude_proxy.cli import main\n"
        "main.main(['--help'])\n"
        "assert 'cryptography' not in sys.modules\n"
        "[import_module(main.module_of(name)) for name in main.COMMANDS]\n"
        "assert 'mitmproxy' not in sys.modules\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr.decode()


def test_an_error_says_what_where_and_how_to_fix_it(
    failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    error = ClaudeProxyError("the port is busy", where="127.0.0.1:9051", fix="stop the other")

    assert failing(error) == 1

    assert capsys.readouterr().err == (
        "claude-proxy: error: the port is busy\n  where: 127.0.0.1:9051\n  fix:   stop the other\n"
    )


def test_every_gathered_error_is_printed_with_the_programs_name(
    failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = ConfigErrors([ConfigError("one"), ConfigError("two", where="b.yaml:2")])

    assert failing(errors) == 2

    shown = capsys.readouterr().err
    assert shown == "claude-proxy: error: one\nclaude-proxy: error: two\n  where: b.yaml:2\n"


def test_an_internal_error_shows_neither_traceback_nor_message(
    failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(ValueError("the password is hunter2")) == 70

    shown = capsys.readouterr().err
    assert "internal error (ValueError)" in shown
    assert "hunter2" not in shown
    assert "Traceback" not in shown


def test_the_traceback_is_shown_on_request(
    failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_PROXY_DEBUG", "1")

    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort(), EOFError()])
def test_an_interrupt_is_quiet_and_reported_as_a_shell_would(
    error: BaseException,
    failing: Failing,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert failing(error) == 130

    assert capsys.readouterr().err == ""


def test_a_reader_that_goes_away_is_not_reported() -> None:
    piped = subprocess.run(
        [sys.executable, "-m", "claude_proxy", "serve", "--help"],
        stdout=_closed_pipe(),
        stderr=subprocess.PIPE,
        check=False,
    )

    assert (piped.returncode, piped.stderr) == (141, b"")


@pytest.mark.parametrize(
    "words", [["gateway", "--help"], ["completion", "bash"], ["presets"], ["schema"]]
)
def test_output_that_cannot_be_written_is_a_plain_error(words: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "claude_proxy", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == main.EXIT_OUTPUT
    assert done.stderr.startswith("claude-proxy: error: the output cannot be written: no space")
    assert len(done.stderr.splitlines()) == 3


def test_an_error_that_nobody_can_read_is_still_an_exit_code() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "claude_proxy", "nonsense"], stderr=full, check=False
        )

    assert done.returncode == 2


def test_a_write_that_fails_elsewhere_is_not_reported_as_output(
    failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(OSError(28, "No space left on device")) == main.EXIT_INTERNAL

    assert "the output" not in capsys.readouterr().err


def _closed_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["serve", "more"],
        ["completion"],
        ["completion", "tcsh"],
        ["--port", "65536"],
        ["--port", "http"],
        ["--log-format", "xml"],
        ["--audit-failure", "maybe"],
        ["--audit-days", "0"],
        ["--max-connections", "0"],
    ],
)
def test_a_usage_error_points_at_help_and_exits_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(arguments) == 2

    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("claude-proxy: error: ")
    assert "--help`" in shown.err


@pytest.mark.parametrize(
    ("command", "variable"),
    [("log", "CLAUDE_PROXY_LOG_DENIED"), ("serve", "CLAUDE_PROXY_WARM_UPSTREAMS")],
)
def test_a_wrong_value_of_a_flag_is_told_the_words_to_write(
    command: str,
    variable: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, "may.be")

    assert main.main([command]) == 2

    what, fix = capsys.readouterr().err.splitlines()
    assert what.endswith("'may.be' is not true or false")
    assert fix == "  fix:   write true or false (1 or 0, yes or no, on or off are taken, too)"


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    controller, terminal = os.openpty()
    with os.fdopen(controller), os.fdopen(terminal, "w") as stream:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert main.wants_colour(stream)

        monkeypatch.setenv("NO_COLOR", "1")
        assert not main.wants_colour(stream)

        monkeypatch.delenv("NO_COLOR")
        monkeypatch.setenv("TERM", "dumb")
        assert not main.wants_colour(stream)


def test_an_error_is_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    controller, terminal = os.openpty()

    with os.fdopen(controller, "rb"), os.fdopen(terminal, "w") as stream:
        subprocess.run(
            [sys.executable, "-m", "claude_proxy", "nonsense"], stderr=stream, check=False
        )
        shown = os.read(controller, 200)

    assert b"\x1b[31m" in shown


def test_closed_standard_streams_are_no_error() -> None:
    command = f"{sys.executable} -m claude_proxy check https://denied.test/ <&- >&- 2>&-"

    done = subprocess.run(["sh", "-c", command], check=False)

    assert done.returncode == 1
