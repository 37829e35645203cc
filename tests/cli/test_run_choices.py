"""A run takes its policy by name, or by its command, and whatever else a policy says of it."""

from pathlib import Path
from typing import Any

import pytest

from claude_proxy.cli import main
from claude_proxy.config.settings import ClientCredentials
from claude_proxy.sandbox import runner
from claude_proxy.sandbox.run_spec import RunSpec


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, as the current directory; the home is beside it."""
    path = tmp_path / "project"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def confdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with policies of the owner's, and a profile that names one."""
    confdir = tmp_path / "conf"
    for name, text in (
        ("policies/offline.yaml", "network: none\nprofile: claude\n"),
        ("policies/online.yaml", "allow: [{preset: claude}]\n"),
        ("profiles/maker.yaml", "extends: shell\ncommands: [make]\npolicy: offline\n"),
    ):
        path = confdir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(confdir))
    return confdir


@pytest.fixture(autouse=True)
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


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main.main(["run", *words]) == 2
    return capsys.readouterr().err


def test_without_a_policy_the_allowlist_decides(orders: list[RunSpec]) -> None:
    order = order_of(orders, "make")

    assert (order.settings.policy, order.sandbox.has_proxy) == (None, True)


@pytest.mark.usefixtures("confdir")
def test_a_policy_of_the_proxy_is_handed_to_it(orders: list[RunSpec]) -> None:
    order = order_of(orders, "--policy=online", "make")

    assert (order.settings.policy, order.sandbox.has_proxy) == ("online", True)


def test_a_policy_without_network_leaves_loopback_alone(orders: list[RunSpec]) -> None:
    order = order_of(orders, "--policy=lockdown", "make")

    assert (order.settings.policy, order.sandbox.has_proxy) == (None, False)
    assert not order.sandbox.unfiltered


def test_a_policy_without_a_filter_is_warned_of(
    orders: list[RunSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    order = order_of(orders, "--policy=open", "make")

    assert (order.sandbox.has_proxy, order.sandbox.unfiltered) == (False, True)
    assert "nothing is filtered and nothing recorded" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--no-network"], []])
def test_what_takes_the_network_away_wins_over_an_open_policy(
    project: Path, orders: list[RunSpec], words: list[str]
) -> None:
    if not words:
        (project / ".claude-proxy.yaml").write_text("network: none\n")

    order = order_of(orders, "--policy=open", *words, "make")

    assert not order.sandbox.has_proxy
    assert not order.sandbox.unfiltered


@pytest.mark.usefixtures("confdir")
def test_a_command_has_the_policy_of_its_profile_and_keeps_the_profile(
    orders: list[RunSpec],
) -> None:
    order = order_of(orders, "/usr/bin/make", "all")

    assert not order.sandbox.has_proxy
    assert order.sandbox.profile.name == "maker"


@pytest.mark.parametrize("tool", ["codex", "gemini"])
def test_codex_and_gemini_have_policies_of_their_own(orders: list[RunSpec], tool: str) -> None:
    order = order_of(orders, tool)

    assert (order.settings.policy, order.sandbox.profile.name) == (tool, tool)


def test_claude_has_the_allowlist(orders: list[RunSpec]) -> None:
    assert order_of(orders, "claude").settings.policy is None


@pytest.mark.usefixtures("confdir")
def test_an_allowlist_that_is_named_goes_before_it(orders: list[RunSpec], tmp_path: Path) -> None:
    listed = tmp_path / "list.yaml"
    listed.write_text("allow: []\n")

    assert order_of(orders, f"--allowlist={listed}", "make").sandbox.has_proxy


@pytest.mark.usefixtures("confdir")
def test_a_policy_that_is_named_brings_its_profile(orders: list[RunSpec]) -> None:
    assert order_of(orders, "--policy=offline", "make").sandbox.profile.name == "claude"


@pytest.mark.usefixtures("confdir")
def test_a_profile_that_is_named_goes_before_the_policys(orders: list[RunSpec]) -> None:
    order = order_of(orders, "--profile=shell", "--policy=offline", "make")

    assert order.sandbox.profile.name == "shell"


def test_a_groups_file_stops_a_run(
    confdir: Path, orders: list[RunSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    (confdir / "groups.toml").touch()

    assert "claude-proxy import bw-claude" in error_of(capsys, "make")
    assert orders == []


@pytest.mark.parametrize("words", [["--verify"], ["--learn=learned.toml"]])
@pytest.mark.parametrize("policy", ["open", "lockdown"])
def test_what_needs_a_proxy_cannot_be_had_without(
    capsys: pytest.CaptureFixture[str], orders: list[RunSpec], policy: str, words: list[str]
) -> None:
    said = error_of(capsys, f"--policy={policy}", *words, "make")

    assert "without a proxy" in said
    assert orders == []


def test_a_password_of_a_proxy_comes_from_a_file_or_a_variable(
    orders: list[RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "login"
    file.write_text("ann:canary\n")
    file.chmod(0o600)
    login = ClientCredentials("ann", "canary")

    by_file = order_of(orders, "--proxy=http://[::1]:9051/", f"--proxy-auth-file={file}", "make")
    monkeypatch.setenv("CLAUDE_PROXY_AUTH", "ann:canary")
    by_variable = order_of(orders, "--proxy=127.0.0.1:9051", "make")
    own = order_of(orders, "make")

    assert (by_file.join, by_file.settings.credentials) == ("[::1]:9051", login)
    assert by_variable.settings.credentials == login
    assert own.settings.credentials is None
    assert "canary" not in repr(by_file)


def test_a_password_on_the_command_line_is_refused_and_not_repeated(
    capsys: pytest.CaptureFixture[str], orders: list[RunSpec]
) -> None:
    said = error_of(capsys, "--proxy=http://ann:canary@127.0.0.1:9051", "make")

    assert "visible to every program" in said
    assert "--proxy-auth-file" in said
    assert "canary" not in said
    assert orders == []


def test_a_password_without_a_proxy_to_join_is_refused(
    capsys: pytest.CaptureFixture[str], orders: list[RunSpec], tmp_path: Path
) -> None:
    file = tmp_path / "login"
    file.write_text("ann:canary\n")

    assert "add --proxy" in error_of(capsys, f"--proxy-auth-file={file}", "make")
    assert orders == []


def test_a_proxy_that_is_joined_keeps_its_own_policy(
    capsys: pytest.CaptureFixture[str], orders: list[RunSpec]
) -> None:
    said = error_of(capsys, "--proxy=127.0.0.1:9051", "--policy=claude", "make")

    assert "has a policy of its own" in said
    assert orders == []


@pytest.mark.parametrize("words", [["--proxy=127.0.0.1:9051"], ["--policy=open"]])
def test_what_the_project_denies_is_denied_or_nothing_runs(
    project: Path, capsys: pytest.CaptureFixture[str], orders: list[RunSpec], words: list[str]
) -> None:
    (project / ".claude-proxy.yaml").write_text("deny: [claude.ai]\n")

    said = error_of(capsys, *words, "make")

    assert "can deny what the project's file denies" in said
    assert orders == []


@pytest.mark.usefixtures("confdir")
def test_what_there_is_to_choose_from_is_listed(
    capsys: pytest.CaptureFixture[str], orders: list[RunSpec]
) -> None:
    assert main.main(["run", "--list-policies"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("offline   none") for line in lines)
    assert orders == []


def test_what_the_project_denies_is_kept_where_there_is_no_network(
    project: Path, orders: list[RunSpec]
) -> None:
    (project / ".claude-proxy.yaml").write_text("deny: [claude.ai]\n")

    assert not order_of(orders, "--policy=lockdown", "make").sandbox.has_proxy


def test_an_open_policy_cannot_go_without_the_filter(
    capsys: pytest.CaptureFixture[str], orders: list[RunSpec]
) -> None:
    said = error_of(capsys, "--policy=open", "--without-seccomp", "make")

    assert "could reach its abstract Unix sockets" in said
    assert orders == []


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), "private"),
        (("--unix-sockets", "none"), "none"),
        (("--unix-sockets", "private"), "private"),
    ],
)
def test_the_unix_sockets_of_a_run_are_its_own_or_none(
    orders: list[RunSpec], words: tuple[str, ...], wanted: str
) -> None:
    assert order_of(orders, *words, "true").sandbox.unix_sockets == wanted


def test_without_the_filter_nothing_can_be_said_about_unix_sockets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--without-seccomp", "--unix-sockets", "none")

    assert "drop one of the two" in error_of(capsys, *words, "true")


# --- port mappings


def test_port_mappings_become_part_of_the_run(orders: list[RunSpec]) -> None:
    words = "--forward 5432=db.corp:5432 --forward 8080=host:11434 --publish 3000:3000"
    order = order_of(orders, *words.split(), "--publish", "auto", "--", "true")

    assert [str(one) for one in order.forwards] == ["5432=db.corp:5432", "8080=host:11434"]
    assert [str(one) for one in order.published] == ["127.0.0.1:3000:3000"]
    assert order.publishes_new
    assert order.settings.host_ports == (11434,)


def test_port_mappings_come_from_variables_and_config_yaml_too(
    orders: list[RunSpec], confdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (confdir / "config.yaml").write_text("run: {forward: [5432=db.corp:5432]}\n", "utf-8")
    monkeypatch.setenv("CLAUDE_PROXY_PUBLISH", "3000:3000 0:3001")

    order = order_of(orders, "--policy", "online", "--", "true")

    assert [str(one) for one in order.forwards] == ["5432=db.corp:5432"]
    assert [one.port for one in order.published] == [3000, 3001]
    assert not order.publishes_new


def test_a_run_without_mappings_has_none(orders: list[RunSpec]) -> None:
    assert not order_of(orders, "--", "true").maps_ports


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        ("--forward 5432:db.corp:5432", 'no "="', "write it like 5432=db.corp.example:5432"),
        ("--publish 3000", "two are needed", "write it like 3000:3000"),
        ("--forward 3128=db.corp:5432", "is the run's proxy", "take another port"),
        ("--forward 1=db.corp:2 --no-network", "this run has none", "run with a proxy"),
        ("--forward 1=host:2 --proxy 127.0.0.1:9051", "serves others too", "leave --proxy out"),
        ("--publish 0.0.0.0:3000:3000", "lets anyone on any network", "add --allow-remote"),
        ("--publish 192.0.2.1:3000:3000", "on the network of 192.0.2.1", "add --allow-remote"),
    ],
)
def test_mappings_that_a_run_cannot_have_are_refused(
    capsys: pytest.CaptureFixture[str], words: str, what: str, fix: str
) -> None:
    error = error_of(capsys, *words.split(), "--", "true")

    assert what in error
    assert fix in error


def test_the_machines_own_network_needs_no_published_port(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = error_of(capsys, "--policy", "open", "--publish", "3000:3000", "--", "true")

    assert "its ports are there already" in error


def test_remote_publishing_needs_the_owners_word(orders: list[RunSpec]) -> None:
    words = ("--publish", "0.0.0.0:3000:3000", "--allow-remote", "--", "true")

    assert order_of(orders, *words).published[0].is_remote


def test_without_a_proxy_a_server_inside_can_still_be_published(orders: list[RunSpec]) -> None:
    assert order_of(orders, "--no-network", "--publish", "3000:3000", "--", "true").publishes


@pytest.mark.usefixtures("confdir")
def test_names_have_addresses_only_if_that_is_asked_for(
    orders: list[RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not order_of(orders, "--policy", "online", "true").sandbox.transparent
    on = ("--policy", "online", "--transparent", "on", "true")
    assert order_of(orders, *on).sandbox.transparent

    monkeypatch.setenv("CLAUDE_PROXY_TRANSPARENT", "on")
    assert order_of(orders, "--policy", "online", "true").sandbox.transparent
    off = ("--policy", "online", "--transparent", "off", "true")
    assert not order_of(orders, *off).sandbox.transparent


@pytest.mark.usefixtures("confdir")
@pytest.mark.parametrize("words", [("--policy", "offline"), ("--no-network",)])
def test_names_have_no_addresses_without_a_proxy(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    error = error_of(capsys, *words, "--transparent", "on", "true")

    assert "--transparent off" in error
