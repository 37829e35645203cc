"""`check` names the grants that allow what the list denies, and for whom they do."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Say

URL = "https://new.example/"


@pytest.fixture(autouse=True)
def _listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").mkdir(exist_ok=True)
    (tmp_path / "conf" / "allowlist.yaml").write_text("allow: [a.example]\n", "utf-8")
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(tmp_path / "conf"))


def test_a_grant_for_everybody_allows_it(say: Say) -> None:
    say("allow", URL, "--for", "1h")

    code, out, _ = say("check", URL)

    assert code == 0
    assert out.startswith(f"allowed: {URL}")
    assert "  grant 1 allows it for every proxy of this user (until " in out


def test_a_grant_for_some_runs_is_said_and_changes_no_exit_code(say: Say, tmp_path: Path) -> None:
    say("allow", URL, "--uses", "2", "--project", str(tmp_path))

    code, out, _ = say("check", URL)

    assert code == 1
    assert f"  grant 1 allows it for runs in {tmp_path} (left: 2 uses)" in out


def test_an_open_network_is_said(say: Say) -> None:
    say("open", "--for", "10m")

    code, out, _ = say("check", URL)

    assert code == 0
    assert "  grant 1, which opens everything, allows it for every proxy" in out


def test_what_no_grant_allows_stays_denied(say: Say) -> None:
    say("open", "--for", "10m")
    say("allow", "https://other.example/", "--for", "1h")

    assert say("check", "tcp://new.example:5432")[0] == 1
    code, out, _ = say("check", "https://10.0.0.1/")

    assert code == 1
    assert "allows it" not in out


def test_json_has_each_grant_with_its_end(say: Say) -> None:
    say("allow", URL, "--for", "1h")

    found = json.loads(say("check", URL, "--json")[1])

    assert found["allowed"] is True
    assert [(each["number"], each["run"]) for each in found["grants"]] == [(1, None)]
    assert json.loads(say("check", "https://a.example/", "--json")[1])["grants"] == []
