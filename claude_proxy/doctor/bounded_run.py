"""Bounded runs of checks and programs: each has a time limit, and its failure is a finding.

A file system that hangs, or a program that waits for input, becomes one error; the other checks
still run.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from claude_proxy.audit.escape import escape_text
from claude_proxy.doctor.finding import Finding, error
from claude_proxy.errors import ClaudeProxyError

CHECK_S = 20.0
_LONGEST_WORD = 200
_MOST_OUTPUT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended; `code` is None if it was killed."""

    code: int | None
    stdout: str
    stderr: str


type CheckFunction = Callable[[], list[Finding]]


def guarded(name: str, check: CheckFunction, *, limit_s: float = CHECK_S) -> list[Finding]:
    """Return the findings of `check`, or one error if it fails or exceeds `limit_s` seconds."""
    found: list[Finding] = []

    def run() -> None:
        try:
            found.extend(check())
        except ClaudeProxyError as problem:
            where = f" ({problem.where})" if problem.where else ""
            found.append(error(name, f"{problem.what}{where}", problem.fix))
        except Exception as problem:  # noqa: BLE001 - the other checks still run
            reason = getattr(problem, "strerror", None) or type(problem).__name__
            found.append(error(name, f"the check failed: {str(reason).lower()}"))

    # A daemon: a thread that hangs in the kernel cannot be ended, and is not waited for.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        return [error(name, f"the check did not end in {limit_s:.0f} s")]
    return found


def run_program(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    limit_s: float,
    cwd: Path | None = None,
    stdin: str = "",
) -> Completed:
    """Run a program in its own process group, for at most `limit_s` seconds.

    The whole group is killed when the program ends. Raises OSError if it cannot be started.
    """
    process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
        list(argv),
        env=dict(environ),
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        try:
            out, err = process.communicate(stdin.encode(), timeout=limit_s)
        except subprocess.TimeoutExpired:
            end_group(process)
            out, err = _rest_of(process)
            return Completed(None, _text(out), _text(err))
        end_group(process)  # processes that it left running
    return Completed(process.returncode, _text(out), _text(err))


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its group, with all processes of the group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _rest_of(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    try:
        return process.communicate(timeout=1)
    except subprocess.TimeoutExpired:
        # A process that left the group still holds the pipes.
        return b"", b""


def _text(data: bytes) -> str:
    return data[:_MOST_OUTPUT].decode("utf-8", "replace")


def words_of(text: str, limit: int = _LONGEST_WORD) -> str:
    """Return the first line that is not empty, escaped and short enough for a table."""
    for line in text.splitlines():
        if said := line.strip():
            shown = escape_text(said[: limit + 1])
            return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."
    return ""


def last_words_of(text: str, limit: int = _LONGEST_WORD) -> str:
    """Return the last line that is not empty, where a program usually reports its failure."""
    return words_of("\n".join(reversed(text.splitlines())), limit)
