"""Untold lines of a container: warnings of its keeper that nobody was there to read.

A container in the background has no terminal, so what it changed of files that programs outside
obey is kept until the next command about it, and told there once; its log has it as well. Law kept:
no quiet downgrade: a container that is removed at its end leaves its lines to `list`.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from claude_proxy.sandbox.container import store
from claude_proxy.system.runs import is_name

type Reporter = Callable[[str], None]

_DIRECTORY = ".untold"  # no name of a container begins with a dot
_MOST_BYTES = 64 * 1024  # of one container; the log has the rest


def keep(statedir: Path, name: str, line: str) -> None:
    """Keep a line for the next command about a container; nothing if there is no room."""
    with contextlib.suppress(OSError):
        directory = statedir / store.DIRECTORY / _DIRECTORY
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(directory / name, flags, 0o600)
        with open(descriptor, "ab") as file:  # noqa: PTH123 - the mode is the point
            if os.fstat(descriptor).st_size < _MOST_BYTES:
                file.write(line.replace("\n", " ").encode("utf-8", "replace") + b"\n")


def tell(statedir: Path, name: str, say: Reporter) -> None:
    """Say what is kept of a container, once."""
    path = statedir / store.DIRECTORY / _DIRECTORY / name
    try:
        said = path.read_bytes()
        path.unlink()
    except OSError:
        return
    for line in said.decode("utf-8", "replace").splitlines():
        shown = "".join(char if char.isprintable() else "?" for char in line)
        say(f"{name}: {shown}")


def tell_all(statedir: Path, say: Reporter) -> None:
    """Say what is kept of every container, once."""
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(statedir / store.DIRECTORY / _DIRECTORY)):  # noqa: PTH208 - names
            if is_name(name):
                tell(statedir, name, say)
