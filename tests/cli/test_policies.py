"""Laws of the command line of groups: what is listed, what is asked, what clashes."""

import json
from pathlib import Path

import pytest

from claude_proxy.cli import main
from claude_proxy.config.settings import Learn, Settings

MINE = """
[network.groups.mine]
description = "my \\u001b[31m hosts"
hosts = ["a.test"]
hosts_deny = ["b.a.test"]
groups = ["gemini"]

[policy.policies.mine]
filesystem = "claude"
network = {default = "allow", allow_groups = ["mine"], deny_groups = ["claude"]}
"""


@pytest.fixture(autouse=True)
def confdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "conf"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(directory))
    return directory


@pytest.fixture
def mine(confdir: Path) -> Path:
    return written(confdir / "groups.toml", MINE)


def written(file: Path, text: str) -> Path:
    file.write_text(text)
    file.chmod(0o600)
    return file


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main.main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


# What there is


def test_policies_are_listed_with_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "policies").splitlines()

    assert [line.split()[0] for line in lines] == [
        *("allow", "claude", "deny", "gemini", "lockdown", "open", "shell"),
    ]
    assert lines[4] == "lockdown  disabled      No network at all"


@pytest.mark.usefixtures("mine")
def test_a_policy_is_shown_with_its_rules(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "policies", "mine")

    assert "  network: proxy, allow\n  profile: claude\n" in text
    assert "  allow https://a.test ports 443 (" in text
    assert "  deny b.a.test (" in text
    assert "  deny api.anthropic.com (preset claude-min:" in text


def test_a_policy_without_a_proxy_has_no_rules(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "policies", "open")

    assert "  network: open\n  profile: by the command\n" in text
    assert "  allow" not in text


@pytest.mark.usefixtures("mine")
def test_groups_are_listed_and_nothing_in_them_reaches_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = printed(capsys, "policies", "--list-groups")

    assert "mine         2 hosts, 1 group  my \\x1b[31m hosts\n" in text
    assert "claude       1 group           Claude Code" in text


@pytest.mark.usefixtures("mine")
def test_all_of_it_is_to_be_had_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    policies = json.loads(printed(capsys, "policies", "--json"))
    groups = json.loads(printed(capsys, "policies", "--list-groups", "--json"))
    one = json.loads(printed(capsys, "policies", "mine", "--json"))
    none = json.loads(printed(capsys, "policies", "lockdown", "--json"))

    assert "mine" in [policy["name"] for policy in policies]
    assert {group["name"]: group["hosts"] for group in groups}["mine"] == ["a.test"]
    assert (one["default"], one["filesystem"], one["deny_groups"]) == (
        "allow",
        "claude",
        ["claude"],
    )
    assert one["allow"][0]["host"] == "a.test"
    assert "allow" not in none


def test_files_are_laid_over_each_other(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = written(tmp_path / "o.toml", '[policy.policies.mine]\ndescription = "by the option"\n')
    seeds = written(tmp_path / "s.toml", '[policy.policies.mine]\ndescription = "the seed"\n')
    assert mine.exists()

    monkeypatch.setenv("BW_CLAUDE_CONFIG", str(seeds))
    assert "mine: the seed" in printed(capsys, "policies", "mine")
    assert "mine: by the option" in printed(capsys, "policies", "mine", "--groups", other)
    monkeypatch.setenv("CLAUDE_PROXY_GROUPS", str(other))
    assert "mine: by the option" in printed(capsys, "policies", "mine")


def test_mistakes_are_told_together(confdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(confdir / "groups.toml", "x = 1\n[network]\ny = 2\n")

    text = refused(capsys, "policies")

    assert text.count("error: unknown key") == 2
    assert f"{confdir / 'groups.toml'}:3:1, network.y" in text


def test_a_name_and_the_list_of_groups_are_two_questions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "--list-groups" in refused(capsys, "policies", "claude", "--list-groups")


# Asking a policy


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("url", "code"),
    [("https://a.test/", 0), ("https://b.a.test/", 1), ("https://api.anthropic.com/", 1)],
)
def test_check_asks_a_policy(capsys: pytest.CaptureFixture[str], url: str, code: int) -> None:
    assert main.main(["check", "--policy", "mine", url]) == code

    assert "  policy mine\n" in capsys.readouterr().out


def test_check_tells_the_policy_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["check", "--policy", "deny", "--json", "https://a.test/"]) == 1

    facts = json.loads(capsys.readouterr().out)
    assert (facts["policy"], "allowlist" in facts) == ("deny", False)


def test_check_asks_one_of_the_two(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    list_ = written(tmp_path / "a.yaml", "allow: []\n")

    text = refused(capsys, "check", "--policy", "deny", "--allowlist", list_, "https://a.test/")

    assert "a policy stands in the place of an allowlist" in text


def test_check_has_no_answer_for_a_policy_without_a_proxy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "it filters nothing" in refused(capsys, "check", "--policy", "open", "https://a.test/")


# Serving


def served(*arguments: str) -> Settings:
    found: list[Settings] = []

    def start(settings: Settings) -> int:
        found.append(settings)
        return 0

    assert main.main(["serve", *arguments], start=start) == 0
    return found[0]


def test_serve_is_told_of_policies_and_of_learning() -> None:
    settings = served("--policy", "mine", "--groups", "g.toml", "--learn", "l.toml")

    assert (settings.policy, settings.groups) == ("mine", Path("g.toml"))
    assert settings.learn == (Learn.EVERYTHING, Path("l.toml"))
    assert served("--learn-deny", "l.toml").learn == (Learn.DENIALS, Path("l.toml"))
    assert (served().policy, served().groups, served().learn) == (None, None, None)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--learn", "a", "--learn-deny", "b"), "--learn, --learn-deny"),
        (("--policy", "claude", "--allowlist", "a.yaml"), "--policy, --allowlist"),
    ],
)
def test_what_excludes_each_other_is_not_served(
    arguments: tuple[str, ...], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refused(capsys, "serve", *arguments)

    assert f"where: {what}\n" in text
    assert "fix:   drop one of them" in text
