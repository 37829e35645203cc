"""Process memory protection: removes secrets from the environment, disables core dumps.

Keeps "secrets stay outside". The environment that a process starts with stays readable to its user
and to root, in /proc/PID/environ, in `ps e` and in its child processes. A core dump contains all
of its memory.
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
_MOST_DUPLICATES = 64  # entries of one name in an environment


def scrub_environment(names: Iterable[str]) -> tuple[str, ...]:
    """Remove variables from this process's environment; return those that are still visible.

    Their values are overwritten in the memory that /proc shows, and child processes do not inherit
    them.
    """
    wanted = {os.fsencode(name) for name in names if name}
    if not wanted:
        return ()
    _overwrite_initial(wanted)
    for name in wanted:
        _overwrite_current(name)
        os.environ.pop(os.fsdecode(name), None)
        # The mapping from which `os.environ` was created.
        posix.environ.pop(name, None)
    return tuple(sorted(os.fsdecode(name) for name in wanted & _shown()))


def no_core_dumps() -> None:
    """Disable core dumps of this process; on Linux also make it non-dumpable (prctl(2))."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    # Only the soft limit: child processes may raise it again.
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if sys.platform == "linux":
        # The kernel ignores the limit if it pipes dumps to a program (core(5)). This also makes
        # the process's memory readable by root only.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _overwrite_initial(names: set[bytes]) -> None:
    """Overwrite values in the environment block that the kernel created at the start."""
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
    """Return the start and end address of that block; (0, 0) if /proc does not show them."""
    with suppress(OSError, ValueError, IndexError):
        fields = _OWN_STAT.read_bytes().rpartition(b")")[2].split()
        start, end = int(fields[_ENVIRONMENT_AT]), int(fields[_ENVIRONMENT_AT + 1])
        if 0 < start < end:
            return start, end
    return 0, 0


def _overwrite_current(name: bytes) -> None:
    """Overwrite the C library's copy: a variable set later is elsewhere, as on other systems."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    libc.getenv.argtypes = [ctypes.c_char_p]
    for _ in range(_MOST_DUPLICATES):
        found = libc.getenv(name)
        if not found:
            return
        ctypes.memset(found, 0, len(ctypes.string_at(found)))
        os.unsetenv(name)


def _shown() -> set[bytes]:
    """Return the variables that still have a value in /proc/self/environ."""
    try:
        block = _OWN_ENVIRONMENT.read_bytes()
    except OSError:
        return set()
    entries = (entry.partition(b"=") for entry in block.split(b"\0"))
    return {name for name, _, value in entries if value}
