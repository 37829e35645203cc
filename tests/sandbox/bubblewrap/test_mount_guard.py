"""Whatever the host does to a protected entry, the sandbox cannot use it, or ends."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from claude_proxy.sandbox import host_facts
from claude_proxy.sandbox.bubblewrap import seccomp
from claude_proxy.sandbox.bubblewrap.bwrap import Bubblewrap
from claude_proxy.sandbox.guard_process import MountGuard, start_mount_guard
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import open_log
from tests.sandbox.boxes import Box
from tests.support.waiting import until

# Does what its standard input says: a line is a script, whose output is one line.
SHELL = 'while read -r line; do eval "$line" 2>&1 | tr "\\n" " "; echo; done'


@dataclass
class Guarded:
    """A sandbox with its guard, and a shell in it."""

    box: Box
    bubblewrap: Bubblewrap
    guard: MountGuard
    lines: list[str] = field(default_factory=list)

    def sh(self, script: str) -> str:
        process = self.bubblewrap.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{script}\n".encode())
        process.stdin.flush()
        return process.stdout.readline().decode().strip()

    def protects(self, name: str) -> bool:
        """Tell whether a file is read-only inside, without opening it."""
        return self.sh(f"test -w {name} && echo writable || echo protected") == "protected"

    def told(self, text: str) -> bool:
        self.guard.tell()
        return any(text in line for line in self.lines)

    def ended(self) -> str:
        """Wait until the guard has ended the sandbox, and return why."""
        until(lambda: self.bubblewrap.has_ended, "the end of the sandbox")
        self.guard.finish()
        assert self.guard.ended is not None
        return self.guard.ended.what


@contextmanager
def guarded(box: Box, **changes: object) -> Iterator[Guarded]:
    plan = box.plan(box.spec("/bin/sh", "-c", SHELL, **changes))
    log = open_log(box.home / "state", "tried")
    pipes = (subprocess.PIPE, subprocess.PIPE, subprocess.DEVNULL)
    with (
        # Its path leaves room for the name of a socket.
        tempfile.TemporaryDirectory(prefix="guard-") as above,
        RunDirectory.make(["tried"], name="tried", above=Path(above) / "run") as run_directory,
        log.file,
        Bubblewrap.start(plan, seccomp.program(), pipes) as bubblewrap,
        start_mount_guard(plan.guarded, bubblewrap.init, run_directory, log) as guard,
    ):
        host_facts.check_mounts(plan, bubblewrap.init)
        found = Guarded(box, bubblewrap, guard)
        guard.say = found.lines.append
        guard.watch()
        bubblewrap.release()
        assert found.sh("echo up") == "up"
        yield found


def by_rename(path: Path) -> None:
    new = path.with_name("new")
    new.write_text("new")
    new.rename(path)


def by_unlink(path: Path) -> None:
    path.unlink()
    path.write_text("new")


def with_a_backup(path: Path) -> None:
    path.rename(path.with_name("backup"))
    path.write_text("new")
    path.with_name("backup").unlink()


def with_a_kept_backup(path: Path) -> None:
    path.rename(path.with_name("backup"))
    path.write_text("new")


WAYS = [by_rename, by_unlink, with_a_backup, with_a_kept_backup]


@pytest.mark.parametrize("replace", WAYS)
def test_a_replaced_file_cannot_be_written_from_inside(
    box: Box, replace: Callable[[Path], None]
) -> None:
    path = box.project / ".envrc"
    path.write_text("old")

    with guarded(box) as found:
        for _ in range(3):
            replace(path)
            until(lambda: found.protects(".envrc"), "protection")
        until(lambda: found.told(".envrc was replaced outside"), "the report")

        assert found.sh("cat .envrc") == "new"
        assert "Read-only" in found.sh("echo evil > .envrc")

    assert path.read_text() == "new"


@pytest.mark.parametrize("replace", WAYS)
def test_a_replaced_file_that_is_hidden_cannot_be_read_inside(
    box: Box, replace: Callable[[Path], None]
) -> None:
    path = box.project / ".env"
    path.write_text("old")

    with guarded(box, hide=(".env",)) as found:
        replace(path)

        until(lambda: found.told("it is hidden again"), "the report")
        assert found.sh("cat .env") == ""


def test_a_directory_that_comes_back_is_protected_again(box: Box) -> None:
    settings = box.project / ".vscode"
    settings.mkdir()

    with guarded(box) as found:
        settings.rename(box.project / "away")
        settings.mkdir()
        (settings / "tasks.json").touch()

        until(lambda: found.protects(".vscode/tasks.json"), "the protection")


def test_what_the_owner_names_is_protected_once_it_appears(box: Box) -> None:
    with guarded(box, read_only=(".mcp.json",)) as found:
        (box.project / ".mcp.json").write_text("{}")

        until(lambda: found.told(".mcp.json appeared"), "the report")
        assert "Read-only" in found.sh("echo evil > .mcp.json")


def test_a_directory_above_is_replaced_and_what_is_in_it_is_protected_again(box: Box) -> None:
    above = box.project / "sub"
    above.mkdir()
    (above / "secret").write_text("old")

    with guarded(box, hide=("sub/secret",)) as found:
        above.rename(box.project / "away")
        above.mkdir()
        (above / "secret").write_text("new")

        until(lambda: found.told("sub/secret was replaced"), "the report")
        assert found.sh("cat sub/secret") == ""
        assert "busy" in found.sh("mv sub other")


def test_the_mounts_of_the_start_stop_nothing(box: Box) -> None:
    (box.project / ".envrc").write_text("old")

    with guarded(box) as found:
        for _ in range(20):  # it would be in the first milliseconds
            found.sh("true")

        assert found.guard.generation.value == 0


def test_what_was_suspended_inside_stays_so_and_the_rest_goes_on(box: Box) -> None:
    path = box.project / ".envrc"
    path.write_text("old")

    with guarded(box) as found:
        found.sh("sleep 1000 > /dev/null 2>&1 & echo $! > pid")
        found.sh("kill -STOP $(cat pid)")
        until(lambda: found.sh("cut -d ' ' -f 3 /proc/$(cat pid)/stat") == "T", "the suspension")
        by_rename(path)
        until(lambda: found.told(".envrc was replaced"), "the report")

        state = found.sh("cut -d ' ' -f 3 /proc/$(cat pid)/stat")

        assert state == "T"


def test_a_link_that_replaces_a_file_ends_the_run(box: Box) -> None:
    path = box.project / ".envrc"
    path.write_text("old")

    with guarded(box) as found:
        path.unlink()
        path.symlink_to("other")

        assert "symbolic link" in found.ended()


# It can be signalled, but /proc does not show it.
STOPPER = "$(for i in 2 3 4 5 6 7; do kill -0 $i && [ ! -d /proc/$i ] && echo $i; done 2>/dev/null)"


@pytest.mark.parametrize("number", ["KILL", "STOP"])
def test_a_process_that_stops_the_stopper_ends_the_run(box: Box, number: str) -> None:
    (box.project / ".envrc").write_text("old")

    with guarded(box) as found:
        process = found.bubblewrap.process
        assert process.stdin is not None
        process.stdin.write(f"kill -{number} {STOPPER}\n".encode())
        process.stdin.flush()

        assert "interfered" in found.ended()


@pytest.mark.parametrize(
    "command",
    [f"renice 19 {STOPPER}", f"taskset -p 1 {STOPPER}", f"ls /proc/{STOPPER}/"],
)
def test_a_process_inside_cannot_slow_the_stopper_down_nor_look_into_it(
    box: Box, command: str
) -> None:
    (box.project / ".envrc").write_text("old")

    with guarded(box) as found:
        said = found.sh(command)
        assert any(
            text in said for text in ("ermission denied", "not permitted", "No such file")
        ), said


def test_very_many_other_entries_do_not_hide_the_one_that_counts(box: Box) -> None:
    path = box.project / ".envrc"
    path.write_text("old")

    with guarded(box) as found:
        found.sh("(while :; do : > x; rm x; done) > /dev/null 2>&1 & echo")
        with_a_kept_backup(path)

        until(lambda: found.told(".envrc was replaced"), "the report")
        assert "Read-only" in found.sh("echo evil > .envrc")


def test_a_sandbox_that_ends_ends_its_guard_without_an_error(box: Box) -> None:
    (box.project / ".envrc").write_text("old")

    with guarded(box) as found:
        assert found.bubblewrap.process.stdin is not None
        found.bubblewrap.process.stdin.close()
        until(lambda: found.bubblewrap.has_ended, "the end")
        found.guard.finish()

        assert found.guard.ended is None
        assert found.lines == []
    assert (box.home / "state" / "runs" / "tried.log").read_text() == ""
