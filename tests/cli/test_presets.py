"""Laws of `presets`: each is listed, shown as entries that load, and found by its name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.cli.main import main
from claude_proxy.config.allowlist import loader


@pytest.fixture(autouse=True)
def confdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    confdir = tmp_path / "conf"
    (confdir / "presets").mkdir(mode=0o700, parents=True)
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(confdir))
    return confdir


def test_presets_are_listed_with_size_and_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(loader.presets())
    assert [line.split()[0] for line in lines] == [each.name for each in loader.presets()]
    assert "anthropic           1 rules  anthropic.com and its subdomains" in lines


def test_presets_are_listed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--json"]) == 0

    assert {
        "name": "anthropic",
        "description": "anthropic.com and its subdomains",
        "rules": 1,
    } in json.loads(capsys.readouterr().out)


def test_a_preset_is_printed_as_entries_that_load(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "github"]) == 0

    policy = loader.load("allow:\n" + capsys.readouterr().out, name="printed.yaml")
    assert list(policy.hosts()) == list(loader.preset_policy("github").hosts())


def test_a_preset_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "nodejs", "--json"]) == 0

    printed = json.loads(capsys.readouterr().out)
    (rule,) = printed["allow"]
    assert printed["anthropic"] == []
    assert rule["host"] == "nodejs.org"
    assert rule["methods"] == ["GET", "HEAD"]
    assert rule["source"].startswith("preset nodejs:")


def test_a_presets_file_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "claude", "--file"]) == 0

    assert capsys.readouterr().out == loader.preset_text("claude")


def test_an_unknown_preset_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["presets", "gihub"]) == 2

    assert "fix:   did you mean github?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--file"], ["claude", "--file", "--json"]])
def test_file_goes_with_one_preset_alone(arguments: list[str]) -> None:
    assert main(["presets", *arguments]) == 2


def test_what_a_preset_narrows_is_printed_as_entries_that_load(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["presets", "claude"]) == 0

    printed = loader.load("allow:\n" + capsys.readouterr().out, name="printed.yaml")
    [narrowing] = loader.preset_policy("claude").restrictions
    [again] = printed.restrictions
    assert replace(again, source=narrowing.source) == narrowing


def test_what_a_preset_narrows_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "claude-min", "--json"]) == 0

    [narrowing] = json.loads(capsys.readouterr().out)["anthropic"]
    assert narrowing["hosts"] == ["api.anthropic.com"]
    assert "/v1/messages" in narrowing["paths"]
    assert narrowing["mcp_servers"] == "allowlisted"
    assert narrowing["source"].startswith("preset claude-min:")


def test_presets_of_the_owners_are_among_them(
    confdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (confdir / "presets" / "mine.yaml").write_text("description: my hosts\nallow: [m.test]\n")

    assert main(["presets"]) == 0
    assert any(line.startswith("mine  ") for line in capsys.readouterr().out.splitlines())
    assert main(["presets", "mine"]) == 0
    assert capsys.readouterr().out == "- m.test\n"


def test_a_preset_with_the_name_of_a_shipped_one_is_refused(
    confdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (confdir / "presets" / "github.yaml").write_text("allow: [m.test]\n")

    assert main(["presets", "github"]) == 2
    assert "the name of a shipped preset, and of one of yours" in capsys.readouterr().err
