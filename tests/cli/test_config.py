"""`config show` prints each value with what set it, and no secret."""

import json
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.cli import main

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def confdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".config" / "claude-proxy"
    path.mkdir(parents=True, mode=0o700)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True, mode=0o700)
    path.write_text(text, "utf-8")
    path.chmod(0o600)
    return path


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, tuple[str, str]]:
    """Return what `config show` prints: value and origin by key."""
    assert main.main(["config", "show", "--json", *words]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return {one["key"]: (one["value"], one["origin"]) for one in facts["values"]}


def test_each_value_is_shown_with_what_set_it(
    confdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(confdir / "config.yaml", "# first\naudit_days: 9\nserve: {workers: 2}\n")
    monkeypatch.setenv("CLAUDE_PROXY_GRACE", "3")

    found = shown(capsys, "serve", "--", "--port", "9052")

    assert found["serve.port"] == ("9052", "--port")
    assert found["grace"] == ("3s", "CLAUDE_PROXY_GRACE")
    assert found["audit_days"] == ("9", f"{path}:2")
    assert found["serve.workers"] == ("2", f"{path}:3")
    assert found["audit_size"] == ("256M", "default")
    assert found["confdir"] == (str(confdir), "default")


def test_what_an_option_makes_void_is_not_in_force(
    confdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(confdir / "config.yaml", "quiet: true\n")

    found = shown(capsys, "serve", "--", "--verbose")

    assert found["quiet"] == ("false", "default")
    assert found["verbose"] == ("true", "--verbose")


def test_the_gateways_variables_and_dotenv_are_sources(
    confdir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(confdir / "config.yaml", "gateway: {mode: strict, model: [a=b], port: 1}\n")
    write(tmp_path / ".env", "PROXY_HOST=127.0.0.2\n")
    monkeypatch.setenv("PROXY_PORT", "9010")

    found = shown(capsys, "gateway")

    assert found["gateway.mode"] == ("strict", f"{path}:1")
    assert found["gateway.model"] == ("a=b", f"{path}:1")
    assert found["gateway.port"] == ("9010", "PROXY_PORT")
    assert found["gateway.host"] == ("127.0.0.2", f"PROXY_HOST in {tmp_path / '.env'}")


def test_no_secret_is_shown(
    confdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(confdir / "config.yaml", f"upstream_proxy: http://me:{SECRET}@proxy.test:3128\n")
    monkeypatch.setenv("CLAUDE_PROXY_AUTH", f"me:{SECRET}")
    monkeypatch.setenv("PROXY_API_KEY", SECRET)
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)

    for words in (["--json"], []):
        assert main.main(["config", "show", *words]) == 0
        text = capsys.readouterr().out
        assert SECRET not in text
        assert "http://proxy.test:3128 (with a password)" in text
        assert "CLAUDE_PROXY_AUTH" in text


def test_every_key_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    from claude_proxy.config.option_table import FIELDS  # noqa: PLC0415

    assert main.main(["config", "show"]) == 0

    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert sorted(lines) == sorted(["confdir", *(one.key for one in FIELDS if one.in_file)])


def test_only_what_is_set_can_be_shown(confdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(confdir / "config.yaml", "audit_days: 9\nprojects: {~/work: lockdown}\n")

    assert main.main(["config", "show", "--set"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["audit_days", "9", "config.yaml:1"],
        [f"projects.{Path.home() / 'work'}", "lockdown", "config.yaml"],
    ]


def test_a_bad_file_is_an_error_to_show(confdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(confdir / "config.yaml", "audit_dayz: 9\n")

    assert main.main(["config", "show"]) == 2
    assert "did you mean audit_days?" in capsys.readouterr().err
