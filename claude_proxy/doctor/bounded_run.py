"""Runs a check or a program so that it ends: in time, and without raising.

A file system that hangs or a program that waits for its terminal must cost a line that says so,
never the other checks.
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
    """How a program ended; `code` is None where it had to be ended."""

    code: int | None
    stdout: str
    stderr: str


type CheckFunction = Callable[[], list[Finding]]


def guarded(name: str, check: CheckFunction, *, limit_s: float = CHECK_S) -> list[Finding]:
    """Return what `check` finds; an error of that name if it fails or does not end."""
    found: list[Finding] = []

    def run() -> None:
        try:
            found.extend(check())
        except ClaudeProxyError as problem:
            where = f" ({problem.where})" if problem.where else ""
            found.append(error(name, f"{problem.what}{where}", problem.fix))
        except Exception as problem:  # noqa: BLE001 - one check must not cost the others
            reason = getattr(problem, "strerror", None) or type(problem).__name__
            found.append(error(name, f"it could not be checked: {str(reason).lower()}"))

    # A daemon: what hangs in the kernel cannot be ended, but need not be waited for either.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        return [error(name, f"it could not be checked: no answer in {limit_s:.0f} s")]
    return found


def run_program(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    limit_s: float,
    cwd: Path | None = None,
    given: str = "",
) -> Completed:
    """Run a program to its end, with a process group of its own that ends with it.

    Raises OSError if it cannot be started at all.
    """
    process = subprocess.Popen(  # noqa: S603 - a list of words, and no shell
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
            out, err = process.communicate(given.encode(), timeout=limit_s)
        except subprocess.TimeoutExpired:
            end_group(process)
            out, err = _rest_of(process)
            return Completed(None, _text(out), _text(err))
        end_group(process)  # what it may have left running
    return Completed(process.returncode, _text(out), _text(err))


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started as leader of a group, and all in the group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _rest_of(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    try:
        return process.communicate(timeout=1)
    except subprocess.TimeoutExpired:
        # Something that left the group still holds the pipes.
        return b"", b""


def _text(data: bytes) -> str:
    return data[:_MOST_OUTPUT].decode("utf-8", "replace")


def words_of(text: str, limit: int = _LONGEST_WORD) -> str:
    """Return the first line that says something, harmless and short enough for a table."""
    for line in text.splitlines():
        if said := line.strip():
            shown = escape_text(said[: limit + 1])
            return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."
    return ""


def last_words_of(text: str, limit: int = _LONGEST_WORD) -> str:
    """Return the last line that says something: where a program that fails says why."""
    return words_of("\n".join(reversed(text.splitlines())), limit)
