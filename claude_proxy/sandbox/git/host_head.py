"""Checked-out branch of the host: moved together with the index, or not at all.

Law kept: nothing is lost on either side. The index is locked as git locks it while the branch and
HEAD move, so a commit or checkout of the host's comes before or after, never between. What is
staged stays staged, or nothing moves.
"""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox.git.host_git import HostGit
from claude_proxy.sandbox.git.ref_names import is_object

_ATTEMPTS = 5
_LOCK_PATIENCE_S = 2.0
_LOCK_PAUSE_S = 0.02

LOCKED = "another git command is using the index"
STAGED = "what is staged there is different from both"
CHANGED = "it was changed at the same moment"


@dataclass(frozen=True, slots=True)
class Head:
    """HEAD of the host: the branch's name or the object, and the commit it leads to."""

    name: str
    object: str


def head_of(git: HostGit) -> Head:
    """Return HEAD as git reads it; empty parts if there is none."""
    symbolic = git.run("symbolic-ref", "-q", "HEAD")
    commit = git.run("rev-parse", "--verify", "-q", "HEAD^{commit}").out.decode().strip()
    name = symbolic.out.decode("utf-8", "surrogateescape").rstrip("\n")
    return Head(name if symbolic.ok else commit, commit)


def is_bare(git: HostGit) -> bool:
    """Tell whether a Git directory has no work tree; that of a linked worktree has one."""
    linked = (git.directory / "commondir").exists()
    return not linked and git.run("rev-parse", "--is-bare-repository").out.startswith(b"true")


def checked_out_elsewhere(git: HostGit) -> dict[str, str]:
    """Return the branches that other worktrees of the repository have checked out, and where."""
    listed = git.run("worktree", "list", "--porcelain").out.decode("utf-8", "surrogateescape")
    own = _work_tree_of(git)
    found = {}
    for number, entry in enumerate(listed.split("\n\n")):
        lines = dict(line.partition(" ")[::2] for line in entry.split("\n"))
        place = lines.get("worktree", "")
        ours = number == 0 if own is None else os.path.realpath(place) == str(own)
        if not (ours or "bare" in lines or "prunable" in lines) and "branch" in lines:
            found[lines["branch"]] = place
    return found


def _work_tree_of(git: HostGit) -> Path | None:
    """Return the work tree of a linked worktree; None for the main one, which is listed first."""
    with suppress(OSError):
        text = (git.directory / "gitdir").read_text("utf-8", "surrogateescape").rstrip("\n")
        return Path(os.path.realpath(git.directory / text)).parent
    return None


def switch(git: HostGit, head: Head, target: Head, message: str) -> str:
    """Make the checked-out branch, the index and HEAD those of `target`; return why not.

    The files of the work tree are not touched: a run that shares it has changed them already.
    """
    index = git.directory / "index"
    if is_bare(git):
        return _move(git, head, target, message)
    for _ in range(_ATTEMPTS):
        before = _state_of(index)
        with tempfile.TemporaryDirectory(prefix="claude-proxy-") as directory:
            fresh = Path(directory, "index")
            if before is not None:
                shutil.copy2(index, fresh)
            merged = _is_merged(git, target)
            if not _read_trees(git, fresh, head.object, target.object) and not (
                merged and git.run("read-tree", "--reset", target.object, index=fresh).ok
            ):
                return STAGED
            answer = _replace(git, fresh, before, lambda: _move(git, head, target, message))
            if merged and not answer:
                _end_merge(git)
        if answer != CHANGED:
            return answer
    return CHANGED


def _is_merged(git: HostGit, target: Head) -> bool:
    """Tell whether the run has finished a merge that the host had begun: the commit includes it."""
    with suppress(OSError):
        other = (git.directory / "MERGE_HEAD").read_text("ascii", "replace").strip()
        return is_object(other) and git.run("merge-base", "--is-ancestor", other, target.object).ok
    return False


def _end_merge(git: HostGit) -> None:
    for name in ("MERGE_HEAD", "MERGE_MSG", "MERGE_MODE", "AUTO_MERGE"):
        (git.directory / name).unlink(missing_ok=True)


def _read_trees(git: HostGit, index: Path, old: str, new: str) -> bool:
    """Carry what is staged from one commit to another, as `git checkout` does; without files."""
    if old:
        return git.run("read-tree", "-i", "-m", old, new, index=index).ok
    staged = git.run("ls-files", "-z", "--cached", index=index)
    return staged.ok and not staged.out and git.run("read-tree", new, index=index).ok


def _move(git: HostGit, head: Head, target: Head, message: str) -> str:
    words: tuple[str, ...]
    if is_object(target.name):
        words = ("update-ref", "--no-deref", "-m", message, "HEAD", target.object, head.object)
    elif target.name == head.name:
        nothing = "0" * len(target.object)
        words = ("update-ref", "-m", message, head.name, target.object, head.object or nothing)
    else:
        words = ("symbolic-ref", "-m", message, "HEAD", target.name)
    answer = git.run(*words)
    return "" if answer.ok else answer.reason


def _replace(
    git: HostGit, fresh: Path, before: os.stat_result | None, move: Callable[[], str]
) -> str:
    """Replace the index while it is locked, if nobody has changed it and `move` succeeds."""
    index = git.directory / "index"
    lock = git.directory / "index.lock"
    if not _create(lock, 0o644 if before is None else stat.S_IMODE(before.st_mode)):
        return LOCKED
    try:
        if _marks(_state_of(index)) != _marks(before):
            problem = CHANGED
        else:
            lock.write_bytes(fresh.read_bytes())
            if before is not None:
                # Git distrusts entries that are as new as the index: it must not look newer.
                os.utime(lock, ns=(before.st_atime_ns, before.st_mtime_ns))
            problem = move()
    except BaseException:
        lock.unlink()
        raise
    if problem:
        lock.unlink()
    else:
        lock.rename(index)
    return problem


def _create(lock: Path, mode: int) -> bool:
    """Take git's lock of the index; false if another git command keeps it."""
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))
        except FileExistsError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOCK_PAUSE_S)
        else:
            return True


def _state_of(index: Path) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return index.stat()
    return None


def _marks(found: os.stat_result | None) -> tuple[int, int, int] | None:
    return None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)
