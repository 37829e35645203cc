"""Agent file states: a walk of what a run may write, before COMMAND and after, and the difference.

Bounded: a project of any size delays the start by some hundredths of a second. The nearest
directories come first, and a walk that was cut short says so.
"""

import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from claude_proxy.sandbox.plan import obeyed_files
from claude_proxy.sandbox.plan.model import WatchedTree

_MOST_ENTRIES = 30_000  # about 50 ms on a local disk

type _State = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class AgentFileStates:
    """The state of each agent file that a walk has found."""

    states: dict[str, _State] = field(default_factory=dict)
    unvisited: frozenset[str] = frozenset()  # directories that the limit left out

    @property
    def complete(self) -> bool:
        """Whether the walk saw everything."""
        return not self.unvisited

    def changed_since(self, before: "AgentFileStates") -> Iterator[tuple[Path, str]]:
        """Yield each file that differs, and what happened to it, in alphabetical order."""
        for path in sorted(self.states.keys() | before.states.keys()):
            now, then = self.states.get(path), before.states.get(path)
            if now == then:
                continue
            if now is None and not self._left_out(path):
                yield Path(path), "removed"
            elif now is not None and (then is not None or not before._left_out(path)):  # noqa: SLF001 - of the same class
                yield Path(path), "created or changed"

    def _left_out(self, path: str) -> bool:
        return any(str(above) in self.unvisited for above in Path(path).parents)


@dataclass(frozen=True, slots=True)
class _Directory:
    path: str
    obeyed: bool  # everything in it
    data: bool = False  # except for what an agent keeps as data


def states_in(trees: Sequence[WatchedTree], limit: int = _MOST_ENTRIES) -> AgentFileStates:
    """Return the states of all agent files in some trees, as far as `limit` entries reach."""
    walk = _Walk(limit)
    for tree in trees:
        walk.add(str(tree.path), obeyed=tree.whole)
    walk.go()
    return AgentFileStates(walk.states, frozenset(walk.unvisited))


class _Walk:
    """One walk, breadth first; it ends whatever circles links make."""

    def __init__(self, limit: int) -> None:
        self.left = limit
        self.states: dict[str, _State] = {}
        self.unvisited: set[str] = set()
        self._queue: deque[_Directory] = deque()
        self._seen: set[tuple[int, int, bool]] = set()

    def add(self, path: str, *, obeyed: bool) -> None:
        """Take a file or directory to begin at."""
        if os.path.isdir(path):  # noqa: PTH112 - as text throughout: Path objects cost as much again
            self._queue.append(_Directory(path, obeyed, data=obeyed))
        elif obeyed:
            self._note(path)

    def go(self) -> None:
        """Look at directories until there are no more, or the limit is reached."""
        while self._queue and self.left > 0:
            self._look_into(self._queue.popleft())
        self.unvisited |= {directory.path for directory in self._queue}

    def _look_into(self, directory: _Directory) -> None:
        try:
            found = os.stat(directory.path)  # noqa: PTH116
            # Both ways, as a link from .claude may lead to a directory that is an ordinary one.
            place = (found.st_dev, found.st_ino, directory.obeyed)
            if place in self._seen:
                return
            self._seen.add(place)
            with os.scandir(directory.path) as entries:
                for entry in entries:
                    self.left -= 1
                    if self.left <= 0:
                        self.unvisited.add(directory.path)
                        return
                    self._take(directory, entry)
        except OSError:
            return  # gone meanwhile, or not readable: then its programs cannot obey it either

    def _take(self, directory: _Directory, entry: os.DirEntry[str]) -> None:
        name = entry.name
        if directory.data and obeyed_files.is_data(name):
            return
        obeyed = directory.obeyed or obeyed_files.obeying_all_in(directory.path, name) is not None
        # A link to a directory is followed only where everything is obeyed: elsewhere it would lead
        # out of the project.
        if entry.is_dir(follow_symlinks=obeyed):
            if obeyed and entry.is_symlink():
                self._note(entry.path)
            if obeyed_files.holds_dependencies(name) or obeyed_files.is_repository(name):
                return
            if obeyed_files.holds_checkouts(os.path.basename(directory.path), name):  # noqa: PTH119
                obeyed = False
            self._queue.append(_Directory(entry.path, obeyed))
        elif obeyed or obeyed_files.obeying(directory.path, name) is not None:
            self._note(entry.path)

    def _note(self, path: str) -> None:
        try:
            seen = os.lstat(path)
            state: _State = _state_of(seen)
            if stat.S_ISLNK(seen.st_mode):
                state = (*state, os.readlink(path), *_target_of(path))  # noqa: PTH115
        except OSError:
            return
        self.states[path] = state


def _target_of(path: str) -> _State:
    """Return the state of the file behind a link; what is in a directory is found by the walk."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return ()
    return _state_of(found) if stat.S_ISREG(found.st_mode) else ()


def _state_of(found: os.stat_result) -> _State:
    # The time of the last change to the inode cannot be set, so a file cannot be changed unseen.
    return found.st_mode, found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns
