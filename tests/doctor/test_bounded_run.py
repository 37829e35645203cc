"""A check that fails or hangs is one error, and a program that hangs is killed."""

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from claude_proxy.doctor.bounded_run import Completed, guarded, last_words_of, run_program, words_of
from claude_proxy.doctor.finding import Finding, Level, ok
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.run_directory import start_time_of


def test_the_findings_of_a_check_are_returned() -> None:
    assert guarded("a", lambda: [ok("b", "c")]) == [ok("b", "c")]


def test_a_claude_proxy_error_keeps_its_fix() -> None:
    def check() -> list[Finding]:
        raise ClaudeProxyError("it is broken", where="/a", fix="fix it")

    assert guarded("a", check) == [Finding("a", Level.ERROR, "it is broken (/a)", "fix it")]


def test_any_other_error_is_a_line_without_secrets() -> None:
    def check() -> list[Finding]:
        raise ValueError("the password is x")

    [found] = guarded("a", check)

    assert found == Finding("a", Level.ERROR, "the check failed: valueerror")


def test_what_the_system_says_is_shown() -> None:
    [found] = guarded("a", lambda: [ok("b", Path("/nonexistent/x").read_text())])

    assert found.what == "the check failed: no such file or directory"


def test_a_check_that_hangs_is_not_waited_for() -> None:
    never = threading.Event()

    [found] = guarded("a", lambda: [ok("b", str(never.wait()))], limit_s=0.05)

    never.set()
    assert (found.level, found.name) == (Level.ERROR, "a")
    assert "did not end" in found.what


def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    script = f"echo begun; sleep 600 & echo $! > {noted}; wait"

    ran = run_until_noted(["sh", "-c", script], noted)

    assert (ran.code, ran.stdout) == (None, "begun\n")
    assert ended(int(noted.read_text()))


def test_what_a_program_leaves_running_is_ended(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    script = f"sleep 600 </dev/null >/dev/null 2>&1 & echo $! > {noted}"

    assert run_program(["sh", "-c", script], environ=dict(os.environ), limit_s=60).code == 0
    assert ended(int(noted.read_text()))


def test_a_process_that_holds_the_pipes_of_an_ended_program_is_not_waited_for(
    tmp_path: Path,
) -> None:
    noted = tmp_path / "pid"
    script = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        f"    open({str(noted)!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(120)\n"
    )

    ran = run_until_noted([sys.executable, "-c", script], noted)

    os.kill(int(noted.read_text()), signal.SIGKILL)  # it is there still
    assert ran.code is None


def run_until_noted(argv: Sequence[str], noted: Path) -> Completed:
    """Run a program that does not end until its limit; on a busy machine it begins late."""
    tries = (
        run_program(argv, environ=dict(os.environ), limit_s=limit_s) for limit_s in (1.5, 15, 60)
    )
    return next(ran for ran in tries if noted.exists() and noted.read_text())


def ended(pid: int) -> bool:
    for _ in range(600):
        if start_time_of(pid) is None or Path(f"/proc/{pid}/cmdline").read_bytes() == b"":
            return True
        time.sleep(0.05)  # pragma: no cover - as slow as the machine is
    return False  # pragma: no cover


def test_the_words_of_a_program_are_made_harmless_and_short() -> None:
    assert words_of("\n  \x1b[31mred\nmore") == "\\x1b[31mred"
    assert words_of("x" * 500, 20) == "x" * 17 + "..."
    assert words_of("\n\n") == ""
    assert last_words_of("Traceback\n  File\nKeyError: x\n\n") == "KeyError: x"
