"""Installed files are distinguished from others', restored on failure, and removed again."""

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.server.service.installer import (
    FileState,
    Installation,
    Installer,
    InstallRoot,
    installed_files,
    state_of,
    write,
)
from claude_proxy.server.service.plan import Firewall, Scope, ServicePlan
from claude_proxy.server.service.systemd import files_of
from tests.server.service import plans

WORDS = ("service", "install", "--system")
FIREWALLED = replace(plans.SERVE, firewall=Firewall())
ACTIVATED = plans.activated(plans.SERVE)

type Fake = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put programs on the PATH, and none of the machine's own service manager beside them."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))

    def fake(name: str, body: str) -> None:
        noted = f'[ "$1" = is-system-running ] || echo "{name} $*" >> "$CALLS"'
        file = directory / name
        file.write_text(f"#!/bin/sh\n{noted}\n{body}\n")
        file.chmod(0o755)

    return fake


RUNNING = 'case "$*" in *is-system-running) echo degraded; exit 1;; esac'


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[], list[str]]:
    def read() -> list[str]:
        file = tmp_path / "calls"
        return file.read_text().splitlines() if file.exists() else []

    return read


@pytest.fixture
def machine(tmp_path: Path) -> InstallRoot:
    return InstallRoot(tmp_path / "root", tmp_path / "units", 0)


@pytest.fixture
def said() -> list[str]:
    return []


def order_of(plan: ServicePlan, version: str = "1.0", **more: object) -> Installation:
    return replace(Installation(plan, WORDS, version), **more)  # type: ignore[arg-type]


def installer(machine: InstallRoot, said: list[str], scope: Scope = Scope.SYSTEM) -> Installer:
    return Installer(machine, scope, said.append)


def tree(machine: InstallRoot) -> set[str]:
    return {
        f"/{path.relative_to(machine.root)}" for path in machine.root.rglob("*") if path.is_file()
    }


def test_every_file_is_written_completely_and_readable_by_all(
    machine: InstallRoot, said: list[str]
) -> None:
    before = os.umask(0o077)
    try:
        installer(machine, said).install(order_of(FIREWALLED), force=False)
    finally:
        os.umask(before)

    assert tree(machine) == {unit.path for unit in files_of(FIREWALLED)}
    for found in installed_files(machine, FIREWALLED.names, Scope.SYSTEM):
        assert stat.S_IMODE(found.path.stat().st_mode) == 0o644
        assert found.mark is not None
        assert found.mark.words == WORDS


def test_without_systemd_the_commands_to_run_are_printed(
    machine: InstallRoot, said: list[str], programs: Fake, calls: Callable[[], list[str]]
) -> None:
    programs("systemctl", "echo offline; exit 1")

    installer(machine, said).install(order_of(plans.SERVE), force=False)

    assert calls() == []
    assert "systemctl enable --now claude-proxy.service" in said[-1]


def test_where_systemd_runs_the_service_is_enabled_and_started(
    machine: InstallRoot, said: list[str], programs: Fake, calls: Callable[[], list[str]]
) -> None:
    programs("systemctl", RUNNING)
    programs("systemd-sysusers", "")

    installer(machine, said).install(order_of(plans.SERVE), force=False)

    sysusers = machine.root / "etc/sysusers.d/claude-proxy.conf"
    assert calls() == [
        f"systemd-sysusers {sysusers}",
        "systemctl daemon-reload",
        "systemctl enable claude-proxy.service",
        "systemctl restart claude-proxy.service",
    ]


def test_without_sysusers_the_user_is_created_by_useradd(
    machine: InstallRoot, said: list[str], programs: Fake, calls: Callable[[], list[str]]
) -> None:
    programs("systemctl", RUNNING)
    programs("useradd", "")

    installer(machine, said).install(order_of(plans.SERVE), force=False)

    assert calls()[0].startswith("useradd --system --no-create-home")
    assert calls()[0].endswith(" claude-proxy")


def test_without_a_program_that_creates_users_nothing_is_installed(
    machine: InstallRoot, said: list[str], programs: Fake
) -> None:
    programs("systemctl", RUNNING)

    with pytest.raises(ClaudeProxyError, match="no program to create it"):
        installer(machine, said).install(order_of(plans.SERVE), force=False)

    assert tree(machine) == set()


def test_a_users_service_belongs_to_the_users_manager(
    machine: InstallRoot, said: list[str], programs: Fake, calls: Callable[[], list[str]]
) -> None:
    programs("systemctl", RUNNING)
    own = replace(machine, uid=1000)
    state = own.root / "home/state"
    plan = plans.activated(replace(plans.SERVE, scope=Scope.USER))
    order = order_of(plan, directories=(state,))

    installer(own, said, Scope.USER).install(order, force=False)

    assert calls()[-1] == "systemctl --user restart claude-proxy.socket"
    assert {path.name for path in own.user_units.iterdir()} == {
        "claude-proxy.service",
        "claude-proxy.socket",
    }
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


@pytest.mark.parametrize("failing", ["daemon-reload", "enable", "restart"])
def test_a_step_that_fails_undoes_the_earlier_ones(
    failing: str,
    machine: InstallRoot,
    said: list[str],
    programs: Fake,
    calls: Callable[[], list[str]],
) -> None:
    programs(
        "systemctl", f'{RUNNING}\n[ "$1" != {failing} ] || {{ echo no such luck >&2; exit 1; }}'
    )
    programs("systemd-sysusers", "")
    order = order_of(plans.SERVE, initial={"/etc/claude-proxy/allowlist.yaml": "allow: []\n"})

    with pytest.raises(ClaudeProxyError, match="no such luck") as caught:
        installer(machine, said).install(order, force=False)

    assert caught.value.where is not None
    assert failing in caught.value.where
    assert tree(machine) == set()
    assert "systemctl disable --now claude-proxy.service" in calls()


def test_a_failed_upgrade_leaves_the_old_service_as_it_was(
    machine: InstallRoot, said: list[str], programs: Fake, calls: Callable[[], list[str]]
) -> None:
    programs("systemctl", "echo offline")
    installer(machine, said).install(order_of(plans.SERVE), force=False)
    before = {path: (machine.root / path[1:]).read_text() for path in tree(machine)}
    programs("systemctl", f'{RUNNING}\n[ "$1" != restart ] || exit 1')
    programs("systemd-sysusers", "")

    with pytest.raises(ClaudeProxyError, match="exit code 1"):
        installer(machine, said).install(order_of(FIREWALLED, "2.0"), force=False)

    assert {path: (machine.root / path[1:]).read_text() for path in tree(machine)} == before
    assert calls()[-2:] == [
        "systemctl enable claude-proxy.service",
        "systemctl restart claude-proxy.service",
    ]


FOREIGN = "[Service]\nExecStart=/usr/bin/mine\n"


def test_a_foreign_file_is_not_overwritten_without_force(
    machine: InstallRoot, said: list[str]
) -> None:
    unit = machine.root / "etc/systemd/system/claude-proxy.service"
    write(unit, FOREIGN.encode())

    with pytest.raises(ConfigError, match="not written by claude-proxy") as caught:
        installer(machine, said).install(order_of(plans.SERVE), force=False)

    assert caught.value.where == str(unit)
    assert tree(machine) == {"/etc/systemd/system/claude-proxy.service"}
    assert unit.read_text() == FOREIGN
    installer(machine, said).install(order_of(plans.SERVE), force=True)
    assert unit.read_text() != FOREIGN


def test_a_changed_file_is_neither_overwritten_nor_removed_without_force(
    machine: InstallRoot, said: list[str]
) -> None:
    installer(machine, said).install(order_of(plans.SERVE), force=False)
    unit = machine.root / "etc/systemd/system/claude-proxy.service"
    unit.write_text(unit.read_text() + "Nice=5\n")

    with pytest.raises(ConfigError, match="changed since"):
        installer(machine, said).install(order_of(plans.SERVE), force=False)
    with pytest.raises(ConfigError, match="changed since"):
        installer(machine, said).uninstall(plans.SERVE.names, force=False)

    assert installer(machine, said).uninstall(plans.SERVE.names, force=True)
    assert tree(machine) == set()


def test_a_masked_unit_stays_masked(machine: InstallRoot, said: list[str]) -> None:
    unit = machine.root / "etc/systemd/system/claude-proxy.service"
    unit.parent.mkdir(parents=True)
    unit.symlink_to("/dev/null")

    # To overwrite it could not be taken back.
    with pytest.raises(ConfigError, match="not a regular file") as caught:
        installer(machine, said).install(order_of(plans.SERVE), force=True)

    assert "systemctl unmask claude-proxy.service" in str(caught.value.fix)
    assert unit.is_symlink()


def test_the_owners_allowlist_is_written_once_and_kept(
    machine: InstallRoot, said: list[str]
) -> None:
    order = order_of(plans.SERVE, initial={"/etc/claude-proxy/allowlist.yaml": "allow: []\n"})
    installer(machine, said).install(order, force=False)
    file = machine.root / "etc/claude-proxy/allowlist.yaml"
    file.write_text("allow: [mine.test]\n")

    installer(machine, said).install(order, force=False)
    installer(machine, said).uninstall(plans.SERVE.names, force=False)

    assert tree(machine) == {"/etc/claude-proxy/allowlist.yaml"}
    assert "mine.test" in file.read_text()


def test_files_of_an_earlier_installation_are_removed(
    machine: InstallRoot, said: list[str], programs: Fake, calls: Callable[[], list[str]]
) -> None:
    programs("systemctl", RUNNING)
    programs("systemd-sysusers", "")
    programs("nft", "")
    both = plans.activated(FIREWALLED)
    installer(machine, said).install(order_of(both), force=False)
    installer(machine, said).install(order_of(both), force=False)
    assert "systemctl stop claude-proxy.service" in calls()

    installer(machine, said).install(order_of(plans.SERVE), force=False)

    assert tree(machine) == {unit.path for unit in files_of(plans.SERVE)}
    assert "systemctl disable --now claude-proxy.socket" in calls()
    assert "nft delete table inet claude_proxy" in calls()


def test_a_manager_that_cannot_be_run_counts_as_missing(
    machine: InstallRoot, said: list[str], programs: Fake, tmp_path: Path
) -> None:
    programs("systemctl", "")
    (tmp_path / "bin" / "systemctl").write_bytes(b"\x7fELF, but not quite")

    installer(machine, said).install(order_of(plans.SERVE), force=False)

    assert "systemd is not running here" in said[-1]


def test_a_program_that_cannot_be_run_is_a_clear_error(
    machine: InstallRoot, said: list[str], programs: Fake, tmp_path: Path
) -> None:
    programs("systemctl", RUNNING)
    programs("systemd-sysusers", "")
    (tmp_path / "bin" / "systemd-sysusers").write_bytes(b"\x7fELF, but not quite")

    with pytest.raises(ClaudeProxyError, match="could not be run"):
        installer(machine, said).install(order_of(plans.SERVE), force=False)

    assert tree(machine) == set()


def test_uninstalling_stops_it_and_removes_what_was_installed(
    machine: InstallRoot, said: list[str], programs: Fake, calls: Callable[[], list[str]]
) -> None:
    programs("systemctl", RUNNING)
    programs("systemd-sysusers", "")
    programs("nft", "")
    installer(machine, said).install(order_of(plans.activated(FIREWALLED)), force=False)
    done = len(calls())

    assert installer(machine, said).uninstall(plans.SERVE.names, force=False)

    assert calls()[done:] == [
        "systemctl disable --now claude-proxy.service",
        "systemctl disable --now claude-proxy.socket",
        "nft add table inet claude_proxy",
        "nft delete table inet claude_proxy",
        "systemctl daemon-reload",
    ]
    assert tree(machine) == set()
    assert not installer(machine, said).uninstall(plans.SERVE.names, force=False)


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_an_ordinary_user_cannot_change_the_systems_service(
    verb: str, machine: InstallRoot, said: list[str]
) -> None:
    tool = installer(replace(machine, uid=1000), said)
    acts: dict[str, Callable[[], object]] = {
        "install": lambda: tool.install(order_of(plans.SERVE), force=False),
        "uninstall": lambda: tool.uninstall(plans.SERVE.names, force=False),
    }

    with pytest.raises(ConfigError, match=f"only root can {verb}") as caught:
        acts[verb]()

    assert "--user" in str(caught.value.fix)


def test_a_place_that_cannot_be_written_is_a_clear_error(
    machine: InstallRoot, said: list[str]
) -> None:
    machine.root.mkdir()
    (machine.root / "etc").write_text("a file")

    with pytest.raises(ConfigError, match="cannot be used"):
        installer(machine, said).install(order_of(plans.SERVE), force=False)


def test_the_state_of_each_file_is_reported(machine: InstallRoot, said: list[str]) -> None:
    installer(machine, said).install(order_of(plans.SERVE), force=False)
    [unit, users] = installed_files(machine, plans.SERVE.names, Scope.SYSTEM)
    assert unit.mark is not None
    wanted = {unit.path: unit.mark.text}

    assert state_of(unit, wanted) is FileState.CURRENT
    assert state_of(users, wanted) is FileState.STALE
    users.path.write_text(users.path.read_text() + "#\n")
    unit.path.write_text(FOREIGN)
    [unit, users] = installed_files(machine, plans.SERVE.names, Scope.SYSTEM)
    assert state_of(unit, wanted) is FileState.FOREIGN
    assert state_of(users, wanted) is FileState.CHANGED


@pytest.mark.parametrize(("old", "new"), [(plans.SERVE, ACTIVATED), (ACTIVATED, plans.SERVE)])
def test_a_failed_change_of_the_listener_restores_the_old_one(
    machine: InstallRoot,
    programs: Fake,
    calls: Callable[[], list[str]],
    old: ServicePlan,
    new: ServicePlan,
) -> None:
    programs("systemctl", "echo offline")
    installer(machine, []).install(order_of(old), force=False)
    programs("systemctl", f'{RUNNING}\n[ "$1 $2" != "restart {new.unit}" ] || exit 1')
    programs("systemd-sysusers", "")

    with pytest.raises(ClaudeProxyError, match="exit code 1"):
        installer(machine, []).install(order_of(new, "2.0"), force=False)

    assert f"systemctl enable {old.unit}" in calls()
    assert calls()[-1] == f"systemctl restart {old.unit}"
