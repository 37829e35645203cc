"""Obeyed-file states: a walk of what a run may write, before COMMAND and after, and the difference.

The tree is the agent's work, so no program is started and nothing in a project is opened: names and
the data of inodes suffice. Links are not followed, except that everything behind a link in a
directory of settings counts if it is in the tree as well. Bounded by the number of entries: the
nearest directories come first, dependencies last, and a walk that was cut short says where. What a
walk before COMMAND had left out is judged by the time of the last change to the inode, which no
program can set.
"""

import os
import stat
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox.agent_settings import obeyed_settings
from claude_proxy.sandbox.plan import obeyed_files
from claude_proxy.sandbox.plan.model import WatchedTree

_BEFORE = 36_000  # entries, while the proxy starts
_AFTER = 500_000  # about a second
_IN_ONE_DIRECTORY = 20_000  # so that one full directory does not hide all others
_SETTINGS_LOOKED_AT = 200  # of one repository
_PROGRAMS_OUTSIDE = "programs outside"
_TICK_NS = 20_000_000  # file systems take the time of the last tick of the clock

# What Git, Mercurial, Jujutsu and Sapling obey in the directory that they keep for themselves.
_REPOSITORY_SETTINGS = (
    *("config", "config.worktree", "commondir", "gitdir", "hooks", "info/attributes"),
    *("hgrc", "hgrc-not-shared", "sharedpath", "repo", "repo/config.toml"),
)
_LAYOUT = ({"head", "objects", "refs"}, {"head", "commondir"})  # setup.c: is_git_directory()

type _State = tuple[object, ...]


class _Look(NamedTuple):
    """The state of one file, and the time of the last change to its inode."""

    state: _State
    changed_ns: int
    executable: bool = True  # links are, as far as is known


class Kind(IntEnum):
    """What is obeyed, the most harmful first."""

    REPOSITORY = 0
    LAYOUT = 1  # a directory that is a Git directory itself
    FILE = 2
    SCRIPT = 3  # which an obeyed file starts
    PROGRAM = 4


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that programs outside obey, and its state."""

    kind: Kind
    by: str
    state: _State
    newest_ns: int  # the last change to any inode of it


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one thing that programs outside obey."""

    path: str
    happened: str
    kind: Kind
    by: str


@dataclass(frozen=True, slots=True)
class ObeyedStates:
    """The state of everything obeyed that a walk has found."""

    states: dict[str, Seen] = field(default_factory=dict)
    unvisited: frozenset[str] = frozenset()  # directories that a limit left out
    unreadable: frozenset[str] = frozenset()
    began_ns: int = 0
    scripts: Mapping[Path, Path] = field(default_factory=dict)  # each with the file that names it

    def changed_since(self, before: "ObeyedStates") -> Iterator[Change]:
        """Yield each difference, in alphabetical order."""
        for path in sorted(self.states.keys() | before.states.keys()):
            now, then = self.states.get(path), before.states.get(path)
            if now is None:
                if then is not None and not _is_below(path, self.unvisited):
                    yield Change(path, "removed", then.kind, then.by)
            elif then is None:
                old = now.newest_ns < before.began_ns - _TICK_NS
                if not (old and _is_below(path, before.unvisited)):
                    yield Change(path, "created or changed", now.kind, now.by)
            elif now.state != then.state:
                yield Change(path, "created or changed", now.kind, now.by)

    def not_looked_at(self, before: "ObeyedStates") -> list[str]:
        """Return the directories that are unknown now, the nearest first."""
        unknown = self.unvisited | (self.unreadable - before.unreadable)
        return sorted(unknown, key=lambda path: (path.count("/"), path))


def _is_below(path: str, directories: frozenset[str]) -> bool:
    return bool(directories) and any(str(above) in directories for above in Path(path).parents)


def states_before(
    trees: Sequence[WatchedTree],
    watched: Sequence[Path] = (),
    scripts: Mapping[Path, Path] | None = None,
    limit: int = _BEFORE,
) -> ObeyedStates:
    """Return the states before COMMAND; quick, as the start waits for it: without dependencies.

    `watched` are paths that count whatever their names are.
    """
    return _states(trees, watched, scripts or {}, limit, dependencies=False)


def states_after(
    trees: Sequence[WatchedTree],
    watched: Sequence[Path] = (),
    scripts: Mapping[Path, Path] | None = None,
    limit: int = _AFTER,
) -> ObeyedStates:
    """Return the states after COMMAND, as far as `limit` entries reach."""
    return _states(trees, watched, scripts or {}, limit, dependencies=True)


def _states(
    trees: Sequence[WatchedTree],
    watched: Sequence[Path],
    scripts: Mapping[Path, Path],
    limit: int,
    *,
    dependencies: bool,
) -> ObeyedStates:
    began_ns = time.time_ns()
    roots = tuple(os.path.realpath(tree.path) for tree in trees)
    walk = _Walk(limit, roots, dependencies=dependencies)
    for script, source in scripts.items():
        walk.add_script(str(script), str(source))
    for path in watched:
        walk.add_watched(str(path))
    for tree in trees:
        walk.add(tree)
    walk.go()
    return ObeyedStates(
        walk.states, frozenset(walk.unvisited), frozenset(walk.unreadable), began_ns, scripts
    )


@dataclass(frozen=True, slots=True)
class _Directory:
    path: str
    by: str | None = None  # the tool that obeys everything in it
    data: bool = False  # except for what an agent keeps as data
    dependencies: bool = False  # only repositories count
    programs: str | None = None  # who runs each file in it


class _Walk:
    """One walk, breadth first; it ends whatever circles links make."""

    def __init__(self, limit: int, roots: tuple[str, ...], *, dependencies: bool) -> None:
        self.left = limit
        self._dependencies = dependencies
        self.states: dict[str, Seen] = {}
        self.unvisited: set[str] = set()
        self.unreadable: set[str] = set()
        self._roots = roots
        self._queue: deque[_Directory] = deque()
        self._later: deque[_Directory] = deque()  # dependencies
        self._linked: set[str] = set()
        self._covered: set[str] = set()

    def add(self, tree: WatchedTree) -> None:
        """Take a file or directory to begin at."""
        path = str(tree.path)
        self._covered |= {str(path) for path in tree.covered}
        if os.path.isdir(path):  # noqa: PTH112 - as text throughout: Path objects cost as much again
            by = tree.by if tree.whole else None
            programs = tree.by if tree.programs else None
            self._queue.append(_Directory(path, by, data=tree.whole, programs=programs))
        elif tree.whole:
            self._note_settings(path, tree.by)

    def add_script(self, path: str, source: str) -> None:
        """Take a script, and the obeyed file that names it."""
        self._note(path, Kind.SCRIPT, source)

    def add_watched(self, path: str) -> None:
        """Take something that counts whatever its name is, with everything in it."""
        name = os.path.basename(path)  # noqa: PTH119
        if obeyed_files.is_repository(name):
            self._note_repository(path, Kind.REPOSITORY, obeyed_files.owner_of(name))
            return
        above = os.path.dirname(path)  # noqa: PTH120
        tool = obeyed_files.obeying_all_in(above, name) or obeyed_files.obeying(above, name)
        by = tool.name if tool is not None else _PROGRAMS_OUTSIDE
        self._note(path, Kind.FILE, by)
        if os.path.islink(path):  # noqa: PTH114
            self._follow(path, by)
        elif os.path.isdir(path):  # noqa: PTH112
            self._queue.append(_Directory(path, by))

    def go(self) -> None:
        """Look at directories until there are no more, or the limit is reached."""
        while self.left > 0 and (queue := self._queue or self._later):
            self._look_into(queue.popleft())
        self.unvisited |= {directory.path for directory in (*self._queue, *self._later)}

    def _look_into(self, directory: _Directory) -> None:
        names: set[str] = set()
        share = min(self.left, _IN_ONE_DIRECTORY)
        plain = directory.by is None and directory.programs is None
        try:
            with os.scandir(directory.path) as entries:
                for entry in entries:
                    share -= 1
                    self.left -= 1
                    if share < 0:
                        self.unvisited.add(directory.path)
                        break
                    folded = entry.name.casefold()
                    if obeyed_files.is_noteworthy(folded):
                        names.add(folded)
                        self._take(directory, entry)
                    elif entry.is_dir(follow_symlinks=False) or not plain:
                        self._take(directory, entry)
        except (FileNotFoundError, NotADirectoryError):
            return  # gone meanwhile
        except OSError:
            self.unreadable.add(directory.path)
        if any(layout <= names for layout in _LAYOUT):
            self._note_repository(directory.path, Kind.LAYOUT, "Git")
        if "pyvenv.cfg" in names:
            self._add_environment(directory.path)

    def _take(self, directory: _Directory, entry: os.DirEntry[str]) -> None:
        name, path = entry.name, entry.path
        if path in self._covered:
            return
        if obeyed_files.is_repository(name):
            self._note_repository(path, Kind.REPOSITORY, obeyed_files.owner_of(name))
            return
        if directory.data and obeyed_files.is_data(name):
            return
        if directory.programs is not None and not entry.is_dir(follow_symlinks=False):
            self._note_program(path, directory, name)
        elif directory.dependencies:
            if entry.is_dir(follow_symlinks=False):
                self._leave_for_later(path)
        else:
            self._take_own(directory, entry)

    def _take_own(self, directory: _Directory, entry: os.DirEntry[str]) -> None:
        """Take an entry that is not in a directory of dependencies."""
        name, path = entry.name, entry.path
        by = directory.by
        if by is None and (tool := obeyed_files.obeying_all_in(directory.path, name)) is not None:
            by = tool.name
        if entry.is_dir(follow_symlinks=False):
            self._enter(directory, name, path, by)
        elif by is not None or (tool := obeyed_files.obeying(directory.path, name)) is not None:
            self._note(path, Kind.FILE, by or (tool.name if tool else ""))
            if by is not None and entry.is_symlink():
                self._follow(path, by)

    def _enter(self, directory: _Directory, name: str, path: str, by: str | None) -> None:
        if obeyed_files.holds_dependencies(name):
            self._leave_for_later(path)
            if name.casefold() == "node_modules":
                self._queue.append(_Directory(f"{path}/.bin", programs="npm and npx"))
        elif obeyed_files.holds_checkouts(os.path.basename(directory.path), name):  # noqa: PTH119
            self._queue.append(_Directory(path))
        else:
            self._queue.append(_Directory(path, by))

    def _leave_for_later(self, path: str) -> None:
        if self._dependencies:
            self._later.append(_Directory(path, dependencies=True))
            return
        self.unvisited.add(path)
        if os.path.lexists(f"{path}/pyvenv.cfg"):
            self._add_environment(path)

    def _follow(self, path: str, by: str) -> None:
        """Look into the directory behind a link, if it is in a tree that is looked at anyway."""
        target = os.path.realpath(path)
        inside = any(target == root or target.startswith(f"{root}/") for root in self._roots)
        if inside and target not in self._linked and os.path.isdir(target):  # noqa: PTH112
            self._linked.add(target)
            self._queue.append(_Directory(path, by))

    def _add_environment(self, path: str) -> None:
        """Look at the programs of an environment of Python, and at what it reads at each start."""
        self._queue.append(_Directory(f"{path}/bin", programs="shells and editors"))
        for library in _names_in(f"{path}/lib"):
            packages = f"{path}/lib/{library}/site-packages"
            for name in _names_in(packages):
                self.left -= 1
                if obeyed_files.is_read_by_python(name):
                    self._note(f"{packages}/{name}", Kind.PROGRAM, "Python at each start")

    def _note_settings(self, path: str, by: str) -> None:
        """Note the obeyed parts of a file, or the whole file if they cannot be told apart."""
        parts = obeyed_settings(path)
        look = _look_at(path)
        if parts is None:
            self._note(path, Kind.FILE, by)
        elif look is not None:
            for name, text in parts.items():
                self.states[f"{path}: {name}"] = Seen(Kind.FILE, by, (text,), look.changed_ns)

    def _note_program(self, path: str, directory: _Directory, name: str) -> None:
        look = _look_at(path)
        obeyed = obeyed_files.obeying(directory.path, name) is not None
        if look is not None and (look.executable or obeyed):
            by = directory.programs or ""
            self.states[path] = Seen(Kind.PROGRAM, by, look.state, look.changed_ns)

    def _note_repository(self, path: str, kind: Kind, by: str) -> None:
        """Note what version control obeys in a directory that it keeps for itself."""
        own = _look_at(path)
        if own is None:
            return
        looks = [("", own)]
        for name in _settings_of(path):
            self.left -= 1
            if (look := _look_at(f"{path}/{name}")) is not None:
                looks.append((name, look))
        state = tuple((name, look.state) for name, look in looks)
        self.states[path] = Seen(kind, by, state, max(look.changed_ns for _, look in looks))

    def _note(self, path: str, kind: Kind, by: str) -> None:
        if (look := _look_at(path)) is not None:
            self.states[path] = Seen(kind, by, look.state, look.changed_ns)


def _settings_of(path: str) -> list[str]:
    """Return the names of what is obeyed in a Git directory, and in those of its submodules."""
    names = [*_REPOSITORY_SETTINGS, *(f"hooks/{name}" for name in _names_in(f"{path}/hooks"))]
    modules = deque(f"modules/{name}" for name in _names_in(f"{path}/modules"))
    while modules and len(names) < _SETTINGS_LOOKED_AT:
        module = modules.popleft()
        names += [f"{module}/{name}" for name in ("config", "hooks", "commondir")]
        names += [f"{module}/hooks/{name}" for name in _names_in(f"{path}/{module}/hooks")]
        # The name of a submodule may contain slashes.
        if "HEAD" not in (below := _names_in(f"{path}/{module}")):
            modules.extend(f"{module}/{name}" for name in below)
    return names[:_SETTINGS_LOOKED_AT]


def _names_in(path: str) -> list[str]:
    """Return the names in a directory, or in the one behind a link, in order; bounded."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry, _ in zip(entries, range(5000), strict=False))
    except OSError:
        return []


def _look_at(path: str) -> _Look | None:
    """Look at a file or link, and at the file behind a link; None if there is none."""
    try:
        seen = os.lstat(path)
        state, changed_ns = _state_of(seen)
        if not stat.S_ISLNK(seen.st_mode):
            return _Look(state, changed_ns, bool(seen.st_mode & 0o111))
        behind, behind_ns = _target_of(path)
        state = (*state, os.readlink(path), *behind)  # noqa: PTH115 - as it is written
        return _Look(state, max(changed_ns, behind_ns))
    except OSError:
        return None


def _target_of(path: str) -> tuple[_State, int]:
    """Return the state of the file behind a link; what is in a directory is found by the walk."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return (), 0
    return _state_of(found) if stat.S_ISREG(found.st_mode) else ((), 0)


def _state_of(found: os.stat_result) -> tuple[_State, int]:
    """Return what tells whether a file is the same as before, and when it was last changed."""
    same = (found.st_mode, found.st_dev, found.st_ino)
    if stat.S_ISDIR(found.st_mode):
        return same, 0  # what is in it is looked at by itself
    # The time of the last change to the inode cannot be set, so a file cannot be changed unseen.
    return (*same, found.st_size, found.st_ctime_ns), found.st_ctime_ns
