"""Tests of `claude-proxy lint`."""

import json
from pathlib import Path

import pytest

from claude_proxy.cli.main import main


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(tmp_path / "conf"))
    monkeypatch.setenv("CLAUDE_PROXY_STATEDIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_list_without_faults_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    Path("list.yaml").write_text("allow: [a.example]\n")

    assert main(["lint", "--allowlist", "list.yaml"]) == 0

    printed = capsys.readouterr()
    assert "nothing found" in printed.out
    assert "nothing is recorded yet" in printed.err


def test_findings_have_a_place_and_a_fix(capsys: pytest.CaptureFixture[str]) -> None:
    Path("list.yaml").write_text("allow:\n  - a.example\n  - a.example\n")

    assert main(["lint", "--allowlist", "list.yaml"]) == 1

    printed = capsys.readouterr().out
    assert "list.yaml:3: shadowed: " in printed
    assert "  fix: delete the entry" in printed


def test_json_names_each_finding(capsys: pytest.CaptureFixture[str]) -> None:
    Path("list.yaml").write_text("allow:\n  - a.example\n  - a.example\n  - '*.github.com'\n")

    main(["lint", "--allowlist", "list.yaml", "--json", "--only", "shared-place"])

    facts = json.loads(capsys.readouterr().out)
    assert [each["kind"] for each in facts["findings"]] == ["shared-place"]
    assert facts["note"] is None


def test_a_list_that_is_not_valid_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("list.yaml").write_text("allow: [{}]\n")

    assert main(["lint", "--allowlist", "list.yaml"]) == 2
    assert "list.yaml" in capsys.readouterr().err
