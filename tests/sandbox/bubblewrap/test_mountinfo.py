"""A sandbox whose mounts do not match its plan is refused before its command runs."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import host_facts
from claude_proxy.sandbox.bubblewrap.mountinfo import mismatches
from claude_proxy.sandbox.plan.model import Mount, MountKind, Profile
from claude_proxy.sandbox.plan.planner import plan_sandbox
from tests.sandbox.boxes import (
    CLAUDE,
    HOME,
    PROJECT,
    SHARED,
    Box,
    a_spec,
    held,
    paths,
    some_facts,
)

type Change = Callable[[Box], None]

VSCODE = PROJECT / ".vscode"
PLANNED = plan_sandbox(a_spec(), some_facts(paths(VSCODE)))


def mounted(*, without: Path | None = None, more: str = "", root: str | None = None) -> str:
    """Return what /proc/PID/mountinfo says of a sandbox that became what was planned."""
    lines = ["1 0 0:1 / / ro - tmpfs", "9 1 0:9 / /dev/null rw - x"]
    for mount in PLANNED.mounts:
        if mount.kind in {"--file", "--symlink"} or mount.at == without:
            continue
        where = root if root is not None and mount.at == VSCODE else str(mount.source or "/")
        lines.append(f"2 1 8:1 {where} {mount.at} rw - ext4")
    return "\n".join([*lines, more])


def test_a_sandbox_that_matches_its_plan_has_no_mismatch() -> None:
    assert mismatches(PLANNED, mounted(), "") == ()


def test_a_missing_mount_is_reported() -> None:
    assert mismatches(PLANNED, mounted(without=VSCODE), "") == (VSCODE,)


def test_a_mount_at_another_path_is_reported() -> None:
    more = f"3 1 8:1 /home/ann/.ssh {HOME}/.ssh ro - ext4"

    assert mismatches(PLANNED, mounted(more=more), "") == (HOME / ".ssh",)


def test_a_directory_that_replaces_a_protected_one_is_reported() -> None:
    assert mismatches(PLANNED, mounted(root="/home/ann/.ssh"), "") == (VSCODE,)


def test_a_host_file_system_below_a_visible_path_is_no_mismatch() -> None:
    more = "3 1 8:2 / /usr/local\\040files ro - ext4"

    assert mismatches(PLANNED, mounted(more=more), more) == ()
    assert mismatches(PLANNED, mounted(more=more), "") == (Path("/usr/local files"),)


def test_a_sandbox_without_mounts_does_not_match_its_plan() -> None:
    assert mismatches(PLANNED, "", "")


def swapped(target: str) -> Change:
    """Return what an agent of another run does between the look and the mount."""

    def swap(box: Box) -> None:
        shutil.rmtree(box.project / ".vscode")
        (box.project / ".vscode").symlink_to(target)

    return swap


CHANGES: dict[str, Change] = {
    "by a relative link to a secret": swapped("../.ssh"),
    "by an absolute link": swapped("/usr"),
    "by a link within the project": swapped("src"),
    "by a link to the project": swapped("."),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_directory_that_is_swapped_after_planning_is_reported(
    box: Box, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    (box.project / ".vscode").mkdir()
    (box.project / "src").mkdir()
    planned = box.plan(box.spec("/bin/true"))
    change(box)

    with held(planned) as pid:
        for patience_s in (0.5, 5, 60):  # on a busy machine the mounts may take their time
            monkeypatch.setattr(host_facts, "_MOUNT_PATIENCE_S", patience_s)
            try:
                host_facts.check_mounts(planned, pid)
            except ClaudeProxyError as error:
                noticed = str(box.project) in (error.where or "")
            else:
                # bwrap itself has noticed, and has ended.
                noticed = not host_facts._mounts_of(str(pid))
            if noticed:
                return

    pytest.fail("nobody has noticed")


@pytest.mark.parametrize("profile", [CLAUDE, SHARED], ids=["kept", "shared"])
def test_real_sandboxes_match_their_plans(box: Box, profile: Profile) -> None:
    subprocess.run(["git", "init", "-q", box.project], check=True)
    (box.project / ".vs code\\").mkdir()
    (box.project / ".env").touch()
    (box.home / ".claude").mkdir()
    (box.home / ".claude.json").touch()
    planned = box.plan(
        box.spec(
            "/bin/true",
            profile=profile,
            show_home=(box.home / "other/file",),
            hide=(".env",),
            read_only=(".vs code\\",),
            allow_ro=(box.home / "other",),
        )
    )

    with held(planned) as pid:
        host_facts.check_mounts(planned, pid)


def test_a_visible_link_may_lead_to_another_visible_path() -> None:
    # As npm has it: a link to a program, in a directory that the command itself lies in.
    link, program = Path("/opt/app/bin/claude"), Path("/opt/app/lib/claude")
    shown = Mount(MountKind.READ, Path("/opt/app"), Path("/opt/app"))
    asked = (Mount(MountKind.READ, program, program), Mount(MountKind.READ, link, program))
    planned = replace(PLANNED, mounts=(*PLANNED.mounts, shown, *asked))
    there = f"3 1 8:1 /opt/app /opt/app ro - ext4\n3 1 8:1 {program} {program} ro - ext4"
    written = replace(
        planned, mounts=(*PLANNED.mounts, replace(shown, kind=MountKind.WRITE), *asked)
    )

    assert mismatches(planned, mounted(more=there), "") == ()
    assert link in mismatches(written, mounted(more=there), "")
    assert link in mismatches(planned, mounted(more=there.splitlines()[0]), "")


def test_a_file_system_mounted_inside_the_project_is_no_mismatch() -> None:
    inside = PROJECT / "mnt" / "data"
    planned = replace(PLANNED, mounts=(*PLANNED.mounts, Mount(MountKind.WRITE, inside, inside)))
    machine = f"1 0 8:1 / / rw - ext4\n3 1 0:50 /volume {PROJECT}/mnt rw - tmpfs"
    there = f"{machine.splitlines()[1]}\n4 1 0:50 /volume/data {inside} rw - tmpfs"
    other = there.replace("/volume/data", "/elsewhere")

    assert mismatches(planned, mounted(more=there), machine) == ()
    assert mismatches(planned, mounted(more=other), machine) == (inside,)
