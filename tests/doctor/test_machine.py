"""The machine is tested by trying, and a missing optional program is ok."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from claude_proxy.config.settings import Settings
from claude_proxy.doctor import machine
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.finding import Level
from claude_proxy.sandbox import host_facts
from claude_proxy.sandbox.plan import requirements

NOBODY = Settings(Path("/a"), Path("/c"), Path("/s"))
LINUX = Subject(NOBODY, {"PATH": "/usr/bin:/bin"}, "linux")
MAC = Subject(NOBODY, {"PATH": "/usr/bin:/bin"}, "darwin")
BWRAP = Path("/usr/bin/bwrap")


def seen(monkeypatch: pytest.MonkeyPatch, **told: object) -> None:
    found = requirements.BwrapSupport(**{"bwrap": BWRAP, "version": (0, 8, 0), **told})  # type: ignore[arg-type]
    monkeypatch.setattr(host_facts, "machine", lambda _: found)


def a_program(directory: Path, name: str, script: str) -> Subject:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Subject(NOBODY, {"PATH": f"{directory}:/usr/bin:/bin"}, "linux")


def test_the_versions_of_python_and_claude_proxy_are_reported() -> None:
    found = machine.check_python(LINUX)

    assert sys.executable in found[1].what


def test_a_sandbox_that_can_be_created_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, settings={"user.max_user_namespaces": "15000", "absent": ""})

    found = machine.check_sandbox(LINUX)

    assert [each.name for each in found] == ["bwrap", "namespaces", "sysctl"]
    assert {each.level for each in found} == {Level.OK}
    assert found[0].what == "0.8.0, /usr/bin/bwrap"


def test_no_bwrap_is_an_error_and_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, bwrap=None, version=(), os_release="ID=debian\n")

    [found] = machine.check_sandbox(LINUX)

    assert (found.name, found.level) == ("bwrap", Level.ERROR)
    assert found.fix == "sudo apt install bubblewrap"


def test_namespaces_that_are_switched_off_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    off = {"kernel.unprivileged_userns_clone": "0"}
    seen(monkeypatch, refusal="bwrap: No permissions", settings=off)

    bwrap, namespaces, sysctl = machine.check_sandbox(LINUX)

    assert (bwrap.level, namespaces.level) == (Level.OK, Level.ERROR)
    assert "sysctl -w kernel.unprivileged_userns_clone=1" in (namespaces.fix or "")
    assert sysctl.what == "kernel.unprivileged_userns_clone=0"


def test_this_machine_is_tried() -> None:
    assert machine.check_sandbox(LINUX)[0].name == "bwrap"


@pytest.mark.parametrize(("path", "level"), [("/", Level.OK), ("/nonexistent", Level.ERROR)])
def test_a_mac_needs_sandbox_exec_alone(
    monkeypatch: pytest.MonkeyPatch, path: str, level: Level
) -> None:
    monkeypatch.setattr(machine, "SANDBOX_EXEC", Path(path))

    [found] = machine.check_sandbox(MAC)

    assert found.level is level
    assert machine.check_seccomp(MAC) == machine.check_terminal(MAC) == []


def test_a_machine_without_a_filter_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    [there] = machine.check_seccomp(LINUX)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="riscv64"))
    [absent] = machine.check_seccomp(LINUX)

    assert there.level is Level.OK
    assert (absent.level, "riscv64" in absent.what) == (Level.ERROR, True)


def test_a_kernel_without_a_filter_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "status").write_text("Name: x\n")
    monkeypatch.setattr(machine, "_STATUS", tmp_path / "status")

    [found] = machine.check_seccomp(LINUX)

    assert found.level is Level.ERROR


@pytest.mark.parametrize(("value", "told"), [("0", "the kernel denies"), ("1", "`run` denies it")])
def test_typing_into_terminals_is_reported_and_never_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str, told: str
) -> None:
    (tmp_path / "tiocsti").write_text(f"{value}\n")
    monkeypatch.setattr(machine, "_TIOCSTI", tmp_path / "tiocsti")

    [found] = machine.check_terminal(LINUX)

    assert found.level is Level.OK
    assert told in found.what


def test_a_missing_optional_program_is_ok() -> None:
    nowhere = Subject(NOBODY, {"PATH": "/nonexistent"}, "linux")

    [claude] = machine.check_claude(nowhere)

    assert claude.level is Level.OK
    assert "not installed" in claude.what


def test_an_installed_program_is_reported_with_its_version(tmp_path: Path) -> None:
    [found] = machine.check_claude(a_program(tmp_path, "claude", "echo '2.1.9 (Claude Code)'"))

    assert found.what == f"2.1.9, {tmp_path}/claude"


@pytest.mark.parametrize("script", ["exit 3", "echo hello", "echo 'it is broken' >&2; exit 1"])
def test_a_program_that_fails_is_a_warning(tmp_path: Path, script: str) -> None:
    [found] = machine.check_claude(a_program(tmp_path, "claude", script))

    assert found.level is Level.WARNING
    assert found.fix == "find out why `claude --version` fails"
