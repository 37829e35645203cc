"""Laws of policies on the command line: what is listed, what is asked, what clashes."""

import json
from pathlib import Path

import pytest

from claude_proxy.cli import main
from claude_proxy.config.settings import Learn, Settings

MINE = """\
description: "my \\u001b[31m policy"
default: allow
profile: claude
allow: [a.test, {preset: gemini}]
deny: [b.a.test, api.anthropic.com]
"""


@pytest.fixture(autouse=True)
def confdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "conf"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(directory))
    return directory


@pytest.fixture
def mine(confdir: Path) -> Path:
    (confdir / "policies").mkdir(mode=0o700)
    return written(confdir / "policies" / "mine.yaml", MINE)


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
        *("allow", "claude", "codex", "deny", "gemini", "lockdown", "open", "shell"),
    ]
    assert lines[5] == "lockdown  none          No network at all"


@pytest.mark.usefixtures("mine")
def test_a_policy_is_shown_with_its_rules(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "policies", "mine")

    assert "  network: proxy, allow\n  profile: claude\n" in text
    assert "  allow https://a.test ports 443 (" in text
    assert "  deny b.a.test (" in text
    assert "  deny api.anthropic.com (" in text


def test_a_policy_without_a_proxy_has_no_rules(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "policies", "open")

    assert "  network: open\n  profile: the one of the command\n" in text
    assert "  allow" not in text


@pytest.mark.usefixtures("mine")
def test_what_a_file_says_does_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "policies")

    assert "mine      proxy, allow  my \\x1b[31m policy\n" in text


@pytest.mark.usefixtures("mine")
def test_policies_are_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    policies = json.loads(printed(capsys, "policies", "--json"))
    one = json.loads(printed(capsys, "policies", "mine", "--json"))
    none = json.loads(printed(capsys, "policies", "lockdown", "--json"))

    assert "mine" in [policy["name"] for policy in policies]
    assert (one["default"], one["profile"], one["network"]) == ("allow", "claude", "proxy")
    assert one["allow"][0]["host"] == "a.test"
    assert none["allow"] == []


def test_mistakes_are_told_together(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(mine, "x: 1\nallow: ['*']\n")

    text = refused(capsys, "policies")

    assert text.count("error: ") == 2
    assert f"where: {mine}:1:1\n" in text


def test_a_groups_file_is_answered_with_the_way_to_convert_it(
    confdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(confdir / "groups.toml", "")

    assert "claude-proxy import bw-claude" in refused(capsys, "policies")


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

    assert "--policy and --allowlist exclude each other" in text


def test_check_has_no_answer_for_a_policy_without_a_proxy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "nothing is filtered" in refused(capsys, "check", "--policy", "open", "https://a.test/")


# Serving


def served(*arguments: str) -> Settings:
    found: list[Settings] = []

    def start(settings: Settings) -> int:
        found.append(settings)
        return 0

    assert main.main(["serve", *arguments], start=start) == 0
    return found[0]


def test_serve_is_told_of_policies_and_of_learning() -> None:
    settings = served("--policy", "mine", "--learn", "l.yaml")

    assert settings.policy == "mine"
    assert settings.learn == (Learn.EVERYTHING, Path("l.yaml"))
    assert served("--learn-deny", "l.yaml").learn == (Learn.DENIALS, Path("l.yaml"))
    assert (served().policy, served().learn) == (None, None)


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
