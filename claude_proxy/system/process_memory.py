"""Keeps this process's memory from showing the secrets that are in it.

Law kept: secrets stay outside (9). What a process is started with stays readable for its user and
for root as long as it runs, in /proc/PID/environ, `ps e` and whatever it starts; and one that dies
leaves all that it held in a core dump. Both are ended here.
"""

import ctypes
import os
import posix
import resource
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_OWN_STAT = Path("/proc/self/stat")
_OWN_ENVIRONMENT = Path("/proc/self/environ")
# proc_pid_stat(5): fields 50 and 51, counted behind the name's closing parenthesis.
_ENVIRONMENT_AT = 47
_PR_SET_DUMPABLE = 4
_ONCE = 64  # how often one name may occur in an environment


def scrub_environment(names: Iterable[str]) -> tuple[str, ...]:
    """Take variables out of this process's environment; return those that could still be seen.

    Their values are overwritten where the kernel shows them, and children are not given them.
    """
    wanted = {os.fsencode(name) for name in names if name}
    if not wanted:
        return ()
    _overwrite_initial(wanted)
    for name in wanted:
        _overwrite_current(name)
        os.environ.pop(os.fsdecode(name), None)
        # What `os.environ` was once made from.
        posix.environ.pop(name, None)
    return tuple(sorted(os.fsdecode(name) for name in wanted & _shown()))


def no_core_dumps() -> None:
    """Ensure that this process leaves no core dump, to a file or to a program."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    # The soft limit alone: what this process starts may set its own.
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if sys.platform == "linux":
        # The limit is not heard where the kernel pipes dumps to a program (core(5)). Then nobody
        # but root may look into this process any more, either.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _overwrite_initial(names: set[bytes]) -> None:
    """Overwrite values in the block that the kernel laid down at the start."""
    start, end = _initial_block()
    if start == end:
        return
    at = start
    for entry in ctypes.string_at(start, end - start).split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals and name in names:
            ctypes.memset(at + len(name) + 1, 0, len(value))
        at += len(entry) + 1


def _initial_block() -> tuple[int, int]:
    """Return where the block begins and ends; nowhere, where there is no /proc of this kind."""
    with suppress(OSError, ValueError, IndexError):
        fields = _OWN_STAT.read_bytes().rpartition(b")")[2].split()
        start, end = int(fields[_ENVIRONMENT_AT]), int(fields[_ENVIRONMENT_AT + 1])
        if 0 < start < end:
            return start, end
    return 0, 0


def _overwrite_current(name: bytes) -> None:
    """Overwrite what the C library has: elsewhere if it was set again, and on other systems."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    libc.getenv.argtypes = [ctypes.c_char_p]
    for _ in range(_ONCE):
        found = libc.getenv(name)
        if not found:
            return
        ctypes.memset(found, 0, len(ctypes.string_at(found)))
        os.unsetenv(name)


def _shown() -> set[bytes]:
    """Return the variables that have a value in what the kernel shows."""
    try:
        block = _OWN_ENVIRONMENT.read_bytes()
    except OSError:
        return set()
    entries = (entry.partition(b"=") for entry in block.split(b"\0"))
    return {name for name, _, value in entries if value}
