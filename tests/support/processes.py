"""Whether a process runs, whoever its parent is.

A process whose parent has not asked for its exit code yet stays in /proc as a zombie. What a test
has started through others may become a child of the tests, which never ask.
"""

from pathlib import Path

_ENDED = {"Z", "X"}


def has_ended(pid: int) -> bool:
    """Tell whether a process has ended, even if its parent has not taken note of it yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in _ENDED
