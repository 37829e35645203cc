"""`config` shows each value with what set it, and finds every mistake in every file."""

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


# check


def checked(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, list[dict[str, str]]]]:
    code = main.main(["config", "check", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["exit"] == code
    return code, {Path(one["file"]).name: one["problems"] for one in facts["files"]}


def test_good_files_are_ok(confdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(confdir / "config.yaml", "audit_days: 9\n")
    write(confdir / "allowlist.yaml", "allow: [{host: a.test}]\n")
    write(confdir / "profiles" / "mine.yaml", "extends: shell\n")

    code, found = checked(capsys)

    assert code == 0
    assert {"config.yaml", "allowlist.yaml", "mine.yaml"} <= set(found)


def test_every_mistake_of_every_file_is_gathered(
    confdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(confdir / "config.yaml", "audit_dayz: 9\naudit_days: 0\n")
    write(confdir / "allowlist.yaml", "allow: [{hst: a.test}]\n")
    write(confdir / "profiles" / "mine.yaml", "nonsense: 1\n")

    code, found = checked(capsys)
    assert code == 2
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
        ("no_upstream_proxy: [localhost]\n", "no upstream proxy"),
        ("gateway: {provider: nobody}\n", "there is no provider"),
        ("gateway: {key_file: a, key_env: B}\n", "given twice"),
        ("serve: {listen: ['0.0.0.0:1']}\n", "could try to use this proxy"),
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
