"""Unix sockets of the host in what a container shows: programs outside would answer there.

A container has no supervisor that judges each connection, as a run has. Law kept: fail closed: a
socket that is named, or that lies in a directory that is named, is refused; those in the project
are covered.
"""

import os
import stat
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError

_MOST_ENTRIES = 20_000


@dataclass(frozen=True, slots=True)
class FoundSockets:
    """The sockets in one directory."""

    paths: tuple[Path, ...]
    complete: bool  # False: there are more entries than were looked at


def refuse_sockets(named: Iterable[tuple[str, Path]]) -> list[Path]:
    """Raise ConfigError if a path that an option names is a socket, or has one in it.

    Returns the directories that are too large to be looked at everywhere.
    """
    too_large = []
    for option, path in named:
        if _is_socket(path):
            raise ConfigError(
                "it is a Unix socket, at which a program outside would answer",
                where=f"{option} {path}",
                fix="leave it out; do what needs it outside of the container",
            )
        found = sockets_in(path)
        if found.paths:
            raise ConfigError(
                f"it contains the Unix socket {found.paths[0]}, at which a program outside answers",
                where=f"{option} {path}",
                fix="name the directories or files in it that are needed",
            )
        if not found.complete:
            too_large.append(path)
    return too_large


def sockets_in(directory: Path) -> FoundSockets:
    """Return the sockets in a directory, the nearest first; links are not followed."""
    found, left, waiting = [], _MOST_ENTRIES, deque([directory])
    while waiting:
        try:
            with os.scandir(waiting.popleft()) as entries:
                for entry in entries:
                    left -= 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    elif not entry.is_file(follow_symlinks=False) and _is_socket(Path(entry.path)):
                        found.append(Path(entry.path))
                    if left == 0:
                        return FoundSockets(tuple(found), complete=False)
        except OSError:
            continue  # no directory, or one that nobody may read
    return FoundSockets(tuple(found), complete=True)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
