"""bwrap holds COMMAND back until it is released, and an early exit of bwrap is an error."""

import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import own_programs
from claude_proxy.sandbox.bubblewrap import seccomp
from claude_proxy.sandbox.bubblewrap.bwrap import Bubblewrap, HeldStart, resets_signals
from claude_proxy.sandbox.plan.model import SandboxPlan
from tests.sandbox.boxes import Box
from tests.support.processes import has_ended

QUIET = (subprocess.DEVNULL, subprocess.PIPE, subprocess.PIPE)

# Names a first process that does not exist, on the descriptor that bwrap's options name.
WRONG_PROCESS = """
at=$(tr '\\0' '\\n' <"/dev/fd/$2" | sed -n '/^--info-fd$/{n;p}')
echo '{"child-pid": 4194304}' >"/dev/fd/$at"
"""


def a_plan(box: Box, script: str) -> SandboxPlan:
    return box.plan(box.spec("/bin/sh", "-c", script))


def test_a_command_starts_when_it_is_released(box: Box) -> None:
    planned = a_plan(box, "echo started")

    with Bubblewrap.start(planned, seccomp.program(), QUIET) as sandbox:
        assert sandbox.alive
        sandbox.release()
        out, _ = sandbox.process.communicate(timeout=60)

    assert out == b"started\n"
    assert not sandbox.alive


def test_a_sandbox_that_is_closed_before_its_release_runs_nothing(box: Box) -> None:
    with Bubblewrap.start(a_plan(box, "touch ran"), seccomp.program(), QUIET):
        pass

    assert list(box.project.iterdir()) == []


def test_a_start_that_is_held_and_never_used_leaves_no_process_and_no_descriptor() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())

    with HeldStart() as held:
        assert held.watchdog.process.poll() is None

    assert held.watchdog.process.returncode == 0
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_a_start_that_was_held_before_is_used_and_left_to_the_sandbox(box: Box) -> None:
    planned = a_plan(box, "echo started")

    with HeldStart() as held:
        with Bubblewrap.start(planned, seccomp.program(), QUIET, held=held) as sandbox:
            assert sandbox.watchdog is held.watchdog
            sandbox.release()
            out, _ = sandbox.process.communicate(timeout=60)
        assert held.watchdog.process.returncode == 0

    assert out == b"started\n"


def test_a_sandbox_that_is_ended_ends_with_all_its_processes(box: Box) -> None:
    planned = a_plan(box, "sleep 600 & echo $!; wait")

    with Bubblewrap.start(planned, seccomp.program(), QUIET) as sandbox:
        sandbox.release()
        assert sandbox.process.stdout is not None
        sandbox.process.stdout.readline()
        command = sandbox.command()
        sandbox.end()

        assert command is not None
        assert has_ended(command)
        assert has_ended(sandbox.init)


@pytest.mark.parametrize("script", ["", WRONG_PROCESS])
def test_a_bwrap_that_exits_immediately_is_an_error(box: Box, tmp_path: Path, script: str) -> None:
    # A script instead of bwrap, which rarely fails so early.
    program = tmp_path / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\nexit 1\n")
    program.chmod(0o755)

    with pytest.raises(ClaudeProxyError, match="bwrap cannot create the sandbox"):
        Bubblewrap.start(replace(a_plan(box, "true"), bwrap=program), seccomp.program())


@pytest.mark.parametrize("fault", ["sys.exit(3)", "sys.stdin.buffer.read(); sys.exit(3)", "]"])
def test_without_a_watchdog_nothing_runs_and_nothing_is_left(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    # The first process inside ignores SIGTERM, and nothing else would end it.
    program = tmp_path / "watchdog.py"
    program.write_text(f"import sys\n{fault}\n")
    words = [sys.executable, str(program)]
    monkeypatch.setattr(own_programs, "words_of", lambda _, *more: [*words, *more])

    with pytest.raises(ClaudeProxyError, match="watchdog of the sandbox did not start"):
        Bubblewrap.start(a_plan(box, "touch ran"), seccomp.program(), QUIET)

    assert not [words for words in command_lines() if "touch ran" in words]
    assert list(box.project.iterdir()) == []


def command_lines() -> list[str]:
    """Return the command line of every process; a process that is gone has none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    return found


def test_a_bwrap_that_cannot_be_started_is_an_error(box: Box, tmp_path: Path) -> None:
    planned = replace(a_plan(box, "true"), bwrap=tmp_path / "missing")

    with pytest.raises(ClaudeProxyError, match="bwrap cannot be started"):
        Bubblewrap.start(planned, seccomp.program())


def test_signals_are_reset_only_if_env_supports_it(box: Box) -> None:
    planned = a_plan(box, "true")

    assert resets_signals(replace(planned, command=("/usr/bin/env", "--default-signal=INT", "sh")))
    assert not resets_signals(replace(planned, command=("sh", "-c", "--default-signal")))
