"""A credential that is unavailable or readable by others is reported; its value never is."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.config.settings import Settings
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.credentials import check_credentials
from claude_proxy.doctor.finding import Finding, Level

VALUE = "sk-ant-api03-canary-of-the-doctor"


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    settings = Settings(tmp_path / "allowlist.yaml", tmp_path / "conf", tmp_path / "state")
    return Subject(settings, environ, sys.platform)


def found(subject: Subject, entry: str, **environ: str) -> list[Finding]:
    text = f"allow: [api.anthropic.com]\ncredentials:\n  - {{host: api.anthropic.com, {entry}}}\n"
    subject.settings.allowlist.write_text(text, encoding="utf-8")
    subject.settings.allowlist.chmod(0o600)
    return check_credentials(replace(subject, environ={**subject.environ, **environ}))


def test_without_credentials_nothing_is_reported(subject: Subject) -> None:
    subject.settings.allowlist.write_text("allow: [one.test]\n", encoding="utf-8")

    assert check_credentials(subject) == []


def test_an_available_value_is_ok_and_not_shown(subject: Subject) -> None:
    [one] = found(subject, "name: key, inject: auto, from: {env: KEY}", KEY=VALUE)

    assert (one.level, one.name) == (Level.OK, "credential key")
    assert "variable KEY" in one.what
    assert VALUE not in str(one)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{env: MISSING}", "not set"),
        ("{file: ~/missing}", "cannot be read"),
        ("{systemd: missing}", "service manager"),
        ("{command: [no-such-program-anywhere]}", "not installed"),
    ],
)
def test_a_source_without_a_value_is_an_error_with_a_fix(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    monkeypatch.setenv("HOME", subject.environ["HOME"])

    [one] = found(subject, f"inject: auto, from: {source}")

    assert one.level is Level.ERROR
    assert words in one.what
    assert one.fix


def test_a_key_that_others_can_read_is_an_error(subject: Subject, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(VALUE)
    file.chmod(0o644)

    [one] = found(subject, f"inject: auto, from: {{file: {file}}}")

    assert one.level is Level.ERROR
    assert "0644" in one.what
    assert "chmod 600" in (one.fix or "")
    assert VALUE not in str(one)


def test_a_command_is_looked_for_and_not_run(subject: Subject, tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    [one] = found(subject, f"inject: auto, from: {{command: [touch, {trace}]}}")

    assert one.level is Level.OK
    assert "not run" in one.what
    assert not trace.exists()


def test_a_second_login_in_the_shell_is_a_warning(subject: Subject) -> None:
    one, other = found(
        subject,
        "inject: auto, from: {env: ANTHROPIC_API_KEY}",
        ANTHROPIC_API_KEY=VALUE,
        ANTHROPIC_AUTH_TOKEN="x",
    )

    assert (one.level, other.level) == (Level.OK, Level.WARNING)
    assert "ANTHROPIC_AUTH_TOKEN" in other.what
    assert "ANTHROPIC_API_KEY" not in other.what


def test_pins_are_reported_as_learned_or_given(subject: Subject) -> None:
    [learned] = found(subject, "pin: learn")
    [given] = found(subject, f'pin: "sha256:{"ab" * 16}:{"cd" * 32}"')

    assert "learned" in learned.what
    assert "by hash" in given.what


def test_hosts_that_take_any_account_are_reported_each_time(subject: Subject) -> None:
    subject.settings.allowlist.write_text("allow: [{preset: claude}]\n", encoding="utf-8")
    subject.settings.allowlist.chmod(0o600)

    for _ in range(2):
        [told] = check_credentials(subject)

        assert told.level is Level.OK  # of an ordinary set-up, doctor must not end with 1
        assert "api.anthropic.com, mcp-proxy.anthropic.com" in told.what
        assert "deny: [mcp-proxy.anthropic.com]" in told.what
