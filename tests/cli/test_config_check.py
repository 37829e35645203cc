"""`config check` finds every mistake in every file, and a contradiction between two keys."""

import json
from pathlib import Path

import pytest

from claude_proxy.cli import main


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


def checked(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, list[dict[str, str]]]]:
    code = main.main(["config", "check", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["exit"] == code
    return code, {Path(one["file"]).name: one["problems"] for one in facts["files"]}


def test_good_files_are_ok(confdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(confdir / "config.yaml", "audit_days: 9\n")
    write(confdir / "allowlist.yaml", "allow: [{host: a.test}]\n")
    write(confdir / "profiles" / "mine.yaml", "extends: shell\n")
    write(confdir / "policies" / "acme.yaml", "include: [../more.yaml]\n")
    write(confdir / "policies" / "offline.yaml", "network: none\n")
    write(confdir / "presets" / "corp.yaml", "allow: [git.corp.test]\n")
    write(confdir / "more.yaml", "allow: [{preset: corp}]\n")

    code, found = checked(capsys)

    assert code == 0
    assert set(found) == {
        *("config.yaml", "allowlist.yaml", "mine.yaml"),
        *("acme.yaml", "offline.yaml", "corp.yaml"),
    }


def test_every_mistake_of_every_file_is_gathered(
    confdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(confdir / "config.yaml", "audit_dayz: 9\naudit_days: 0\n")
    write(confdir / "allowlist.yaml", "allow: [{hst: a.test}]\n")
    write(confdir / "profiles" / "mine.yaml", "nonsense: 1\n")
    write(confdir / "policies" / "acme.yaml", "include: [gone.yaml]\n")
    write(confdir / "presets" / "corp.yaml", "alow: [git.corp.test]\n")

    code, found = checked(capsys)
    assert code == 2
    assert found["acme.yaml"]
    assert found["corp.yaml"]
    assert len(found["config.yaml"]) == 2
    assert found["allowlist.yaml"]
    assert found["mine.yaml"]
    assert all(one["where"] and one["fix"] for file in found.values() for one in file)

    assert main.main(["config", "check"]) == 2
    text = capsys.readouterr()
    assert text.err.count("claude-proxy: error: ") == sum(map(len, found.values()))
    assert "error  " in text.out


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("quiet: true\nverbose: true\n", "exclude each other"),
        ("policy: nosuch\n", "there is no policy"),
        ("projects: {~/work: nosuch}\n", "there is no policy"),
        ("no_upstream_proxy: [localhost]\n", "no upstream proxy"),
        ("gateway: {provider: nobody}\n", "there is no provider"),
        ("gateway: {key_file: a, key_env: B}\n", "given twice"),
        ("serve: {listen: ['0.0.0.0:1']}\n", "try this proxy"),
    ],
)
def test_what_contradicts_itself_is_a_mistake(
    confdir: Path, capsys: pytest.CaptureFixture[str], text: str, what: str
) -> None:
    write(confdir / "config.yaml", text)

    code, found = checked(capsys)

    assert code == 2
    assert what in found["config.yaml"][0]["what"]


def test_an_older_gateway_yaml_is_checked_too(
    confdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(confdir / "gateway.yaml", "mode: strict\n")
    assert checked(capsys)[1]["gateway.yaml"] == []

    write(confdir / "gateway.yaml", "mode: lax\n")
    code, found = checked(capsys)
    assert code == 2
    assert "gateway.yaml:1:7" in next(one["where"] for file in found.values() for one in file)
