"""What `run` is told becomes an order, and what cannot be had is an error before anything runs."""

import os
import re
from pathlib import Path
from typing import Any

import click
import pytest

from claude_proxy.cli import main, serve
from claude_proxy.cli import run as command_module
from claude_proxy.config.settings import Learn
from claude_proxy.sandbox import runner
from claude_proxy.sandbox.run_spec import RunSpec

pytestmark = pytest.mark.usefixtures("project", "orders")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, as the current directory; the home is beside it."""
    path = tmp_path / "project"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """The orders that a command line makes; nothing is run."""
    made: list[RunSpec] = []

    def note(order: RunSpec, *, say: Any) -> int:
        del say
        made.append(order)
        return 5

    monkeypatch.setattr(runner, "run", note)
    return made


def order_of(orders: list[RunSpec], *words: str) -> RunSpec:
    assert main.main(["run", *words]) == 5
    return orders[-1]


# --- a proxy that runs already


def test_the_directory_of_a_services_ca_need_not_be_ones_own_to_list(
    orders: list[RunSpec], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o311)

    order = order_of(orders, "--proxy=127.0.0.1:9051", f"--confdir={state}", "--", "true")

    assert order.settings.confdir == state


def test_variables_that_a_joined_proxy_does_not_go_by_are_named(
    orders: list[RunSpec], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLAUDE_PROXY_UPSTREAM_PROXY", "http://proxy.corp.example:3128")
    monkeypatch.setenv("CLAUDE_PROXY_GRACE", "1s")
    monkeypatch.setenv("CLAUDE_PROXY_PORT", "9999")  # for `serve` alone, and never heard here

    order_of(orders, "--", "true")
    assert capsys.readouterr().err == ""
    order_of(orders, "--proxy", "127.0.0.1:9051", "--", "true")

    named = "CLAUDE_PROXY_GRACE, CLAUDE_PROXY_UPSTREAM_PROXY"
    assert capsys.readouterr().err == (
        "claude-proxy: note: the proxy at 127.0.0.1:9051 has its own settings, "
        f"and ignores {named}\n"
    )


# --- COMMAND


@pytest.mark.parametrize(
    "words",
    [
        ["--", "claude", "-p", "hi"],
        ["claude", "-p", "hi"],
        ["--name", "x", "claude", "-p", "hi"],
        ["--name", "x", "--", "claude", "-p", "hi"],
    ],
)
def test_what_follows_command_is_commands_with_or_without_dashes(
    orders: list[RunSpec], words: list[str]
) -> None:
    assert order_of(orders, *words).sandbox.command == ("claude", "-p", "hi")


def test_its_own_options_and_dashes_stay_commands(orders: list[RunSpec]) -> None:
    words = ("sh", "-c", "--", "--verify", "--", "-v")

    order = order_of(orders, "--", *words)

    assert order.sandbox.command == words
    assert not order.verify


def test_the_exit_code_of_the_run_is_returned() -> None:
    assert main.main(["run", "true"]) == 5


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--name", "x"],
        ["--shell", "--", "true"],
        ["--no-network", "--proxy", "127.0.0.1:1", "true"],
        ["--no-network", "--verify", "true"],
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    orders: list[RunSpec], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["run", *words]) == 2
    assert "claude-proxy run --help" in capsys.readouterr().err
    assert orders == []


# --- the project


def test_the_project_is_the_current_directory(project: Path, orders: list[RunSpec]) -> None:
    assert order_of(orders, "true").sandbox.project == project


def test_another_can_be_named(orders: list[RunSpec], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()

    assert order_of(orders, "--dir", "../other", "true").sandbox.project == tmp_path / "other"


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_project_that_is_no_directory_is_an_error_of_its_own(
    project: Path, orders: list[RunSpec], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "file").touch()

    code = main.main(["run", "--dir", name, "true"])

    assert code == 1
    assert "error:" in capsys.readouterr().err
    assert orders == []


def test_a_bad_directory_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run", "--dir", "missing", "true"]) == 1
    assert "there is no such directory" in capsys.readouterr().err


def test_the_current_directory_may_be_gone(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = project / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert main.main(["run", "true"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_the_projects_own_file_narrows(project: Path, orders: list[RunSpec]) -> None:
    (project / ".claude-proxy.yaml").write_text(
        "deny: [one.test]\nhide: [secrets]\nread_only: [Makefile]\nnetwork: none\n"
    )

    order = order_of(orders, "true")

    assert (order.sandbox.hide, order.sandbox.read_only) == (("secrets",), ("Makefile",))
    assert not order.sandbox.has_proxy
    assert order.settings.narrowing == project / ".claude-proxy.yaml"


# --- what is wished


def test_wishes_arrive(project: Path, orders: list[RunSpec]) -> None:
    order = order_of(
        orders,
        *("--allow-ro", "ro", "--allow-ro", "/abs", "--allow-rw", "~/rw", "--pass-env", "ONE"),
        *(
            "--show-home",
            "x",
            "--share-agent-home",
            "--without-seccomp",
            "--verify",
            "-v",
            "--name",
            "called",
        ),
        *("--proxy", "unix:/run/proxy.sock", "true"),
    )

    assert order.sandbox.allow_ro == (project / "ro", Path("/abs"))
    assert order.sandbox.allow_rw == (Path(os.environ["HOME"]) / "rw",)
    assert order.sandbox.pass_env == ("ONE",)
    assert order.sandbox.show_home == (Path(os.environ["HOME"]) / "x",)
    assert (order.sandbox.share_agent_home, order.sandbox.seccomp) == (True, False)
    assert (order.verify, order.show_plan) == (True, True)
    assert (order.name, order.join) == ("called", "unix:/run/proxy.sock")


def test_a_directory_beside_the_project_is_not_taken_for_one_in_it(
    project: Path, orders: list[RunSpec], tmp_path: Path
) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (project / "link").symlink_to(tmp_path / "far" / "away")

    order = order_of(orders, "--statedir", "../state2", "--confdir", f"{project}/../conf2", "true")
    assert order.settings.statedir == project.parent / "state2"
    assert order.settings.confdir == project.parent / "conf2"

    order = order_of(orders, "--statedir", "link/../state3", "true")
    assert order.settings.statedir == tmp_path / "far" / "state3"


def test_without_wishes_nothing_is_given(orders: list[RunSpec]) -> None:
    spec = order_of(orders, "true").sandbox

    assert (spec.allow_ro, spec.allow_rw, spec.pass_env, spec.shell) == ((), (), (), False)
    assert (spec.show_home, spec.has_proxy, spec.seccomp) == ((), True, True)


@pytest.mark.parametrize("words", [["--filter-network"], ["--unshare-net"]])
def test_words_of_its_forerunners_are_understood(orders: list[RunSpec], words: list[str]) -> None:
    assert order_of(orders, *words, "true").sandbox.has_proxy


@pytest.mark.parametrize("option", ["--keep-home", "--full-home-access"])
def test_the_whole_home_cannot_be_shown_and_the_error_names_what_can(
    capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main.main(["run", option, "true"]) == 2
    assert "--show-home PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "profile"),
    [
        (["claude"], "claude"),
        (["/usr/local/bin/claude", "-p"], "claude"),
        (["codex"], "codex"),
        (["make"], "shell"),
        (["--shell"], "shell"),
        (["--profile", "gemini", "claude"], "gemini"),
    ],
)
def test_the_profile_is_the_commands(orders: list[RunSpec], words: list[str], profile: str) -> None:
    assert order_of(orders, *words).sandbox.profile.name == profile


def test_claude_does_not_ask_only_if_that_is_wished(orders: list[RunSpec]) -> None:
    asked = order_of(orders, "--skip-permissions", "claude", "-p", "hi").sandbox.command

    assert asked[0] == "claude"
    assert "--dangerously-skip-permissions" in asked[1:-2]
    assert asked[-2:] == ("-p", "hi")
    for words in ([], ["--no-skip-permissions"]):
        assert order_of(orders, *words, "claude").sandbox.command == ("claude",)


def test_a_command_that_cannot_be_told_not_to_ask_is_not_run_as_if_it_could(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.main(["run", "--skip-permissions", "make"]) == 2
    assert "does not say how" in capsys.readouterr().err


# --- what is `serve`'s


# Where a proxy listens, whom it serves and what it prints: a run's own proxy has that settled.
OF_SERVE_ALONE = {
    *("cadir", "client", "gateway_token_file", "host", "listen", "log_format"),
    *("port", "quiet", "socket_uid", "unlink_socket", "workers"),
}


def test_every_option_for_policy_and_upstream_is_serves_too() -> None:
    mine = {param.name for param in command_module.command.params}
    theirs = {param.name for param in serve.command.params}

    assert {"allowlist", "confdir", "statedir", "resolve", "upstream_ca", "upstream_proxy"} < mine
    # And what is not shared is known by name: a new option of `serve` is one of `run` too.
    assert theirs - mine == OF_SERVE_ALONE


def test_no_two_options_have_one_name() -> None:
    names = [name for param in command_module.command.params for name in param.opts]

    assert len(names) == len(set(names))


def test_settings_are_made_as_serve_makes_them(project: Path, orders: list[RunSpec]) -> None:
    (project / "list.yaml").write_text("allow: []\n")
    (project / "ca.pem").touch()

    settings = order_of(
        orders,
        *("--allowlist", "list.yaml", "--confdir", "conf", "--statedir", "state"),
        *("--resolve", "git.test:443:10.0.0.1", "--upstream-ca", "ca.pem", "--jsonl", "out.jsonl"),
        *("--upstream-proxy", "http://user:secret@proxy.test:3128", "--record-query"),
        *("--learn-deny", "learned.toml", "true"),
    ).settings

    # Absolute: the proxy of a run works in no directory of the user's.
    assert settings.allowlist == project / "list.yaml"
    assert (settings.confdir, settings.statedir) == (project / "conf", project / "state")
    assert (settings.upstream_ca, settings.jsonl) == (project / "ca.pem", project / "out.jsonl")
    assert settings.learn == (Learn.DENIALS, project / "learned.toml")
    assert settings.record_query
    assert settings.upstream_proxy is not None
    assert len(settings.resolve) == 1


def test_variables_of_serve_for_listening_are_not_heard(
    orders: list[RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_PROXY_PORT", "nonsense")
    monkeypatch.setenv("CLAUDE_PROXY_LISTEN", "0.0.0.0:1")
    monkeypatch.setenv("CLAUDE_PROXY_WORKERS", "7")
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", "/elsewhere")
    monkeypatch.setenv("CLAUDE_PROXY_AUTH", "user:password")

    settings = order_of(orders, "true").settings

    assert settings.workers == 1
    assert settings.credentials is None
    assert settings.confdir == Path("/elsewhere")


def test_standard_output_is_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run", "--jsonl", "-", "true"]) == 2
    assert "standard output is COMMAND's" in capsys.readouterr().err


# --- printing


def test_what_is_said_is_one_line_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command_module.say("one\ntwo \x1b[31m")

    assert capsys.readouterr().err == "claude-proxy: one\\ntwo \\x1b[31m\n"


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run", "--help"]) == 0

    shown = capsys.readouterr().out
    for param in command_module.command.params:
        if isinstance(param, click.Option) and not param.hidden:
            assert re.search(rf"{param.opts[0]}\b", shown)
    assert "--unshare-net" not in shown


def test_a_dry_run_prints_the_command_line_and_starts_nothing(
    orders: list[RunSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/usr/bin/bwrap").exists():
        pytest.skip("bwrap is not installed")

    assert main.main(["run", "--dry-run", "--", "true"]) == 0

    shown = capsys.readouterr().out
    assert "--unshare-net" in shown
    assert "HTTPS_PROXY" in shown
    assert orders == []


# --- the gateway


def test_a_gateway_is_made_of_the_options_of_serve(
    orders: list[RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-api03-for-the-gateway")

    order = order_of(orders, "--gateway", "--gateway-provider", "anthropic", "claude")

    gateway = order.settings.gateway
    assert gateway is not None
    assert gateway.listen == ()  # the run makes its own place
    assert str(gateway.upstream) == "https://api.anthropic.com"
    assert gateway.token is None


def test_without_the_word_there_is_none(orders: list[RunSpec]) -> None:
    assert order_of(orders, "claude").settings.gateway is None


@pytest.mark.parametrize(
    "words",
    [
        ["--gateway-provider", "anthropic", "true"],
        ["--gateway-upstream", "https://api.example.com", "true"],
        ["--gateway", "true"],
        ["--gateway", "--no-network", "true"],
        ["--gateway", "--proxy", "127.0.0.1:1", "true"],
        ["--gateway", "--gateway-provider", "anthropic", "--policy", "lockdown", "true"],
        ["--gateway", "--gateway-provider", "anthropic", "--policy", "open", "true"],
    ],
)
def test_a_gateway_that_cannot_be_had_is_an_error(
    orders: list[RunSpec],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-api03-for-the-gateway")

    assert main.main(["run", *words]) == 2

    assert "gateway" in capsys.readouterr().err
    assert orders == []


def test_the_key_of_a_gateway_is_not_in_an_order_that_is_shown(
    orders: list[RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-api03-for-the-gateway")

    order = order_of(orders, "--gateway", "--gateway-provider", "anthropic", "claude")

    assert "for-the-gateway" not in repr(order)
