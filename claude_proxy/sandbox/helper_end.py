"""End of a helper process in words: its exit code or its signal, and its log if that has any.

Law kept: an error names only what is there. A process that a signal ended has printed nothing, and
the log of a run is removed when it is empty.
"""

import contextlib
import signal
from pathlib import Path

from claude_proxy.errors import ClaudeProxyError

_AGAIN = "start the run again; if it ends the same way, report it as a bug"
_KILLED = (
    "start the run again; if nobody ended the process, see `dmesg`: the kernel kills processes "
    "when memory is short"
)


def words_of(code: int | None) -> str:
    """Return what happened to a process with this `Popen.returncode`; None: it has not ended."""
    if code is None:
        return "neither answered nor ended"
    if code >= 0:
        return f"ended (exit code {code})"
    return f"was killed by signal {-code}{_name_of(-code)}"


def has_said(log: Path) -> bool:
    """Tell whether a log exists and contains anything."""
    with contextlib.suppress(OSError):
        return log.stat().st_size > 0
    return False


def place_of(log: Path, otherwise: str | None = None) -> str | None:
    """Return the path of a log that says something, to be named in an error."""
    return str(log) if has_said(log) else otherwise


def error(what: str, *, code: int | None, log: Path, instead: str = _AGAIN) -> ClaudeProxyError:
    """Return the error for a process that ended too early; `instead` is the fix without a log."""
    if has_said(log):
        return ClaudeProxyError(what, where=str(log), fix="read the log; then start the run again")
    return ClaudeProxyError(what, fix=_KILLED if code is not None and code < 0 else instead)


def _name_of(number: int) -> str:
    with contextlib.suppress(ValueError):
        return f" ({signal.Signals(number).name})"
    return ""  # a real-time signal
