"""Obeyed-file report: the lines at the end of a run that name what it changed; pure.

The names are the agent's work, so whatever could move a terminal's cursor is escaped. The most
harmful comes first, so that many harmless changes do not push it out of sight; programs are named
together, by directory.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePath

from claude_proxy.sandbox.obeyed_states import Change, Kind

_SHOWN = 20  # changes, so that they fit a screen
_NAMES_SHOWN = 5  # programs of one directory, and directories that were not looked at
_LONGEST = 300  # characters of a path: a run may choose thousands
_WHAT = {
    Kind.REPOSITORY: "a repository: its settings can make {} run commands",
    Kind.LAYOUT: "laid out as a repository: {} obeys the settings in it",
    Kind.FILE: "obeyed by {}",
    Kind.SCRIPT: "named in {}",
}


def report(
    changes: Sequence[Change],
    not_looked_at: Sequence[str],
    protected: Collection[str] = (),
    unprotected: Collection[str] = (),
) -> Iterator[str]:
    """Yield the lines about some changes, and about directories that nobody has looked at.

    What is at or below a protected path was changed outside: inside it was read-only, and the guard
    of the mounts says when it was not. `unprotected` are links there to what the run could write.
    """
    kept = [
        change
        for change in changes
        if change.path not in unprotected and _is_in(change.path, protected)
    ]
    if kept:
        names = _listed([change.path for change in kept])
        yield f"note: changed outside while the run went on, and read-only inside: {names}"
    yield from _lines([change for change in changes if change not in kept], not_looked_at)


def _is_in(path: str, directories: Collection[str]) -> bool:
    return path in directories or any(str(above) in directories for above in PurePath(path).parents)


def _lines(changes: Sequence[Change], not_looked_at: Sequence[str]) -> Iterator[str]:
    above = {str(parent) for change in changes for parent in PurePath(change.path).parents}
    single = [
        change
        for change in changes
        if change.kind is not Kind.PROGRAM
        # A directory goes without saying where something in it is named.
        and not (change.kind is Kind.FILE and change.path in above)
    ]
    single.sort(key=lambda change: (change.kind, change.path))
    for change in single[:_SHOWN]:
        yield (
            f"warning: this run {change.happened} {printable(change.path)} "
            f"({_WHAT[change.kind].format(printable(change.by))}); check it before you trust it"
        )
    if left := single[_SHOWN:]:
        yield f"warning: and {len(left)} more such files: {_listed([c.path for c in left])}"
    yield from _programs([change for change in changes if change.kind is Kind.PROGRAM])
    if not_looked_at:
        yield (
            "warning: the project is too large, or not readable, to look for everything that "
            f"programs outside obey; not looked at: {_listed(not_looked_at)}"
        )


def _programs(changes: Sequence[Change]) -> Iterator[str]:
    places: dict[tuple[str, str], list[str]] = {}
    for change in changes:
        directory, name = os.path.split(change.path)
        places.setdefault((directory, change.by), []).append(name)
    for (directory, by), names in sorted(places.items()):
        files = "1 file" if len(names) == 1 else f"{len(names)} files"
        yield (
            f"warning: this run created or changed {files} in {printable(directory)} "
            f"(run by {by}): {_listed(names)}; check before you trust them"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def printable(text: str) -> str:
    """Return text with everything escaped that a terminal could obey, and the middle left out."""
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )
    half = _LONGEST // 2
    return shown if len(shown) <= _LONGEST else f"{shown[:half]}…{shown[-half:]}"
