"""A run takes its policy by name, or by its command, and whatever else a policy says of it."""

from pathlib import Path
from typing import Any

import pytest

from claude_proxy.cli import main
from claude_proxy.sandbox import runner
from claude_proxy.sandbox.run_spec import RunSpec

GROUPS = """\
[policy.policies.offline]
network.network = "disabled"
filesystem = "claude"
[policy.policies.online]
network.network = "proxy"
network.allow_groups = ["claude"]
[tools.make]
default_policy = "offline"
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, as the current directory; the home is beside it."""
    path = tmp_path / "project"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def groups(tmp_path: Path) -> str:
    path = tmp_path / "groups.toml"
    path.write_text(GROUPS, "utf-8")
    return f"--groups={path}"


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

    assert (order.settings.policy, order.sandbox.network) == (None, True)


def test_a_policy_of_the_proxy_is_handed_to_it(orders: list[RunSpec], groups: str) -> None:
    order = order_of(orders, groups, "--policy=online", "make")

    assert (order.settings.policy, order.sandbox.network) == ("online", True)


def test_a_policy_without_network_leaves_loopback_alone(orders: list[RunSpec]) -> None:
    order = order_of(orders, "--policy=lockdown", "make")

    assert (order.settings.policy, order.sandbox.network) == (None, False)
    assert not order.sandbox.unfiltered


def test_a_policy_without_a_filter_is_warned_of(
    orders: list[RunSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    order = order_of(orders, "--policy=open", "make")

    assert (order.sandbox.network, order.sandbox.unfiltered) == (False, True)
    assert "nothing is filtered and nothing recorded" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--no-network"], []])
def test_what_takes_the_network_away_wins_over_an_open_policy(
    project: Path, orders: list[RunSpec], words: list[str]
) -> None:
    if not words:
        (project / ".claude-proxy.yaml").write_text("network: none\n")

    order = order_of(orders, "--policy=open", *words, "make")

    assert not order.sandbox.network
    assert not order.sandbox.unfiltered


def test_a_command_can_have_a_policy_of_its_own(orders: list[RunSpec], groups: str) -> None:
    order = order_of(orders, groups, "/usr/bin/make", "all")

    assert not order.sandbox.network
    assert order.sandbox.profile.name == "claude"


def test_an_allowlist_that_is_named_goes_before_it(
    orders: list[RunSpec], groups: str, tmp_path: Path
) -> None:
    listed = tmp_path / "list.yaml"
    listed.write_text("allow: []\n")

    assert order_of(orders, groups, f"--allowlist={listed}", "make").sandbox.network


def test_a_profile_that_is_named_goes_before_the_policys(
    orders: list[RunSpec], groups: str
) -> None:
    order = order_of(orders, groups, "--profile=shell", "--policy=offline", "make")

    assert order.sandbox.profile.name == "shell"


@pytest.mark.parametrize("words", [["--verify"], ["--learn=learned.toml"]])
@pytest.mark.parametrize("policy", ["open", "lockdown"])
def test_what_needs_a_proxy_cannot_be_had_without(
    capsys: pytest.CaptureFixture[str], orders: list[RunSpec], policy: str, words: list[str]
) -> None:
    said = error_of(capsys, f"--policy={policy}", *words, "make")

    assert "without a proxy" in said
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


@pytest.mark.parametrize(
    ("option", "line"),
    [("--list-policies", "offline   disabled"), ("--list-groups", "claude")],
)
def test_what_there_is_to_choose_from_is_listed(
    capsys: pytest.CaptureFixture[str], orders: list[RunSpec], groups: str, option: str, line: str
) -> None:
    assert main.main(["run", groups, option]) == 0

    assert any(shown.startswith(line) for shown in capsys.readouterr().out.splitlines())
    assert orders == []


def test_what_the_project_denies_is_kept_where_there_is_no_network(
    project: Path, orders: list[RunSpec]
) -> None:
    (project / ".claude-proxy.yaml").write_text("deny: [claude.ai]\n")

    assert not order_of(orders, "--policy=lockdown", "make").sandbox.network


def test_an_open_policy_cannot_go_without_the_filter(
    capsys: pytest.CaptureFixture[str], orders: list[RunSpec]
) -> None:
    said = error_of(capsys, "--policy=open", "--without-seccomp", "make")

    assert "abstract Unix sockets would be in reach" in said
    assert orders == []
