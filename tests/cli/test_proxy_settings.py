"""Options become settings, and what contradicts itself stops the start."""

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from claude_proxy.cli import main
from claude_proxy.config.settings import (
    AuditFailure,
    ClientCredentials,
    Limits,
    LogFormat,
    Settings,
    TcpListen,
    UnixListen,
    Verbosity,
)
from claude_proxy.wire.authority import Authority

type Served = Callable[..., Settings]


def test_the_defaults_of_the_options_are_those_of_the_settings(served: Served) -> None:
    settings = served()

    assert settings == Settings(
        allowlist=settings.allowlist,
        confdir=settings.confdir,
        statedir=settings.statedir,
        awaited_allowlist=settings.confdir / "allowlist.yaml",
        runs=settings.runs,
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
        names_confdir=True,
        statedir=Path("s"),
        runs=settings.runs,
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


def test_quiet_prints_errors_only(served: Served) -> None:
    assert served("--quiet").verbosity is Verbosity.QUIET


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "[fd00::1]", "8.8.8.8"])
def test_listening_beyond_loopback_needs_an_option(
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


def test_a_named_listener_replaces_the_default(
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
def test_each_listener_beyond_loopback_needs_an_option(
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

    assert "would be listened on twice" in capsys.readouterr().err
    assert len(served("--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0").listen) == 2


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
    (["--listen", "/run/p.sock"], "write a Unix socket as unix:PATH"),
    (["--listen", "::1:9051"], "write IPv6 as [::1]:9051"),
    (["--socket-uid", "nobody-of-this-name"], "is not a user of this machine"),
    (["--socket-uid", "4294967295"], "is not a user of this machine"),
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
    (["--head-timeout", "0"], "immediately"),
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
def test_a_wrong_upstream_proxy_is_refused_and_its_password_not_quoted(
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


@pytest.mark.parametrize(
    ("environment", "options", "variable"),
    [
        ({"HTTPS_PROXY": "http://me:pw@proxy.corp.test:3128/"}, (), "HTTPS_PROXY"),
        ({"all_proxy": "socks5h://proxy.corp.test"}, (), "all_proxy"),
        ({"https_proxy": "http://127.0.0.1:3128"}, (), "https_proxy"),
        ({"HTTPS_PROXY": "http://127.0.0.1:9051"}, (), None),
        ({"HTTPS_PROXY": "http://localhost:9099"}, ("--port", "9099"), None),
        (
            {"HTTPS_PROXY": "http://proxy.corp.test:3128"},
            ("--upstream-proxy", "http://proxy.corp.test:3128"),
            None,
        ),
        ({}, (), None),
    ],
)
def test_a_proxy_that_the_shell_names_and_no_option_uses_is_known(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    options: tuple[str, ...],
    variable: str | None,
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert served(*options).unused_proxy_variable == variable
