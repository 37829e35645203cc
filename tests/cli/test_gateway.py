"""The command `gateway`: what it is told, which word wins, and what keeps it from starting."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from claude_proxy.cli import gateway, main, serve
from claude_proxy.cli.options import TableOption
from claude_proxy.config.settings import (
    Base,
    Ceilings,
    Gateway,
    GatewayMode,
    InheritedListen,
    Settings,
    TcpListen,
    UnixListen,
)
from claude_proxy.policy.credentials.binding import Form
from claude_proxy.policy.credentials.sources import (
    CommandSource,
    DotenvSource,
    EnvironmentSource,
    FileSource,
    KeyringSource,
    SecretSource,
    SystemdSource,
)
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.gateway import banner
from claude_proxy.wire.authority import Authority

KEY = "sk-ant-api03-CANARY"
UPSTREAM = "https://api.anthropic.com"
HERE = TcpListen("127.0.0.1", 9000)

type Started = Callable[..., Settings]
type Refused = Callable[..., str]
type Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty directory of the owner's alone, without a variable of the seed's."""
    tmp_path.chmod(0o700)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in list(os.environ):
        if name.startswith(("PROXY_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    return work


@pytest.fixture
def started() -> Started:
    """Return a function that runs a command line and returns the settings it would start with."""

    def run(*arguments: str, command: str = "gateway") -> Settings:
        taken: list[Settings] = []

        def start(settings: Settings) -> int:
            taken.append(settings)
            return 0

        assert main.main([command, *arguments], start=start) == 0
        return taken[0]

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return a function that runs a command line which must not start, and returns what is said."""

    def start(_: Settings) -> int:
        raise AssertionError("it has started")

    def run(*arguments: str, command: str = "gateway") -> str:
        capsys.readouterr()
        assert main.main([command, *arguments], start=start) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "CANARY" not in shown.err
        assert "Traceback" not in shown.err
        return shown.err

    return run


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.fixture
def enough(environment: Callable[..., None]) -> None:
    """Set the two variables without which nothing starts."""
    environment(PROXY_UPSTREAM_BASE=UPSTREAM, PROXY_API_KEY=KEY)


@pytest.fixture
def dotenv(place: Path) -> Write:
    def write(*lines: str, mode: int = 0o600) -> Path:
        path = place / ".env"
        path.write_text("".join(f"{line}\n" for line in lines))
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def providers(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "home" / ".config" / "claude-proxy" / "gateway.yaml"
        path.parent.mkdir(parents=True, mode=0o700)
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def made(settings: Settings) -> Gateway:
    assert settings.gateway is not None
    return settings.gateway


def source_of(settings: Settings) -> SecretSource:
    return made(settings).credential.source


# A1 to A5: what must be there, and what is when nothing else is said


@pytest.mark.parametrize("base", [None, ""])
def test_a1_without_an_upstream_nothing_starts_and_the_variable_is_named(
    base: str | None, environment: Callable[..., None], refused: Refused
) -> None:
    environment(PROXY_API_KEY=KEY)
    if base is not None:
        environment(PROXY_UPSTREAM_BASE=base)

    assert "PROXY_UPSTREAM_BASE" in refused()


@pytest.mark.parametrize("key", [None, ""])
def test_a2_without_a_key_nothing_starts_and_the_variable_is_named(
    key: str | None, environment: Callable[..., None], refused: Refused
) -> None:
    environment(PROXY_UPSTREAM_BASE=UPSTREAM)
    if key is not None:
        environment(PROXY_API_KEY=key)

    assert "where: PROXY_API_KEY" in refused()


def test_whoever_starts_it_first_is_told_of_both_at_once(refused: Refused) -> None:
    shown = refused()

    assert shown.count("error:") == 2
    assert "PROXY_UPSTREAM_BASE" in shown
    assert "PROXY_API_KEY" in shown


@pytest.mark.parametrize("key", ["dummy", "placeholder", "changeme", "DUMMY", "ChangeMe"])
def test_a3_a_placeholder_is_no_key(
    key: str, environment: Callable[..., None], refused: Refused, dotenv: Write
) -> None:
    environment(PROXY_UPSTREAM_BASE=UPSTREAM, PROXY_API_KEY=key)
    assert "the key is a placeholder\n  where: PROXY_API_KEY\n" in refused()

    environment(PROXY_API_KEY="")
    dotenv(f"PROXY_API_KEY={key}")
    assert "the key is a placeholder\n  where: PROXY_API_KEY in " in refused()


@pytest.mark.parametrize(
    "base",
    [
        *("api.anthropic.com", "ftp://api.anthropic.com", "//api.anthropic.com", "https://"),
        *("https://CANARY@a.example", "https://a.example?CANARY", "https://a.example/#CANARY"),
        *("https://a.example:0", "https://a.example:x", "https://a..example", "https://[::1"),
        *("https://a.example/a b", "https://a.example/../b", "https://a.example//b", "https://é.x"),
        *(
            "http://a.example",
            "http://10.0.0.1",
            "http://localhost.a.example",
            "https://a\n.example",
        ),
        "https://a.example/v1/messages",
    ],
)
def test_a4_what_is_no_upstream_is_refused(
    base: str, environment: Callable[..., None], refused: Refused
) -> None:
    environment(PROXY_UPSTREAM_BASE=base, PROXY_API_KEY=KEY)

    assert "where: PROXY_UPSTREAM_BASE" in refused()


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://a.example", Base(Scheme.HTTPS, Authority.of("a.example", 443))),
        ("https://a.example///", Base(Scheme.HTTPS, Authority.of("a.example", 443))),
        ("HTTPS://A.example/x/y/", Base(Scheme.HTTPS, Authority.of("a.example", 443), "/x/y")),
        ("http://localhost:8080/", Base(Scheme.HTTP, Authority.of("localhost", 8080))),
        ("http://127.9.9.9", Base(Scheme.HTTP, Authority.of("127.9.9.9", 80))),
        ("http://[::1]:1", Base(Scheme.HTTP, Authority.of("::1", 1))),
    ],
)
@pytest.mark.usefixtures("enough")
def test_a4_slashes_at_its_end_are_taken_away(text: str, base: Base, started: Started) -> None:
    settings = started("--upstream", text)

    assert made(settings).upstream == base
    assert made(settings).credential.plain is (base.scheme is Scheme.HTTP)


@pytest.mark.usefixtures("enough")
def test_a5_what_holds_where_nothing_else_is_said(started: Started) -> None:
    settings = started("--mode", "strict")

    assert settings.listen == ()
    assert made(settings).listen == (HERE,)
    assert made(settings).timeout_s == 30
    assert made(settings).models == ()
    assert made(started()).timeout_s == 600


# A6, the bounds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("PROXY_TIMEOUT", text) for text in ("0", "-1", "301", "1.5", "30s", "x", "٣", "1e2")),
        *(("PROXY_PORT", text) for text in ("0", "-1", "65536", "9e3", "http", "+1", "9" * 99)),
        ("PROXY_HOST", "my.lan"),
        ("PROXY_DEFAULT_MODEL", "a b"),
    ],
)
@pytest.mark.usefixtures("enough")
def test_a6_what_is_out_of_bounds_is_refused_and_named(
    name: str, value: str, environment: Callable[..., None], refused: Refused
) -> None:
    environment(**{name: value})

    assert f"where: {name}\n" in refused("--mode", "strict")


@pytest.mark.parametrize(("mode", "most"), [("strict", 300), ("claude", 600)])
@pytest.mark.usefixtures("enough")
def test_a6_each_mode_has_its_bound(
    mode: str,
    most: int,
    environment: Callable[..., None],
    started: Started,
    refused: Refused,
) -> None:
    environment(PROXY_TIMEOUT=str(most))
    assert made(started("--mode", mode)).timeout_s == most

    environment(PROXY_TIMEOUT=str(most + 1))
    assert f"choose 1 to {most} seconds" in refused("--mode", mode)
    assert "where: --timeout" in refused("--mode", mode, "--timeout", "11m")


# A7 and A8: .env, the environment, options


def test_a7_dotenv_is_read_and_the_environment_wins(
    environment: Callable[..., None], dotenv: Write, started: Started
) -> None:
    path = dotenv(
        "# ours",
        f"export PROXY_UPSTREAM_BASE='{UPSTREAM}/é'".replace("/é", ""),
        f'PROXY_API_KEY="{KEY}"',
        "PROXY_PORT=9001",
        "PROXY_HOST=::1",
        "PROXY_TIMEOUT=7",
        "PROXY_DEFAULT_MODEL=one",
        "UNKNOWN=é $(whatever)",
        "CLAUDE_PROXY_ALLOW_REMOTE=1",
    )
    gateway = made(started())
    assert gateway.listen == (TcpListen("::1", 9001),)
    assert gateway.credential.source == DotenvSource(path, "PROXY_API_KEY")
    assert (gateway.timeout_s, gateway.models) == (7, (("*", "one"),))

    environment(PROXY_PORT="9002", PROXY_TIMEOUT="8", PROXY_DEFAULT_MODEL="two", PROXY_API_KEY=KEY)
    environment(PROXY_UPSTREAM_BASE="https://other.example")
    gateway = made(started())
    assert gateway.listen == (TcpListen("::1", 9002),)
    assert gateway.credential.source == EnvironmentSource("PROXY_API_KEY")
    assert (gateway.timeout_s, gateway.models) == (8, (("*", "two"),))
    assert gateway.upstream.authority.host == "other.example"


@pytest.mark.usefixtures("enough")
def test_a8_the_variables_are_listened_by_and_an_option_wins(
    environment: Callable[..., None], started: Started
) -> None:
    environment(PROXY_HOST="127.0.0.2", PROXY_PORT="9003")
    assert made(started()).listen == (TcpListen("127.0.0.2", 9003),)

    environment(CLAUDE_PROXY_GATEWAY_PORT="9004")
    assert made(started()).listen == (TcpListen("127.0.0.2", 9004),)
    assert made(started("--port", "9005")).listen == (TcpListen("127.0.0.2", 9005),)
    assert made(started("--host", "::1", "--port", "9005")).listen == (TcpListen("::1", 9005),)


# A9 to A11


@pytest.mark.parametrize(
    "key", ["CANARY key", "CANARY\n", "CANARYé", "\tCANARY", "CANARY" * 2000, "sk-ant\x7fCANARY"]
)
def test_a9_an_invalid_key_is_refused_and_not_shown(
    key: str, environment: Callable[..., None], refused: Refused
) -> None:
    environment(PROXY_UPSTREAM_BASE=UPSTREAM, PROXY_API_KEY=key, CLAUDE_PROXY_DEBUG="1")

    assert "where: PROXY_API_KEY" in refused()


@pytest.mark.parametrize(
    "line",
    ["PROXY_API_KEY=CANARY key", "PROXY_API_KEY='CANARY", 'PROXY_API_KEY="CANARY"x', "CANARY"],
)
def test_a9_a_dotenv_that_cannot_be_read_is_refused_and_not_shown(
    line: str, dotenv: Write, refused: Refused
) -> None:
    path = dotenv(f"PROXY_UPSTREAM_BASE={UPSTREAM}", line)

    assert str(path) in refused()


def test_a9_no_setting_shows_a_key(
    dotenv: Write, environment: Callable[..., None], started: Started
) -> None:
    dotenv(f"PROXY_UPSTREAM_BASE={UPSTREAM}", f"PROXY_API_KEY={KEY}")
    assert "CANARY" not in repr(started())

    environment(PROXY_API_KEY=KEY)
    assert "CANARY" not in repr(started())


@pytest.mark.usefixtures("enough")
def test_a10_an_empty_model_is_none(environment: Callable[..., None], started: Started) -> None:
    environment(PROXY_DEFAULT_MODEL="")

    assert made(started()).models == ()


@pytest.mark.usefixtures("enough")
def test_a11_a_start_says_all_but_the_key(started: Started) -> None:
    token = "CANARY-TOKEN-0123456789"
    plain = made(started("--mode", "strict"))
    said = "\n".join(banner.lines_of(plain, ["http://127.0.0.1:9000"], Policy()))
    for part in ("http://127.0.0.1:9000", UPSTREAM, "passthrough", "30 s", "PROXY_API_KEY"):
        assert part in said
    assert "CANARY" not in said

    given = made(
        started("--model", "a=b", "--model", "c", "--max-tokens-per-day", "5", "--timeout", "90s")
    )
    object.__setattr__(given, "token", token)
    urls = ["http://127.0.0.1:9000", "unix:/run/g"]
    said = "\n".join(banner.lines_of(given, urls, Policy()))
    for part in (
        "unix:/run/g",
        "a -> b, any other -> c",
        "90 s",
        "5 tokens a day",
        "present the token",
    ):
        assert part in said
    assert "CANARY" not in said


# A35: a Unix socket and no port


@pytest.mark.usefixtures("enough")
def test_a35_a_unix_socket_opens_no_port(
    environment: Callable[..., None], started: Started, place: Path
) -> None:
    environment(PROXY_HOST="127.0.0.1", PROXY_PORT="9000")

    settings = started("--uds", "g.sock", "--socket-uid", "1000")

    assert settings.listen == ()
    assert made(settings).listen == (UnixListen(place / "g.sock"),)
    assert settings.uids == {1000}


@pytest.mark.usefixtures("enough")
def test_a_socket_and_a_port_from_one_place_are_a_clash_and_else_the_nearer_one_wins(
    environment: Callable[..., None], started: Started, refused: Refused
) -> None:
    assert "--uds, --host, --port" in refused("--uds", "g.sock", "--port", "9001")
    assert "--uds, --host, --port" in refused("--uds", "g.sock", "--port", "0")

    environment(CLAUDE_PROXY_GATEWAY_UDS="/run/g.sock")
    assert made(started()).listen == (UnixListen(Path("/run/g.sock")),)
    assert made(started("--port", "9001")).listen == (TcpListen("127.0.0.1", 9001),)

    environment(CLAUDE_PROXY_GATEWAY_PORT="9002")
    assert "--uds, --host, --port" in refused()
    assert made(started("--uds", "/run/h.sock")).listen == (UnixListen(Path("/run/h.sock")),)


# A39 and A40: the files that hold the key


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o644, True)])
def test_a39_a_dotenv_with_the_key_that_others_can_read_is_warned_of(
    mode: int,
    *,
    warned: bool,
    dotenv: Write,
    started: Started,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = dotenv(f"PROXY_UPSTREAM_BASE={UPSTREAM}", f"PROXY_API_KEY={KEY}", mode=mode)

    started("--quiet")

    shown = capsys.readouterr().err
    assert ("OTHER USERS CAN READ THE KEY" in shown) is warned
    assert (f"chmod 600 {path}" in shown) is warned


@pytest.mark.usefixtures("enough")
def test_a39_a_dotenv_without_the_key_may_be_read(
    dotenv: Write, started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    dotenv("PROXY_PORT=9001", mode=0o644)

    started()

    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("enough")
def test_a_dotenv_that_others_can_write_is_refused(dotenv: Write, refused: Refused) -> None:
    dotenv("PROXY_PORT=9001", mode=0o666)

    assert "can be changed by other users, who could change where the key goes" in refused()


def test_a_dotenv_that_says_where_a_key_from_elsewhere_goes_is_warned_of(
    environment: Callable[..., None],
    dotenv: Write,
    started: Started,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment(PROXY_API_KEY=KEY)
    path = dotenv("PROXY_UPSTREAM_BASE=https://evil.example")

    started()

    assert f"{path} says which upstream gets the key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "source"),
    [
        ("--key-file", "/run/key", FileSource(Path("/run/key"))),
        ("--key-env", "OUR_KEY", EnvironmentSource("OUR_KEY")),
        ("--key-command", "pass show 'my key'", CommandSource(("pass", "show", "my key"))),
        ("--key-keyring", "https://llm:me", KeyringSource("https://llm", "me")),
        ("--key-systemd", "llm", SystemdSource("llm")),
    ],
)
@pytest.mark.usefixtures("enough")
def test_a40_the_key_comes_from_where_an_option_says(
    option: str,
    value: str,
    source: SecretSource,
    environment: Callable[..., None],
    started: Started,
) -> None:
    environment(OUR_KEY=KEY)

    assert source_of(started(option, value)) == source


def test_no_option_takes_the_key_itself() -> None:
    names = [name for param in gateway.command.params for name in param.opts if "key" in name]

    assert set(names) == {
        *("--key-file", "--key-env", "--key-command", "--key-keyring", "--key-systemd")
    }


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["--key-env", "NOT_SET"], "NOT_SET"),
        (["--key-command", "pass 'show"], "--key-command"),
        (["--key-command", " "], "--key-command"),
        (["--key-keyring", "llm"], "--key-keyring"),
        (["--key-file", "a", "--key-systemd", "b"], "--key-file, --key-systemd"),
        (["--upstream", UPSTREAM, "--provider", "anthropic"], "--upstream, --provider"),
        (["--model", "a=b", "--model", "a=c"], "--model"),
        (["--model", "b", "--model", "c"], "--model"),
        (["--model", "b c"], "--model"),
        (["--max-body", "1023"], "--max-body"),
        (["--timeout", "0.5s"], "--timeout"),
        (["--new-token", "--port", "0"], "--new-token"),
        (["--new-token", "--uds", "g.sock"], "--new-token"),
        (["--new-token", "--token-file", "t"], "--token-file, --new-token"),
        (["--token-file", "gone"], "gone"),
        (["--quiet", "--verbose"], "--quiet, --verbose"),
    ],
)
@pytest.mark.usefixtures("enough")
def test_what_cannot_be_had_is_refused(arguments: list[str], where: str, refused: Refused) -> None:
    shown = refused(*arguments)

    assert f"  where: {where}" in shown
    assert "  fix:   " in shown


@pytest.mark.usefixtures("enough")
def test_what_is_typed_wins_over_its_rival_in_the_environment(
    environment: Callable[..., None], started: Started
) -> None:
    environment(CLAUDE_PROXY_GATEWAY_PROVIDER="anthropic", CLAUDE_PROXY_GATEWAY_KEY_SYSTEMD="llm")

    gateway = made(started("--upstream", "https://a.example", "--key-file", "/run/key"))

    assert gateway.upstream.authority.host == "a.example"
    assert gateway.credential.source == FileSource(Path("/run/key"))


# A42: two starts on one place, is in test_sockets.py

# A44, the providers


CORP = """\
providers:
  corp:
    endpoint: https://llm.corp.example/api
    from: {env: CORP_KEY}
    form: bearer
    models: corp-large
"""


def test_a44_a_provider_brings_its_key_its_form_and_its_model(
    environment: Callable[..., None], providers: Write, started: Started
) -> None:
    providers(CORP)
    environment(CORP_KEY=KEY, PROXY_API_KEY="sk-of-somebody-else", PROXY_PROVIDER="corp")

    gateway = made(started())

    assert str(gateway.upstream) == "https://llm.corp.example/api"
    assert gateway.credential.source == EnvironmentSource("CORP_KEY")
    assert gateway.credential.form is Form.BEARER
    assert gateway.models == (("*", "corp-large"),)
    assert made(started("--model", "mine", "--form", "x-api-key")).models == (("*", "mine"),)


@pytest.mark.parametrize("key", [None, "", "changeme"])
def test_a44_a_provider_without_its_key_is_refused(
    key: str | None, environment: Callable[..., None], providers: Write, refused: Refused
) -> None:
    providers(CORP)
    environment(PROXY_API_KEY="sk-CANARY-of-somebody-else")
    if key is not None:
        environment(CORP_KEY=key)

    assert "where: CORP_KEY" in refused("--provider", "corp")


def test_a44_a_provider_that_is_not_there_is_refused(
    environment: Callable[..., None], refused: Refused
) -> None:
    environment(PROXY_PROVIDER="nobody", PROXY_API_KEY=KEY)

    shown = refused()

    assert "where: PROXY_PROVIDER" in shown
    assert "anthropic" in shown


def test_a44_a_provider_without_tls_is_refused(providers: Write, refused: Refused) -> None:
    providers(CORP.replace("https:", "http:"))

    assert "gateway.yaml:3:" in refused("--provider", "corp")


def test_the_built_in_provider_takes_the_usual_key(
    environment: Callable[..., None], started: Started
) -> None:
    environment(ANTHROPIC_API_KEY=KEY)
    assert source_of(started("--provider", "anthropic")) == EnvironmentSource("ANTHROPIC_API_KEY")

    environment(PROXY_API_KEY=KEY)
    assert source_of(started("--provider", "anthropic")) == EnvironmentSource("PROXY_API_KEY")


def test_the_usual_key_goes_to_nobody_else(
    environment: Callable[..., None], refused: Refused
) -> None:
    environment(ANTHROPIC_API_KEY=KEY)

    assert "where: PROXY_API_KEY" in refused("--upstream", "https://a.example")


@pytest.mark.parametrize("told", ["environment", "dotenv"])
def test_an_upstream_and_a_provider_in_one_place_are_a_clash(
    told: str, environment: Callable[..., None], dotenv: Write, refused: Refused
) -> None:
    if told == "environment":
        environment(PROXY_UPSTREAM_BASE=UPSTREAM, PROXY_PROVIDER="anthropic", PROXY_API_KEY=KEY)
    else:
        dotenv(f"PROXY_UPSTREAM_BASE={UPSTREAM}", "PROXY_PROVIDER=anthropic")

    assert "both an upstream and a provider" in refused()


def test_the_environments_provider_wins_over_an_upstream_in_dotenv(
    environment: Callable[..., None], dotenv: Write, started: Started
) -> None:
    dotenv("PROXY_UPSTREAM_BASE=https://evil.example")
    environment(PROXY_PROVIDER="anthropic", PROXY_API_KEY=KEY)

    assert made(started()).upstream.authority.host == "api.anthropic.com"


def test_gateway_yaml_says_the_rest_and_an_option_wins(
    environment: Callable[..., None], providers: Write, started: Started
) -> None:
    providers(
        "provider: corp\nmode: strict\ntimeout: 2m\nmax_body: 8M\n"
        f"max_requests_per_minute: 60\nmax_tokens_per_day: 1000\n{CORP}"
    )
    environment(CORP_KEY=KEY)

    gateway = made(started())
    assert (gateway.mode, gateway.timeout_s) == (GatewayMode.STRICT, 120)
    assert gateway.request_bytes == 8 * 1024**2
    assert gateway.ceilings == Ceilings(60, 1000)

    gateway = made(
        started(
            *("--mode", "claude", "--timeout", "10m", "--max-body", "1K"),
            *("--max-requests-per-minute", "1", "--max-tokens-per-day", "2", "--keep-retry-after"),
        )
    )
    assert (gateway.mode, gateway.timeout_s) == (GatewayMode.CLAUDE, 600)
    assert gateway.request_bytes == 1024
    assert gateway.ceilings == Ceilings(1, 2)
    assert gateway.keeps_retry_after


@pytest.mark.parametrize("mode", [0o602, 0o606])
@pytest.mark.usefixtures("enough")
def test_a_gateway_yaml_that_others_can_write_is_refused(
    mode: int, providers: Write, refused: Refused
) -> None:
    providers(CORP).chmod(mode)

    assert "where the key goes" in refused()


@pytest.mark.usefixtures("enough")
def test_a_gateway_yaml_that_cannot_be_read_is_refused(providers: Write, refused: Refused) -> None:
    path = providers(CORP)
    path.unlink()
    path.symlink_to("gone")

    assert "gateway.yaml" in refused()


# A45


@pytest.mark.usefixtures("enough")
def test_a45_the_body_of_a_request_may_be_what_the_api_takes(started: Started) -> None:
    assert made(started()).request_bytes == 32 * 1024**2


# A46


@pytest.mark.usefixtures("enough")
def test_a46_each_way_of_logging_of_the_seed_has_its_option(started: Started) -> None:
    assert started("--quiet").verbosity == "quiet"  # off
    assert started().verbosity == "normal"  # metadata
    assert started("--verbose").verbosity == "verbose"  # debug


# Who may come


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("CANARY-token-0123456789\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5"])
@pytest.mark.usefixtures("enough")
def test_other_machines_come_in_by_permission_and_token_alone(
    host: str, started: Started, refused: Refused, token_file: Path
) -> None:
    assert "--allow-remote" in refused("--host", host)
    assert "--allow-remote" in refused("--host", host, "--token-file", str(token_file))
    assert "--token-file" in refused("--host", host, "--allow-remote")

    settings = started("--host", host, "--allow-remote", "--token-file", str(token_file))

    assert made(settings).token == "CANARY-token-0123456789"
    assert "CANARY" not in repr(settings)


@pytest.mark.usefixtures("enough")
def test_other_machines_are_not_let_in_by_the_seeds_variable_or_dotenv(
    environment: Callable[..., None], dotenv: Write, refused: Refused
) -> None:
    dotenv("PROXY_HOST=0.0.0.0", "CLAUDE_PROXY_ALLOW_REMOTE=1")
    assert "--allow-remote" in refused()

    environment(PROXY_HOST="::")
    assert "--allow-remote" in refused()


@pytest.mark.parametrize(
    "text", ["short", "CANARY with blanks 012345", "two\nlines\n", "CANARYé" * 9]
)
@pytest.mark.usefixtures("enough")
def test_a_token_that_cannot_be_one_is_refused_and_not_shown(
    text: str, refused: Refused, token_file: Path
) -> None:
    token_file.write_text(text)

    assert str(token_file) in refused("--token-file", str(token_file))


@pytest.mark.usefixtures("enough")
def test_a_token_that_others_can_read_is_refused(refused: Refused, token_file: Path) -> None:
    token_file.chmod(stat.S_IRUSR | stat.S_IROTH)

    assert "not its owner's alone" in refused("--token-file", str(token_file))


@pytest.mark.usefixtures("enough")
def test_a_new_token_is_printed_with_what_leads_a_client_here(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = set()
    for _ in range(2):
        token = made(started("--new-token", "--port", "9001")).token
        assert token is not None
        tokens.add(token)
        assert capsys.readouterr().out == (
            "export ANTHROPIC_BASE_URL=http://127.0.0.1:9001\n"
            f"export ANTHROPIC_AUTH_TOKEN={token}\n"
        )

    assert len(tokens) == 2
    assert all(len(token) >= 40 for token in tokens)


# What a service manager hands over


def handed(environment: Callable[..., None], names: str, count: int) -> None:
    environment(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count), LISTEN_FDNAMES=names)


@pytest.mark.usefixtures("enough")
def test_handed_sockets_take_the_place_of_the_default_and_of_the_seeds_variables(
    environment: Callable[..., None], started: Started
) -> None:
    environment(PROXY_PORT="9000")

    handed(environment, "any:any", 2)
    assert made(started()).listen == (InheritedListen(3, ""), InheritedListen(4, ""))

    handed(environment, "gateway", 1)
    settings = started("--port", "9001")
    assert settings.listen == ()
    assert made(settings).listen == (InheritedListen(3, "gateway"), TcpListen("127.0.0.1", 9001))


@pytest.mark.usefixtures("enough")
def test_serve_tells_its_own_handed_sockets_from_the_gateways(
    environment: Callable[..., None], started: Started
) -> None:
    handed(environment, "gateway:proxy:gateway", 3)
    settings = started(command="serve")
    assert settings.listen == (InheritedListen(4, "proxy"),)
    assert made(settings).listen == (InheritedListen(3, ""), InheritedListen(5, ""))

    handed(environment, "gateway", 1)
    settings = started("--gateway", "9053", command="serve")
    assert settings.listen == (TcpListen("127.0.0.1", 9051),)
    assert made(settings).listen == (
        InheritedListen(3, "gateway"),
        TcpListen("127.0.0.1", 9053),
    )


# serve --gateway


def test_serve_has_a_gateway_beside_it(
    environment: Callable[..., None], started: Started, place: Path, token_file: Path
) -> None:
    environment(OUR_KEY=KEY)

    settings = started(
        *("--gateway", "127.0.0.1:9053", "--gateway", "unix:g.sock", "--gateway-mode", "strict"),
        *("--gateway-upstream", "https://a.example/x", "--gateway-model", "a=b"),
        *("--gateway-key-env", "OUR_KEY", "--gateway-token-file", str(token_file)),
        command="serve",
    )

    assert settings.listen == (TcpListen("127.0.0.1", 9051),)
    gateway = made(settings)
    assert gateway.listen == (TcpListen("127.0.0.1", 9053), UnixListen(place / "g.sock"))
    assert gateway.mode is GatewayMode.STRICT
    assert gateway.upstream == Base(Scheme.HTTPS, Authority.of("a.example", 443), "/x")
    assert gateway.models == (("a", "b"),)
    assert gateway.credential.source == EnvironmentSource("OUR_KEY")
    assert gateway.credential.strips
    assert gateway.token == "CANARY-token-0123456789"


def test_the_key_of_serves_gateway_may_be_the_service_managers(started: Started) -> None:
    settings = started(
        *("--gateway", "9053", "--gateway-provider", "anthropic"),
        *("--gateway-key-systemd", "anthropic"),
        command="serve",
    )

    assert made(settings).credential.source == SystemdSource("anthropic")


@pytest.mark.usefixtures("enough")
def test_serve_without_a_gateway_has_none_whatever_the_environment_says(
    environment: Callable[..., None], started: Started
) -> None:
    environment(CLAUDE_PROXY_GATEWAY_PROVIDER="nobody", CLAUDE_PROXY_GATEWAY_MODE="strict")

    assert started(command="serve").gateway is None


def test_serve_reads_no_dotenv(dotenv: Write, refused: Refused) -> None:
    dotenv(f"PROXY_UPSTREAM_BASE={UPSTREAM}", f"PROXY_API_KEY={KEY}")

    assert "no upstream" in refused("--gateway", "9053", command="serve")


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["--gateway-mode", "strict"], "--gateway-mode"),
        (["--gateway", "0.0.0.0:9053"], "0.0.0.0:9053"),
        (["--gateway", "9051"], "--listen"),
        (["--gateway", "9053", "--gateway", "9053"], "--listen"),
        (["--gateway", "http"], "--gateway or CLAUDE_PROXY_GATEWAY"),
        (
            ["--gateway", "1", "--gateway-key-env", "A", "--gateway-key-file", "b"],
            "--gateway-key-file, --gateway-key-env",
        ),
        (
            ["--gateway", "1", "--gateway-key-systemd", "A", "--gateway-key-env", "A"],
            "--gateway-key-env, --gateway-key-systemd",
        ),
        (
            ["--gateway", "1", "--gateway-provider", "a", "--gateway-upstream", UPSTREAM],
            "--gateway-upstream, --gateway-provider",
        ),
    ],
)
@pytest.mark.usefixtures("enough")
def test_what_serve_cannot_have_is_refused(
    arguments: list[str], where: str, refused: Refused
) -> None:
    assert f"  where: {where}" in refused(*arguments, command="serve")


# The options


def own_options() -> list[click.Parameter]:
    return [
        param
        for param in gateway.command.params
        if isinstance(param, TableOption) and param.field.section == "gateway"
    ]


@pytest.mark.parametrize("option", own_options(), ids=lambda option: str(option.name))
def test_every_option_of_its_own_is_a_variable_too(option: click.Parameter) -> None:
    assert option.envvar == "CLAUDE_PROXY_GATEWAY_" + str(option.name).upper()


def test_what_serve_has_too_is_spelled_alike() -> None:
    theirs = {param.name: param for param in serve.command.params}

    for option in own_options():
        same: Any = theirs.get(f"gateway_{option.name}")
        assert same is None or same.envvar == option.envvar


@pytest.mark.parametrize("option", own_options(), ids=lambda option: str(option.name))
@pytest.mark.usefixtures("enough")
def test_an_empty_variable_is_as_good_as_none(
    option: click.Parameter, environment: Callable[..., None], started: Started
) -> None:
    usual = started()
    environment(**{str(option.envvar): ""})

    assert started() == usual


def test_a_shell_completes_options_and_providers(
    providers: Write, environment: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    providers(CORP)
    environment(_CLAUDE_PROXY_COMPLETE="bash_complete", COMP_CWORD="3")

    environment(COMP_WORDS="claude-proxy gateway --provider c")
    assert main.main([]) == 0
    assert "corp" in capsys.readouterr().out

    environment(COMP_WORDS="claude-proxy gateway --ud", COMP_CWORD="2")
    assert main.main([]) == 0
    assert "--uds" in capsys.readouterr().out
