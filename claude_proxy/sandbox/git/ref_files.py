"""Refs of a Git directory that a sandbox writes, read as data: loose, packed, HEAD, the stash.

Law kept: the sandbox cannot move its own wall. No program reads them, no symbolic link is followed
on the way, everything is bounded, and what is not valid is left out and named.
"""

import stat
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox.git.no_links import kind_of, names_in, root_of, text_in
from claude_proxy.sandbox.git.ref_names import (
    BRANCHES,
    HEAD,
    NOTES,
    STASH,
    TAGS,
    is_object,
    is_valid,
)

MAX_REFS = 100_000
_MAX_PACKED_BYTES = 64 * 1024 * 1024
_MAX_FILE_BYTES = 4096
_MAX_DEPTH = 40
_MAX_STASHES = 1000
_MAX_LINKS = 5
_PROBLEMS_SHOWN = 5
_BROUGHT = ("refs/heads", "refs/tags", "refs/notes")
# Files by which git knows that an operation has begun and not ended (its wt-status.c).
_OPERATIONS = (
    "rebase-merge",
    "rebase-apply",
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "BISECT_LOG",
)


@dataclass(frozen=True, slots=True)
class Refs:
    """The refs of one Git directory; `head` is the name of a branch, an object, or empty."""

    head: str = ""
    refs: Mapping[str, str] = field(default_factory=dict)  # names and objects
    problems: tuple[str, ...] = ()  # what was left out
    operation: str = ""  # a file that names an operation that has not ended, e.g. a rebase

    @property
    def head_object(self) -> str:
        """The commit that HEAD leads to; empty if there is none yet."""
        return self.head if is_object(self.head) else self.refs.get(self.head, "")


def read_refs(git: Path, worktree: str = "") -> Refs:
    """Return the branches, tags, notes and stashes of a Git directory; OSError if it is none.

    HEAD is that of a linked worktree, if one is named ("worktrees/NAME").
    """
    own = f"{worktree}/" if worktree else ""
    reader = _Reader()
    with root_of(git) as root:
        # Loose first: git packs a ref before it removes the loose one.
        head = text_in(root, f"{own}{HEAD}", _MAX_FILE_BYTES)
        for name in _BROUGHT:
            reader.read_loose(name, root)
        reader.read_one(STASH, root)
        packed = text_in(root, "packed-refs", _MAX_PACKED_BYTES)
        reader.read_packed(packed)
        reader.read_stashes(root)
        operation = next((name for name in _OPERATIONS if kind_of(root, f"{own}{name}")), "")
    found = reader.resolved()
    return Refs(_head_of(head), found, tuple(reader.problems), operation)


def has_head(git: Path, worktree: str) -> bool:
    """Tell whether a linked worktree is still known to a Git directory."""
    with root_of(git) as root:
        return kind_of(root, f"{worktree}/{HEAD}") != 0


def is_untouched(git: Path, start: Path, worktree: str = "") -> bool:
    """Tell whether a Git directory has the refs that it began with, without reading each.

    At the start, all of them are packed.
    """
    own = f"{worktree}/{HEAD}" if worktree else HEAD
    with root_of(git) as root, root_of(start) as before:
        for name in (own, "packed-refs", f"logs/{STASH}"):
            if text_in(root, name, _MAX_PACKED_BYTES) != text_in(before, name, _MAX_PACKED_BYTES):
                return False
        return not (kind_of(root, STASH) or any(_has_files(root, name) for name in _BROUGHT))


def _has_files(root: int, name: str, depth: int = 0) -> bool:
    if kind_of(root, name) == 0:
        return False
    if kind_of(root, name) != stat.S_IFDIR or depth > _MAX_DEPTH:
        return True
    return any(_has_files(root, f"{name}/{entry}", depth + 1) for entry in names_in(root, name))


def _head_of(text: str) -> str:
    text = text.rstrip("\n")
    name = text.removeprefix("ref: ").strip(" ")
    if text.startswith("ref: ") and name.startswith(BRANCHES) and is_valid(name):
        return name
    return text if is_object(text) else ""


class _Reader:
    """Collects the refs of one directory."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._found: dict[str, str] = {}

    def read_loose(self, name: str, root: int, depth: int = 0) -> None:
        """Read the files of a directory below refs, without following links."""
        if depth > _MAX_DEPTH:
            return self._leave_out(name, "is too deep")
        try:
            entries = names_in(root, name)
        except FileNotFoundError:
            return None
        except OSError:
            return self._leave_out(name, "is not a directory")
        for entry in entries:
            below = f"{name}/{entry}"
            if len(self._found) >= MAX_REFS:
                return self._leave_out(below, f"is one more than {MAX_REFS} refs")
            if kind_of(root, below) == stat.S_IFDIR:
                self.read_loose(below, root, depth + 1)
            elif not entry.endswith(".lock"):
                self.read_one(below, root)
        return None

    def read_one(self, name: str, root: int) -> None:
        """Read one file."""
        if not kind_of(root, name):
            return None
        text = text_in(root, name, _MAX_FILE_BYTES).rstrip("\n")
        if not is_valid(name):
            return self._leave_out(name, "is not a valid name of a ref")
        if not (is_object(text) or text.startswith("ref: ")):
            return self._leave_out(name, "is not a ref")
        self._found[name] = text
        return None

    def read_packed(self, text: str) -> None:
        """Read the file of packed refs; loose refs have precedence."""
        for line in text.split("\n"):
            object_, _, name = line.partition(" ")
            if not (is_object(object_) and (name == STASH or _is_brought(name))):
                continue
            if len(self._found) >= MAX_REFS:
                return self._leave_out(name, f"is one more than {MAX_REFS} refs")
            if not is_valid(name):
                self._leave_out(name, "is not a valid name of a ref")
            else:
                self._found.setdefault(name, object_)
        return None

    def read_stashes(self, root: int) -> None:
        """Add older entries of the stash, which only its log names, as refs/stash@1 and so on."""
        if STASH not in self._found:
            return
        text = text_in(root, f"logs/{STASH}", _MAX_PACKED_BYTES)
        entries = [line.split(" ")[1:2] for line in text.split("\n")]
        older = [entry[0] for entry in entries if entry and is_object(entry[0])][-2::-1]
        for number, object_ in enumerate(older[:_MAX_STASHES], start=1):
            self._found[f"{STASH}@{number}"] = object_

    def resolved(self) -> dict[str, str]:
        """Return all refs, symbolic ones with the object that they lead to."""
        found = {}
        for name, text in self._found.items():
            at = text
            for _ in range(_MAX_LINKS):
                at = self._found.get(at.removeprefix("ref: "), "") if at[:5] == "ref: " else at
            if is_object(at):
                found[name] = at
            else:
                self._leave_out(name, "leads nowhere")
        return found

    def _leave_out(self, name: str, why: str) -> None:
        if len(self.problems) < _PROBLEMS_SHOWN:
            self.problems.append(f"{name!a} {why}")


def _is_brought(name: str) -> bool:
    return name.startswith((BRANCHES, TAGS, NOTES))
