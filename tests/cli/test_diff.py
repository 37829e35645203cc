"""Tests of `claude-proxy diff`."""

import io
import json
from pathlib import Path

import pytest

from claude_proxy.cli.main import main


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(tmp_path / "conf"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def test_a_policy_opens_nothing_beyond_itself(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["diff", "shipped", "allowlist"])

    assert code == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["opens nothing"]


def test_what_a_file_opens_and_closes_is_shown_as_rules(
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = written("old.yaml", "allow: [{host: a.example, methods: [GET]}, b.example]\n")
    new = written("new.yaml", "allow: [a.example]\n")

    code = main(["diff", old, new])

    assert code == 1
    assert capsys.readouterr().out.splitlines() == [
        "old.yaml -> new.yaml",
        "opens:",
        "  every method but GET of every path on https://a.example",
        "closes:",
        "  every request to https://b.example",
    ]


def test_one_of_the_two_may_be_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = written("new.yaml", "allow: [a.example]\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"allow: []\n")))

    assert main(["diff", "-", new]) == 1
    assert "every request to https://a.example" in capsys.readouterr().out
    assert main(["diff", "-", "-"]) == 2


def test_where_no_proxy_runs_there_is_nothing_to_compare_with(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    new = written("new.yaml", "allow: [a.example]\n")

    assert main(["diff", "running:no-such-proxy", new]) != 0
    assert 'no proxy called "no-such-proxy" runs' in capsys.readouterr().err


def test_json_has_every_value_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    new = written("new.yaml", 'allow: [{host: "*.a.example", methods: [GET], paths: ["/v1/*"]}]\n')

    main(["diff", "deny", new, "--json"])

    facts = json.loads(capsys.readouterr().out)
    [found] = facts["opens"]
    assert facts["closes"] == facts["asks"] == []
    assert (found["host"], found["methods"]) == ("*.a.example", ["GET"])
    assert found["places"] == [{"scheme": "https", "ports": [443], "except_ports": []}]
    assert [part["match"] for part in found["paths"]] == [["/v1/*"]]


def test_an_unfiltered_network_opens_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "lockdown", "open"]) == 1
    assert "nothing is filtered or recorded" in capsys.readouterr().out
    assert main(["diff", "open", "lockdown"]) == 0
    assert main(["diff", "open", "open"]) == 0


def test_a_policy_that_does_not_exist_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "nope", "deny"]) == 2
    assert "OLD" in capsys.readouterr().err
    assert main(["diff", "deny", "./nope.yaml"]) == 2
    assert "nope.yaml" in capsys.readouterr().err
