"""The command line's frame: which command runs, what a failure looks like, what serve is told."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from ipaddress import ip_address, ip_network
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy import __version__
from claude_proxy.cli import main, serve
from claude_proxy.config import option_values
from claude_proxy.config.settings import (
    AuditFailure,
    ClientCredentials,
    InheritedListen,
    Limits,
    Listen,
    LogFormat,
    Settings,
    TcpListen,
    UnixListen,
    Verbosity,
)
from claude_proxy.errors import ClaudeProxyError, ConfigError, ConfigErrors
from claude_proxy.wire.authority import Authority

type Served = Callable[..., Settings]
type Failing = Callable[[BaseException], int]


@pytest.fixture
def served() -> Served:
    """Return a function that runs a command line and returns the settings that serve was given."""

    def run(*arguments: str) -> Settings:
        taken: list[Settings] = []

        def start(settings: Settings) -> int:
            taken.append(settings)
            return 0

        assert main.main(arguments, start=start) == 0
        return taken[0]

    return run


@pytest.fixture
def failing() -> Failing:
    """Return a function that runs a proxy which fails with the error it is given."""

    def run(error: BaseException) -> int:
        def start(_: Settings) -> int:
            raise error

        return main.main([], start=start)

    return run


def port_of(settings: Settings) -> int:
    """Return the port of the one listener that there is."""
    (listen,) = settings.listen
    assert isinstance(listen, TcpListen)
    return listen.port


# Which command runs


def test_no_arguments_serve(served: Served) -> None:
    settings = served()

    assert settings.listen == (TcpListen("127.0.0.1", 9051),)


def test_options_without_a_command_are_serves(served: Served) -> None:
    assert port_of(served("--port", "9052")) == 9052
    assert port_of(served("--port=9053")) == 9053
    assert port_of(served("serve", "--port", "9054")) == 9054


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
    command = import_module(f"claude_proxy.cli.{name}").command

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
        "[import_module('claude_proxy.cli.' + name) for name in main.COMMANDS]\n"
        "assert 'mitmproxy' not in sys.modules\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["completion", shell]) == 0

    assert "_CLAUDE_PROXY_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "offered"),
    [("claude-proxy pres", "presets"), ("claude-proxy --po", "--port")],
)
def test_a_shell_completes_commands_and_the_options_of_serve(
    words: str,
    offered: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("_CLAUDE_PROXY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", "1")

    assert main.main([]) == 0

    assert offered in capsys.readouterr().out


# What a failure looks like


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


def test_a_mistake_of_ours_shows_neither_traceback_nor_message(
    failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(ValueError("the password is hunter2")) == 70

    shown = capsys.readouterr().err
    assert "internal error (ValueError)" in shown
    assert "hunter2" not in shown
    assert "Traceback" not in shown


def test_the_traceback_is_there_for_who_asks(
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


def test_a_reader_that_goes_away_is_no_failure_to_talk_about() -> None:
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


def test_what_a_command_cannot_write_elsewhere_is_not_taken_for_its_output(
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


def test_closed_standard_streams_are_no_fault() -> None:
    command = f"{sys.executable} -m claude_proxy check https://denied.test/ <&- >&- 2>&-"

    done = subprocess.run(["sh", "-c", command], check=False)

    assert done.returncode == 1


# What serve is told


def test_the_defaults_of_the_options_are_those_of_the_settings(served: Served) -> None:
    settings = served()

    assert settings == Settings(
        allowlist=settings.allowlist,
        confdir=settings.confdir,
        statedir=settings.statedir,
        awaited_allowlist=settings.confdir / "allowlist.yaml",
    )


def test_every_option_reaches_the_settings(served: Served, tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.touch()
    password = tmp_path / "password"
    password.write_text("me:hunter2\n")
    password.chmod(0o600)

    settings = served(
        *("--host", "[::1]", "--port", "0", "--workers", "2", "--allowlist", "a.yaml"),
        *("--listen", "9052", "--listen", "unix:/run/p.sock", "--unlink-socket"),
        *("--socket-uid", "1000", "--socket-uid", "root", "--proxy-auth-file", str(password)),
        *("--confdir", "c", "--statedir", "s", "--verbose", "--log-format", "json"),
        *("--jsonl", "-", "--record-query", "--audit-failure", "allow", "--audit-days", "7"),
        *("--audit-size", "1G", "--allow-remote", "--client", "10.0.0.0/8", "--client", "::1"),
        *("--resolve", "a.test:443:127.0.0.1", "--resolve", "[2001:db8::1]:80:[::1]"),
        *("--upstream-ca", str(roots), "--upstream-proxy", "http://proxy.test:3128"),
        *("--no-upstream-proxy", "localhost,.corp.test", "--max-connections", "9"),
        *("--max-head", "8K", "--head-timeout", "1", "--handshake-timeout", "2s"),
        *("--idle-timeout", "3m", "--connect-timeout", "4h", "--grace", "0"),
    )

    proxy = settings.upstream_proxy
    assert proxy is not None
    assert str(proxy.authority) == "proxy.test:3128"
    assert proxy.exceptions == ("localhost", ".corp.test")
    assert settings == Settings(
        allowlist=Path("a.yaml"),
        confdir=Path("c"),
        statedir=Path("s"),
        listen=(
            TcpListen("::1", 0),
            TcpListen("127.0.0.1", 9052),
            UnixListen(Path("/run/p.sock"), unlink_after_first=True),
        ),
        uids=frozenset({0, 1000}),
        credentials=ClientCredentials("me", "hunter2"),
        workers=2,
        allow_remote=True,
        clients=(ip_network("10.0.0.0/8"), ip_network("::1/128")),
        resolve=(
            (Authority.of("a.test", 443), ip_address("127.0.0.1")),
            (Authority.of("2001:db8::1", 80), ip_address("::1")),
        ),
        upstream_ca=roots,
        upstream_proxy=proxy,
        verbosity=Verbosity.VERBOSE,
        log_format=LogFormat.JSON,
        jsonl=Path("-"),
        record_query=True,
        audit_failure=AuditFailure.ALLOW,
        audit_days=7,
        audit_bytes=1024**3,
        limits=Limits(9, 8192, 1.0, 2.0, 180.0, 14400.0, 0.0),
    )


WITHOUT_VARIABLE = {"cadir", "help"}


@pytest.mark.parametrize(
    "option", [param for param in serve.command.params if param.name not in WITHOUT_VARIABLE]
)
def test_every_option_is_an_environment_variable_too(option: click.Parameter) -> None:
    assert option.envvar == "CLAUDE_PROXY_" + str(option.name).upper()


def test_a_variable_that_env_and_run_would_not_hear_there_is_none() -> None:
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


def test_quiet_prints_errors_alone(served: Served) -> None:
    assert served("--quiet").verbosity is Verbosity.QUIET


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "[fd00::1]", "8.8.8.8"])
def test_listening_beyond_loopback_must_be_asked_for_by_name(
    host: str, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["--host", host]) == 2

    assert "--allow-remote" in capsys.readouterr().err
    assert served("--host", host, "--allow-remote").allow_remote


@pytest.mark.parametrize(
    ("host", "address"), [("localhost", "127.0.0.1"), ("127.9.9.9", "127.9.9.9"), ("::1", "::1")]
)
def test_loopback_needs_no_permission(host: str, address: str, served: Served) -> None:
    assert served("--host", host).listen == (TcpListen(address, 9051),)


# Where it listens


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("127.0.0.1:9051", TcpListen("127.0.0.1", 9051)),
        ("localhost:1", TcpListen("127.0.0.1", 1)),
        ("9051", TcpListen("127.0.0.1", 9051)),
        ("[::1]:0", TcpListen("::1", 0)),
        ("[0:0::1]:9051", TcpListen("::1", 9051)),
        ("unix:/run/a b.sock", UnixListen(Path("/run/a b.sock"))),
        ("unix:///run/p.sock", UnixListen(Path("/run/p.sock"))),
        ("UNIX:p:1", UnixListen(Path("p:1"))),
        ("unix:~/p.sock", UnixListen(Path("~/p.sock"))),
    ],
)
def test_a_listener_is_an_address_or_a_path(text: str, listen: object) -> None:
    assert option_values.parse_listen(text) == listen


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":9051", "::1:9051", "[::1]", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536"),
        *("127.0.0.1:x", "127.0.0.1:+1", "127.0.0.1:\u0661", "host.test:9051", "http://a:1"),
        *("/run/p.sock", "unix:", "unix:/", "unix:/run/", "unix://host/p.sock", "unix:/a\0b"),
        *("tcp:127.0.0.1:9051", "-1", "123456"),
    ],
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        option_values.parse_listen(text)


@given(st.text())
def test_a_listener_is_understood_or_refused(text: str) -> None:
    with suppress(ValueError):
        option_values.parse_listen(text)


def test_a_named_listener_takes_the_place_of_the_default(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")

    assert served("--listen", "9052").listen == (TcpListen("127.0.0.1", 9052),)
    assert served("--listen", "unix:p.sock").listen == (UnixListen(tmp_path / "p.sock"),)
    assert served("--listen", "unix:~/p.sock").listen == (
        UnixListen(Path("/home/somebody/p.sock")),
    )


def test_a_port_beside_listen_is_listened_on_too(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = (TcpListen("127.0.0.1", 9060), TcpListen("127.0.0.1", 9052))
    assert served("--listen", "9052", "--port", "9060").listen == both

    monkeypatch.setenv("CLAUDE_PROXY_LISTEN", "9052 unix:/run/p.sock")
    monkeypatch.setenv("CLAUDE_PROXY_HOST", "::1")
    assert served().listen == (
        TcpListen("::1", 9051),
        TcpListen("127.0.0.1", 9052),
        UnixListen(Path("/run/p.sock")),
    )


@pytest.mark.parametrize("where", ["0.0.0.0:9051", "[::]:9051", "192.168.1.5:1"])
def test_each_listener_beyond_loopback_must_be_asked_for_by_name(
    where: str, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["--listen", "9051", "--listen", where]) == 2

    shown = capsys.readouterr().err
    assert "--allow-remote" in shown
    assert "--listen or CLAUDE_PROXY_LISTEN" in shown
    assert len(served("--listen", where, "--allow-remote").listen) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen", "9051", "--listen", "127.0.0.1:9051"],
        ["--listen", "9051", "--port", "9051"],
        ["--listen", "unix:/tmp/a.sock", "--listen", "unix:/tmp/x/../a.sock"],
    ],
)
def test_what_is_listened_on_twice_is_refused(
    arguments: list[str], served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(arguments) == 2

    assert "is to be listened on twice" in capsys.readouterr().err
    assert len(served("--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0").listen) == 2


# The service manager


def test_sockets_that_were_handed_over_take_the_place_of_the_default(
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


def test_who_manages_the_service_is_told_nobody_else(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "@manager")

    assert served().notify == "@manager"
    assert "NOTIFY_SOCKET" not in os.environ


# The password of clients


def test_the_password_of_clients_may_be_a_variable(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLAUDE_PROXY_AUTH", "me:hunter2:3")

    settings = served()

    assert settings.credentials == ClientCredentials("me", "hunter2:3")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("text", ["hunter2", ":hunter2", "hunter2:", "me:hunter2\x1b", "me: \n"])
def test_a_wrong_password_of_clients_is_not_quoted(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLAUDE_PROXY_AUTH", text)

    assert main.main([]) == 2

    shown = capsys.readouterr().err
    assert "where: CLAUDE_PROXY_AUTH" in shown
    assert "hunter2" not in shown


def test_the_password_of_clients_is_given_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLAUDE_PROXY_AUTH", "me:hunter2")

    assert main.main(["--proxy-auth-file", str(tmp_path / "password")]) == 2

    assert "given twice" in capsys.readouterr().err


CLASHES = [
    (["--listen", "everywhere"], "does not end in a port"),
    (["--listen", "/run/p.sock"], "a Unix socket is spelled unix:PATH"),
    (["--listen", "::1:9051"], "IPv6 is spelled [::1]:9051"),
    (["--socket-uid", "nobody-of-this-name"], "is no user of this machine"),
    (["--socket-uid", "4294967295"], "is no user of this machine"),
    (["--unlink-socket"], "no Unix socket whose file could be removed"),
    (["--unlink-socket", "--listen", "9051"], "no Unix socket whose file could be removed"),
    (["--host", "my.lan"], "is not an IP address"),
    (["--client", "10.0.0.1/8"], "the network is 10.0.0.0/8"),
    (["--client", "everyone"], "is not a network"),
    (["--resolve", "a.test"], "is not HOST:PORT:ADDRESS"),
    (["--resolve", "a.test:443:b.test"], "is not an IP address"),
    (["--resolve", "a..test:443:127.0.0.1"], "names no host and port"),
    (["--resolve", "a.test:0:127.0.0.1"], "names no host and port"),
    (["--quiet", "--verbose"], "exclude each other"),
    (["--no-upstream-proxy", "localhost"], "no upstream proxy"),
    (["--no-upstream-proxy", "a b/c"], 'is not a host, a .domain, a network or "*"'),
    (["--max-head", "0"], "no room"),
    (["--max-head", "64X"], "is not a size"),
    (["--audit-size", "-1"], "is not a size"),
    (["--head-timeout", "0"], "at once"),
    (["--head-timeout", "nan"], "is not a duration"),
    (["--idle-timeout", "inf"], "is not a duration"),
    (["--grace", "-1"], "is not a duration"),
]


@pytest.mark.parametrize(("arguments", "what"), CLASHES)
def test_what_cannot_be_understood_stops_the_start(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(arguments) == 2

    shown = capsys.readouterr().err
    assert what in shown
    assert f"  where: {arguments[0]}" in shown
    assert "  fix:   " in shown


# The upstream proxy and its password


BAD_PROXIES = [
    "https://user:hunter2@corp.test:3128",
    "user:hunter2@corp.test:3128",
    "http://user:hunter2@corp.test",
    "http://user:hunter2@:3128",
    "http://user:hunter2@corp.test:99999",
    "http://user:hunter2@corp.test:3128/path",
    "http://user:hunter2@corp..test:3128",
    "http://hunter2@corp.test:3128",
    "http://a%3Ab:hunter2@corp.test:3128",
    "http://user:hunter2%0d%0a@corp.test:3128",
    "http://user:hunter2@[::1:3128",
]


@pytest.mark.parametrize("url", BAD_PROXIES)
def test_a_wrong_upstream_proxy_is_refused_without_a_word_of_its_password(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLAUDE_PROXY_UPSTREAM_PROXY", url)

    assert main.main([]) == 2

    shown = capsys.readouterr().err
    assert "CLAUDE_PROXY_UPSTREAM_PROXY" in shown
    assert "hunter2" not in shown


def test_the_password_of_an_upstream_proxy_is_decoded_and_not_shown(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLAUDE_PROXY_UPSTREAM_PROXY", "http://me:hunter%402@corp.test:3128/")

    settings = served()

    assert settings.upstream_proxy is not None
    assert settings.upstream_proxy.credentials == "me:hunter@2"
    assert "hunter" not in repr(settings)
    assert capsys.readouterr().err == ""


def test_a_password_among_the_arguments_is_warned_of(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    served("--upstream-proxy", "http://me:hunter2@corp.test:3128")

    shown = capsys.readouterr().err
    assert "warning" in shown
    assert "CLAUDE_PROXY_UPSTREAM_PROXY" in shown
    assert "hunter2" not in shown


# The readers


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("64k", 65536), ("1MiB", 1048576), ("2 GB".replace(" ", ""), 2**31)],
)
def test_sizes_are_powers_of_two(text: str, size: int) -> None:
    assert option_values.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("1.5", 1.5), ("500ms", 0.5), ("15m", 900), ("1h", 3600)]
)
def test_durations_are_seconds_unless_they_say_otherwise(text: str, seconds: float) -> None:
    assert option_values.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", ()),
        ("*", ("*",)),
        ("localhost, 10.0.0.0/8 ::1", ("localhost", "10.0.0.0/8", "::1/128")),
        ("*.Corp.Test.,.b.test", (".corp.test", ".b.test")),
    ],
)
def test_exceptions_are_spelled_as_in_no_proxy(text: str, entries: tuple[str, ...]) -> None:
    assert option_values.parse_exceptions(text) == entries


READERS = [
    option_values.parse_listen_host,
    option_values.parse_network,
    option_values.parse_resolve,
    option_values.parse_size,
    option_values.parse_duration,
    option_values.parse_timeout,
    option_values.parse_upstream_proxy,
    option_values.parse_exceptions,
]


@pytest.mark.parametrize("read", READERS)
@given(st.text() | st.from_regex(r"(http://)?[a-z0-9:@\[\]%./]*"))
def test_a_reader_returns_a_value_or_raises_value_error(
    read: Callable[[str], object], text: str
) -> None:
    with suppress(ValueError):
        read(text)
