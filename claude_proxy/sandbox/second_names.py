"""Second names of protected files: hard links by which a run could write, or read, them.

Law kept: no quiet downgrade. A mount protects a path, not the file: a file that a run has created
under two names, or linked, can be written by the other name in the next run.
"""

import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan import obeyed_files

_MOST_ENTRIES = 5000
_SHOWN = 5


def refuse_second_names(paths: Iterable[Path]) -> tuple[str, ...]:
    """Refuse protected files with more than one name; return notes on what was not looked at.

    Raises ConfigError. Dependencies are left out: package managers link them with their stores.
    """
    search = _Search()
    found = [path for root in sorted(set(paths)) for path in search.linked_in(root)]
    if found:
        first = shlex.quote(str(found[0]))
        raise ConfigError(
            "a protected file has a second name (a hard link), by which the run could use it",
            where=", ".join(map(str, found[:_SHOWN])) + (", …" if found[_SHOWN:] else ""),
            fix=f"look for the other name (find . -samefile {first}); to separate them: "
            f"cp -p {first} {first}.new && mv {first}.new {first}",
        )
    return tuple(
        f"{path} has too many files to look for second names (hard links) of each"
        for path in search.unfinished
    )


class _Search:
    """A bounded search that follows no link."""

    def __init__(self) -> None:
        self.unfinished: list[Path] = []
        self._left = _MOST_ENTRIES

    def linked_in(self, root: Path) -> Iterator[Path]:
        """Yield files with more than one name: the root, or what is in it."""
        try:
            seen = os.lstat(root)
        except OSError:
            return
        if stat.S_ISREG(seen.st_mode) and seen.st_nlink > 1:
            yield root
        elif stat.S_ISDIR(seen.st_mode) and not obeyed_files.holds_dependencies(root.name):
            yield from self._below(root)

    def _below(self, root: Path) -> Iterator[Path]:
        directories = [str(root)]
        while directories:
            try:
                with os.scandir(directories.pop()) as entries:
                    for entry in entries:
                        self._left -= 1
                        if self._left < 0:
                            self.unfinished.append(root)
                            return
                        if entry.is_dir(follow_symlinks=False):
                            if not obeyed_files.holds_dependencies(entry.name):
                                directories.append(entry.path)
                        elif _is_linked(entry):
                            yield Path(entry.path)
            except OSError:
                continue  # not readable: neither is it inside


def _is_linked(entry: os.DirEntry[str]) -> bool:
    plain = entry.is_file(follow_symlinks=False)
    return plain and entry.stat(follow_symlinks=False).st_nlink > 1
