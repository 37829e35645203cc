"""First process of a container: which signals the kernel drops, because nothing there takes them.

A first process (PID 1) has no default action: a signal that would end any other process does
nothing to it, unless it has a handler (pid_namespaces(7)). So no CMD without an init that ignores
this can be ended by Ctrl-C. Law kept: only a signal that is certain to be dropped is taken for
one; what CMD handles, waits for or ignores on purpose is its own business.
"""

from pathlib import Path

_MASKS = ("SigCgt", "SigBlk", "SigIgn")  # proc_pid_status(5): caught, blocked, ignored


def drops(pid: int, signal_number: int) -> bool:
    """Tell whether the kernel drops a signal to the process, as the first one of a container."""
    try:
        return would_drop(Path(f"/proc/{pid}/status").read_text("ascii", "replace"), signal_number)
    except (OSError, ValueError):
        return False


def would_drop(status: str, signal_number: int) -> bool:
    """Tell the same from the text of /proc/PID/status; ValueError if it is another text."""
    found = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    numbers = found.get("NSpid", "").split()
    if len(numbers) < 2 or numbers[-1] != "1":  # noqa: PLR2004 - here, and in its own namespace
        return False
    if any(name not in found for name in _MASKS):
        return False
    taken = [int(found[name], 16) for name in _MASKS]
    return not any(mask >> (signal_number - 1) & 1 for mask in taken)
