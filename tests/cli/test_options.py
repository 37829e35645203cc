"""Options, variables, config.yaml and defaults: which of them wins, and what a bad file stops."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.cli import gateway, main, run, serve
from claude_proxy.cli.options import TableOption
from claude_proxy.config.option_table import Subcommand, fields_of
from claude_proxy.config.settings import (
    GatewayMode,
    InheritedListen,
    LogFormat,
    Settings,
    TcpListen,
    UnixListen,
    Verbosity,
)
from claude_proxy.policy.credentials.sources import EnvironmentSource, FileSource, KeyringSource
from claude_proxy.sandbox import runner
from claude_proxy.sandbox.run_spec import RunSpec

type Started = Callable[..., Settings]
type Write = Callable[[str], Path]

COMMANDS = {
    Subcommand.SERVE: serve.command,
    Subcommand.GATEWAY: gateway.command,
    Subcommand.RUN: run.command,
}


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.chmod(0o700)
    path = tmp_path / "work"
    path.mkdir()
    monkeypatch.chdir(path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return path


@pytest.fixture
def config(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "home" / ".config" / "claude-proxy" / "config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(text, "utf-8")
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def started() -> Started:
    """Return a function that runs a command line and returns the settings it starts with."""

    def start_with(*arguments: str) -> Settings:
        taken: list[Settings] = []

        def start(settings: Settings) -> int:
            taken.append(settings)
            return 0

        assert main.main(arguments, start=start) == 0
        return taken[0]

    return start_with


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    made: list[RunSpec] = []

    def note(spec: RunSpec, *, say: Any) -> int:
        del say
        made.append(spec)
        return 0

    monkeypatch.setattr(runner, "run", note)
    return made


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_the_options_of_its_rows_and_their_variables(command: Subcommand) -> None:
    found = {param.name: param for param in COMMANDS[command].params}

    for field in fields_of(command):
        param = found[field.parameter(command)]
        assert isinstance(param, TableOption)
        assert field.option(command) in param.opts
        assert param.envvar == field.variable


# Precedence


def test_an_option_wins_over_a_variable_over_the_file_over_the_default(
    started: Started, config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert started().audit_days == 30
    config("audit_days: 60\n")
    assert started().audit_days == 60
    monkeypatch.setenv("CLAUDE_PROXY_AUDIT_DAYS", "90")
    assert started().audit_days == 90
    assert started("--audit-days", "7").audit_days == 7


def test_the_file_is_the_one_in_the_configuration_directory(
    started: Started, config: Write, tmp_path: Path
) -> None:
    config("audit_days: 60\n")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text("audit_days: 5\n")

    assert started("--confdir", str(other)).audit_days == 5


def test_values_of_every_kind_reach_the_settings(
    started: Started, config: Write, tmp_path: Path
) -> None:
    confdir = config(
        "audit_size: 1G\ngrace: 0\nlog_format: json\nrecord_query: true\njsonl: out.jsonl\n"
        "client: [10.0.0.0/8]\nresolve: ['a.test:443:127.0.0.1']\n"
        "upstream_proxy: http://proxy.test:3128\nno_upstream_proxy: [localhost, .corp.test]\n"
        "serve: {listen: [9052, 'unix:p.sock'], unlink_socket: true, workers: 2}\n"
    ).parent

    settings = started()

    assert settings.audit_bytes == 1024**3
    assert settings.limits.grace_s == 0
    assert settings.log_format is LogFormat.JSON
    assert settings.record_query
    assert settings.jsonl == confdir / "out.jsonl"
    assert [str(network) for network in settings.clients] == ["10.0.0.0/8"]
    assert len(settings.resolve) == 1
    assert settings.upstream_proxy is not None
    assert settings.upstream_proxy.exceptions == ("localhost", ".corp.test")
    assert settings.listen == (
        TcpListen("127.0.0.1", 9052),
        UnixListen(confdir / "p.sock", unlink_after_first=True),
    )
    assert settings.workers == 2
    assert settings.statedir != tmp_path


def test_a_flag_of_the_file_is_turned_off_by_an_option(started: Started, config: Write) -> None:
    config("record_query: true\n")

    assert started().record_query
    assert not started("--no-record-query").record_query


# Options that exclude each other


def test_an_option_makes_what_the_file_says_against_it_void(
    started: Started, config: Write, tmp_path: Path
) -> None:
    listed = tmp_path / "list.yaml"
    listed.write_text("allow: []\n")
    config(f"allowlist: {listed}\nquiet: true\nlearn: l\nserve: {{listen: [9052]}}\n")

    assert started().allowlist == listed
    assert started("--verbose").verbosity is Verbosity.VERBOSE
    assert started("--policy", "claude").policy == "claude"
    assert started("--port", "9060").listen == (TcpListen("127.0.0.1", 9060),)
    learn = started("--learn-deny", "d").learn
    assert learn is not None
    assert learn[1] == Path("d")


def test_a_variable_does_so_too(
    started: Started, config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    config("serve: {host: '::1', port: 9052}\nquiet: true\n")
    monkeypatch.setenv("CLAUDE_PROXY_LISTEN", "9053")
    monkeypatch.setenv("CLAUDE_PROXY_VERBOSE", "1")

    assert started().listen == (TcpListen("127.0.0.1", 9053),)
    assert started().verbosity is Verbosity.VERBOSE


def test_what_contradicts_itself_in_the_file_stops_the_start(
    config: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config("quiet: true\nverbose: true\n")

    assert main.main([]) == 2

    shown = capsys.readouterr().err
    assert "exclude each other" in shown
    assert f"{path}:1:8, quiet" in shown


def test_sockets_of_the_service_manager_replace_those_of_the_file(
    started: Started, config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os  # noqa: PLC0415

    config("serve: {listen: ['unix:p.sock', 9052], unlink_socket: true}\n")
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))

    assert started().listen == (InheritedListen(3, ""),)


# A file that cannot be used


@pytest.mark.parametrize("command", [[], ["gateway"], ["run", "true"], ["doctor"]])
@pytest.mark.parametrize("text", ["audit_dayz: 1\n", "- a\n", "audit_days: 0\n"])
def test_a_bad_file_stops_every_start(
    command: list[str],
    text: str,
    config: Write,
    runs: list[RunSpec],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = config(text)

    assert main.main(command, start=lambda _: 0) == 2

    assert f"where: {path}:1:" in capsys.readouterr().err
    assert runs == []


def test_a_path_that_an_option_would_refuse_is_refused_with_its_line(
    config: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config("# first\nupstream_ca: gone.pem\n")

    assert main.main([]) == 2

    assert f"where: {path}:2:14, upstream_ca" in capsys.readouterr().err


def test_help_is_there_whatever_the_file_says(
    config: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    config("nonsense")

    assert main.main(["serve", "--help"]) == 0
    assert "--port" in capsys.readouterr().out


# run


def test_a_run_applies_what_the_file_says_to_itself_and_its_proxy(
    config: Write, runs: list[RunSpec], tmp_path: Path
) -> None:
    config(
        "record_query: true\naudit_days: 9\nquiet: true\nallow_remote: true\n"
        "serve: {listen: ['0.0.0.0:1'], workers: 3}\n"
        "run: {allow_ro: [~/docs], profile: gemini, name: mine}\n"
    )

    assert main.main(["run", "true"]) == 0
    spec = runs[0]
    assert spec.settings.record_query
    assert spec.settings.audit_days == 9
    assert spec.sandbox.allow_ro == (tmp_path / "home" / "docs",)
    assert spec.sandbox.profile.name == "gemini"
    assert spec.name == "mine"
    # Where it listens and what it prints is settled.
    assert spec.settings.workers == 1
    assert spec.settings.verbosity is Verbosity.NORMAL
    assert not spec.settings.allow_remote


def test_a_run_without_network_by_the_file_has_one_by_option(
    config: Write, runs: list[RunSpec]
) -> None:
    config("run: {no_network: true}\n")

    assert main.main(["run", "true"]) == 0
    assert not runs[-1].sandbox.has_proxy
    assert main.main(["run", "--network", "true"]) == 0
    assert runs[-1].sandbox.has_proxy


@pytest.fixture
def bound(config: Write, work: Path) -> Path:
    """Bind this project to a policy of the owner's."""
    path = config(f"policy: lockdown\nprojects:\n  {work}: acme\n")
    own = path.parent / "policies" / "acme.yaml"
    own.parent.mkdir(mode=0o700)
    own.write_text("profile: gemini\nallow: [acme.test]\n")
    own.chmod(0o600)
    return path


@pytest.mark.usefixtures("bound")
def test_a_project_has_the_policy_that_it_is_bound_to(
    runs: list[RunSpec], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main.main(["run", "true"]) == 0
    assert runs[-1].settings.policy == "acme"
    assert runs[-1].sandbox.profile.name == "gemini"

    inside = work / "src"
    inside.mkdir()
    monkeypatch.chdir(inside)
    assert main.main(["run", "true"]) == 0
    assert runs[-1].settings.policy == "acme"


@pytest.mark.usefixtures("bound")
def test_an_option_or_variable_wins_over_the_binding_and_that_over_the_files_policy(
    runs: list[RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main.main(["run", "--policy", "claude", "true"]) == 0
    assert runs[-1].settings.policy == "claude"
    monkeypatch.setenv("CLAUDE_PROXY_POLICY", "deny")
    assert main.main(["run", "true"]) == 0
    assert runs[-1].settings.policy == "deny"
    monkeypatch.delenv("CLAUDE_PROXY_POLICY")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert main.main(["run", "--dir", str(elsewhere), "true"]) == 0
    assert not runs[-1].sandbox.has_proxy  # lockdown


@pytest.mark.usefixtures("bound")
def test_a_joined_proxy_decides_by_its_own_policy_and_that_is_said(
    runs: list[RunSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["run", "--proxy", "127.0.0.1:9051", "true"]) == 0

    assert runs[-1].settings.policy is None
    assert "ignores the policy in config.yaml" in capsys.readouterr().err


def test_a_link_into_a_bound_directory_is_bound(
    bound: Path, runs: list[RunSpec], tmp_path: Path, work: Path
) -> None:
    assert bound.exists()
    link = tmp_path / "link"
    link.symlink_to(work)

    assert main.main(["run", "--dir", str(link), "true"]) == 0
    assert runs[-1].settings.policy == "acme"


# The gateway


KEY = "sk-ant-api03-CANARY"
GATEWAY = """\
gateway:
  provider: corp
  mode: strict
  timeout: 2m
  model: [a=b]
  max_tokens_per_day: 5
  keep_retry_after: true
  port: 9009
providers:
  corp:
    endpoint: https://llm.corp.example/api
    from: {env: CORP_KEY}
"""


def test_a_gateway_is_what_the_file_says_and_variables_win(
    started: Started, config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    config(GATEWAY)
    monkeypatch.setenv("CORP_KEY", KEY)

    made = started("gateway").gateway
    assert made is not None
    assert made.listen == (TcpListen("127.0.0.1", 9009),)
    assert (made.mode, made.timeout_s) == (GatewayMode.STRICT, 120)
    assert made.models == (("a", "b"),)
    assert made.ceilings.tokens_per_day == 5
    assert made.keeps_retry_after
    assert made.credential.source == EnvironmentSource("CORP_KEY")

    monkeypatch.setenv("PROXY_TIMEOUT", "60")
    monkeypatch.setenv("PROXY_PORT", "9010")
    monkeypatch.setenv("PROXY_DEFAULT_MODEL", "c")
    monkeypatch.setenv("CLAUDE_PROXY_GATEWAY_MODE", "claude")
    made = started("gateway", "--no-keep-retry-after").gateway
    assert made is not None
    assert made.listen == (TcpListen("127.0.0.1", 9010),)
    assert (made.mode, made.timeout_s) == (GatewayMode.CLAUDE, 60)
    assert made.models == (("*", "c"),)
    assert not made.keeps_retry_after


def test_a_gateway_beside_a_proxy_and_that_of_a_run_are_so_too(
    started: Started, config: Write, runs: list[RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    config(GATEWAY + "serve: {gateway: [9053]}\nrun: {gateway: true}\n")
    monkeypatch.setenv("CORP_KEY", KEY)

    beside = started("serve").gateway
    assert beside is not None
    assert beside.listen == (TcpListen("127.0.0.1", 9053),)
    assert beside.timeout_s == 120
    assert main.main(["run", "true"]) == 0
    of_run = runs[0].settings.gateway
    assert of_run is not None
    assert of_run.mode is GatewayMode.STRICT


def test_the_key_of_the_file_goes_where_the_file_or_the_user_says(
    started: Started, config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    config("gateway: {upstream: https://a.example, key_keyring: 'llm:me'}\n")

    made = started("gateway").gateway
    assert made is not None
    assert made.credential.source == KeyringSource("llm", "me")
    made = started("gateway", "--upstream", "https://b.example", "--key-file", "/run/key").gateway
    assert made is not None
    assert made.credential.source == FileSource(Path("/run/key"))
    monkeypatch.setenv("PROXY_API_KEY", KEY)
    made = started("gateway").gateway
    assert made is not None
    assert made.credential.source == EnvironmentSource("PROXY_API_KEY")


def test_the_key_of_the_file_does_not_go_where_a_dotenv_says(
    config: Write, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config("gateway: {upstream: https://a.example, key_file: /run/key}\n")
    (work / ".env").write_text("PROXY_UPSTREAM_BASE=https://evil.example\n")

    assert main.main(["gateway"], start=lambda _: 0) == 2

    assert "no key for its upstream" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("gateway: {upstream: https://a.example, provider: anthropic}", "both an upstream and"),
        ("gateway: {provider: corp, key_file: k}", "the key is given twice"),
        ("gateway: {provider: corp, key_file: k, key_env: A}", "the key is given twice"),
        ("gateway: {provider: nobody}", "there is no provider"),
        ("gateway: {provider: corp, timeout: 1h}", "out of bounds"),
        ("gateway: {provider: corp, model: [a=b, a=c]}", "replaced by two others"),
        ("gateway: {provider: corp, uds: g.sock, port: 1}", "a Unix socket and a port"),
        ('gateway: {upstream: https://a.test, key_command: "\'"}', "it is not a command"),
    ],
)
def test_what_cannot_be_in_the_file_stops_the_gateway(
    text: str,
    what: str,
    config: Write,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = config(f"{text}\n{GATEWAY[GATEWAY.index('providers') :]}")
    monkeypatch.setenv("CORP_KEY", KEY)

    assert main.main(["gateway"], start=lambda _: 0) == 2

    shown = capsys.readouterr().err
    assert what in shown
    assert f"{path}:1:" in shown


# What help shows


def test_help_lists_options_below_headings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["serve", "--help"]) == 0

    shown = capsys.readouterr().out
    for heading in ("Listening:", "Policy:", "Audit log:", "Limits:", "Options:"):
        assert f"\n{heading}\n" in shown


# Other commands


def test_the_log_is_read_where_the_file_says(
    config: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config("statedir: ~/state\n")

    assert main.main(["log"]) == 1

    assert str(tmp_path / "home" / "state") in capsys.readouterr().err


def test_check_asks_the_policy_that_the_file_names_unless_an_option_names_another(
    config: Write, tmp_path: Path
) -> None:
    listed = tmp_path / "list.yaml"
    listed.write_text("allow: [a.test]\n")
    config("policy: deny\n")

    assert main.main(["check", "https://a.test/"]) == 1
    assert main.main(["check", "--allowlist", str(listed), "https://a.test/"]) == 0
    config(f"allowlist: {listed}\n")
    assert main.main(["check", "https://a.test/"]) == 0
    assert main.main(["check", "--policy", "deny", "https://a.test/"]) == 1
