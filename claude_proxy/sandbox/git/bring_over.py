"""Commits of a run, brought over from a Git directory that it writes into the host's repository.

Law kept: the sandbox cannot move its own wall, and nothing is lost on either side. The run's Git
directory is data: refs are read and objects copied, then git fetches them from a scratch repository
into `refs/claude-proxy/RUN/`, checking each object. Of the host's own refs only those move that
nobody else has moved meanwhile.
"""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import field
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.sandbox.git import host_head, rebases, scratch
from claude_proxy.sandbox.git.host_git import HostGit
from claude_proxy.sandbox.git.host_head import Head
from claude_proxy.sandbox.git.ref_files import Refs, read_refs
from claude_proxy.sandbox.git.ref_moves import Known, Move, move_of
from claude_proxy.sandbox.git.ref_names import (
    BRANCHES,
    HEAD,
    TAGS,
    is_object,
    kept_apart,
    kept_as,
    misleads,
)

_SHA256_LENGTH = 64
_MAX_SINGLE = 200  # refs that are fetched one by one, if all at once fails
_FETCH = (
    "fetch",
    "--quiet",
    "--no-tags",
    "--no-auto-maintenance",
    "--no-write-fetch-head",
    "--no-recurse-submodules",
    "--upload-pack=git-upload-pack",
    "--stdin",
)


@dataclass(frozen=True, slots=True)
class BroughtRef:
    """One ref of the run that differs from what both sides had."""

    name: str
    object: str
    kept_as: str = ""  # the host's ref that keeps it; empty: the host's own has it
    move: Move = Move.KEPT
    problem: str = ""  # why the host's own ref has not moved, or why nothing was fetched

    @property
    def failed(self) -> bool:
        """Whether its objects are not in the host's repository."""
        return not self.kept_as and self.move is not Move.SAME

    @property
    def waits(self) -> bool:
        """Whether the host's own ref does not contain it, so that the user has to decide."""
        moved = self.move in {Move.SAME, Move.CONTAINED} or (self.move.moves and not self.problem)
        return not moved


@dataclass(frozen=True, slots=True)
class BroughtOver:
    """What was brought over: every ref that the run changed, and what went wrong."""

    refs: tuple[BroughtRef, ...] = ()
    known: Known = field(default_factory=Known)  # for the next time
    head: str = ""  # what the host's HEAD has become, if it followed the run's
    head_problem: str = ""  # why the host's HEAD did not follow
    problems: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the host's repository keeps everything that the run committed."""
        return not self.problems and not any(ref.failed for ref in self.refs)

    @property
    def diverged(self) -> tuple[BroughtRef, ...]:
        """Return what is kept beside the host's own refs, for the user to merge."""
        return tuple(ref for ref in self.refs if ref.waits and not ref.failed)


def common_of(git: Path) -> Path:
    """Return the directory that holds the refs and objects of the host's Git directory."""
    try:
        text = (git / "commondir").read_text("utf-8", "surrogateescape").rstrip("\n")
    except OSError:
        return git
    return (git / text).resolve()


def known_of(git: Path, worktree: str = "") -> Known:
    """Return what a copy of this Git directory begins with; call it when the copy is made."""
    found = read_refs(git, worktree)
    return Known(found.head, found.refs, found.refs)


def bring_over(  # noqa: PLR0913 - two repositories, and how they belong together
    private: Path,
    host: Path,
    name: str,
    *,
    known: Known | None = None,
    shares_tree: bool = False,
    only_keep: bool = False,
    ended: bool = True,
    scratch_directory: Path | None = None,
    skip_packs: Collection[str] = (),
    worktree: str = "",
) -> BroughtOver:
    """Bring the commits of the run `name` from its Git directory into the host's.

    `known` is what both had in common (`known_of`); without it every ref counts as changed. With
    `shares_tree` the work tree of both is the same one: the checked-out branch, the index and HEAD
    follow the run's. Without it, the branch that the host has checked out does not move, because
    its files are others. `worktree` names a linked worktree of the run, `worktrees/NAME`, whose
    HEAD counts; `host` is then that worktree's Git directory. While the run has not ended, a
    detached HEAD is not followed. The scratch directory is kept if it is named, so that nothing is
    copied twice. `skip_packs` name those of objects that the host has. With `only_keep`, none of
    the host's own refs moves. Raises nothing: what went wrong is in the result.
    """
    known = known or Known()
    try:
        refs = read_refs(private, worktree)
    except OSError as error:
        reason = f"its Git directory cannot be read: {(error.strerror or '').lower()}"
        return BroughtOver(known=known, problems=(reason,))
    changed = _changed(refs, known)
    if not changed and refs.head == known.head:
        return BroughtOver(known=known, problems=refs.problems)
    directory = scratch_directory or private.parent / f"{private.name}.scratch"
    bringer = _Bringer(host, name, known, shares_tree=shares_tree, skip_packs=skip_packs)
    bringer.only_keep = only_keep
    try:
        return bringer.bring(private, refs, changed, directory, ended=ended)
    except OSError as error:
        reason = f"{error.filename or host}: {(error.strerror or '').lower()}"
        return BroughtOver(known=known, problems=(reason,))
    finally:
        if scratch_directory is None:
            shutil.rmtree(directory, ignore_errors=True)


def _changed(refs: Refs, known: Known) -> dict[str, str]:
    """Return the refs that the run has changed, and a commit that only its HEAD leads to."""
    changed = {
        name: object_ for name, object_ in refs.refs.items() if known.last.get(name) != object_
    }
    if is_object(refs.head) and refs.head != known.head and refs.head not in refs.refs.values():
        changed[HEAD] = refs.head
    return changed


class _Bringer:
    """Brings one run over into one repository."""

    def __init__(
        self,
        host: Path,
        run: str,
        known: Known,
        *,
        shares_tree: bool,
        skip_packs: Collection[str],
    ) -> None:
        self._skip_packs = skip_packs
        self._git = HostGit(host)
        self._common = common_of(host)
        self._run = run
        self._known = known
        self._shares_tree = shares_tree
        self.only_keep = False
        self._message = f"claude-proxy: run {run}"
        self._ours: dict[str, str] = {}
        self._in_use: dict[str, str] = {}  # branches that must not move now, and why
        self._last = dict(known.last)

    def bring(
        self, private: Path, refs: Refs, changed: Mapping[str, str], scratch_: Path, *, ended: bool
    ) -> BroughtOver:
        """Fetch what changed, and move what may follow."""
        if not self._git.run("rev-parse", "--git-dir").ok:
            reason = f"{self._git.directory} is not a Git directory any more"
            return BroughtOver(known=self._known, problems=(reason,))
        if named := self._programs_named():
            reason = f"its settings name a program to fetch with ({named}), so git is not started"
            return BroughtOver(known=self._known, problems=(reason,))
        self._look()
        fetched, problems = self._fetch(private, changed, scratch_)
        if self.only_keep:
            return BroughtOver(tuple(fetched), self._known, problems=(*refs.problems, *problems))
        found = tuple(self._moved(ref) for ref in fetched)
        self._delete_what_the_run_deleted(refs)
        head = _Followed(self._known.head)
        if self._shares_tree and refs.head != self._known.head:
            head = self._follow(refs, ended=ended)
        known = Known(head.known, self._known.start, self._last)
        return BroughtOver(found, known, head.now, head.problem, (*refs.problems, *problems))

    # The host's refs

    def _programs_named(self) -> str:
        """Return a setting by which git could run a program of the repository's while it fetches.

        A repository within the project may be one that an earlier run has made.
        """
        listed = self._git.run("config", "--list", "--name-only", "-z")
        names = listed.out.decode("utf-8", "surrogateescape").lower().split("\0")
        ends = (".uploadpack", ".vcs")
        return next((name for name in names if name[:7] == "remote." and name.endswith(ends)), "")

    def _look(self) -> None:
        answer = self._git.run("for-each-ref", "--format=%(objectname) %(refname)")
        for line in answer.out.decode("utf-8", "surrogateescape").split("\n"):
            object_, _, name = line.partition(" ")
            if name:
                self._ours[name] = object_
        for name, place in host_head.checked_out_elsewhere(self._git).items():
            self._in_use[name] = f"it is checked out in {place}"
        for name in rebases.branches_in(self._common):
            self._in_use[name] = "a rebase of it has not ended"

    def _descends(self, old: str, new: str) -> bool:
        return self._git.run("merge-base", "--is-ancestor", old, new).ok

    # Objects

    def _fetch(
        self, private: Path, changed: Mapping[str, str], directory: Path
    ) -> tuple[list[BroughtRef], tuple[str, ...]]:
        """Fetch what the host's repository does not have under the same name."""
        found = [
            BroughtRef(name, at, move=Move.SAME)
            for name, at in changed.items()
            if self._ours.get(name) == at
        ]
        new = {name: at for name, at in changed.items() if self._ours.get(name) != at}
        if not new:
            return found, ()
        sha256 = any(len(at) == _SHA256_LENGTH for at in new.values())
        filled = scratch.fill(
            private, self._common, directory, sha256=sha256, skip_packs=self._skip_packs
        )
        types = scratch.types_of(HostGit(directory), new.values())
        there = {name: at for name, at in new.items() if _fits(name, types.get(at, ""))}
        damaged = "its object is missing or damaged"
        found += [BroughtRef(name, new[name], problem=damaged) for name in new.keys() - there]
        targets = {kept_as(name, self._run): at for name, at in there.items()}
        self._keep_earlier(HostGit(directory), there)
        if not self._fetch_refs(directory, targets):
            found += [BroughtRef(name, at, kept_as(name, self._run)) for name, at in there.items()]
            return found, filled.problems if damaged in {ref.problem for ref in found} else ()
        for number, (name, at) in enumerate(there.items()):
            found.append(
                self._fetch_one(directory, name, at)
                if number < _MAX_SINGLE
                else BroughtRef(name, at, problem="too many others could not be fetched")
            )
        return found, filled.problems

    def _keep_earlier(self, git: HostGit, new: Mapping[str, str]) -> None:
        """Keep what an earlier run of the same name has left where this one's refs will be.

        `git` is the scratch repository, which has the objects of both.
        """
        for name, at in new.items():
            target = kept_as(name, self._run)
            earlier = self._ours.get(target, at)
            if earlier == at or git.run("merge-base", "--is-ancestor", earlier, at).ok:
                continue
            words = ("for-each-ref", "--count=2", "--format=%(refname)", "--contains", earlier)
            if set(self._git.run(*words).out.decode("utf-8", "surrogateescape").split()) - {target}:
                continue
            apart = kept_apart(name, self._run, earlier)
            self._git.run("update-ref", "-m", self._message, apart, earlier)

    def _fetch_one(self, directory: Path, name: str, at: str) -> BroughtRef:
        reason = ""
        for target in (kept_as(name, self._run), kept_apart(name, self._run, at)):
            reason = self._fetch_refs(directory, {target: at})
            if not reason:
                return BroughtRef(name, at, target)
        return BroughtRef(name, at, problem=reason)

    def _fetch_refs(self, directory: Path, targets: Mapping[str, str]) -> str:
        """Fetch refs of the scratch repository under their own names; return why not."""
        if not targets:
            return ""
        scratch.name_refs(directory, targets)
        lines = "".join(f"+{target}:{target}\n" for target in targets)
        stdin = lines.encode("utf-8", "surrogateescape")
        answer = self._git.run(*_FETCH, "--", str(directory), stdin=stdin)
        return "" if answer.ok else answer.reason

    # Moves

    def _moved(self, ref: BroughtRef) -> BroughtRef:
        """Move the host's ref, if it may follow."""
        if ref.failed:
            return ref
        if ref.move is Move.SAME:
            self._last[ref.name] = ref.object
            return ref
        ours = self._ours.get(ref.name)
        move = move_of(ref.name, ours, ref.object, self._known, self._descends)
        if move is Move.CREATE and misleads(ref.name, self._ours):
            move = Move.KEPT
        problem = self._move(ref.name, ref.object) if move.moves else ""
        if move.moves and not problem:
            self._ours[ref.name] = self._last[ref.name] = ref.object
        return replace(ref, move=move, problem=problem)

    def _move(self, name: str, object_: str) -> str:
        """Make the host's ref lead to an object; return why it does not."""
        if name in self._in_use:
            return self._in_use[name]
        head = host_head.head_of(self._git)
        if head.name == name:
            if self._shares_tree:
                return host_head.switch(self._git, head, Head(name, object_), self._message)
            if not host_head.is_bare(self._git):
                return "it is checked out"
        old = self._ours.get(name) or "0" * len(object_)
        answer = self._git.run("update-ref", "-m", self._message, name, object_, old)
        return "" if answer.ok else answer.reason

    def _delete_what_the_run_deleted(self, refs: Refs) -> None:
        """Delete a branch that this run created and deleted, if it is as the run left it."""
        created = self._known.last.keys() - self._known.start.keys() - refs.refs.keys()
        for name in created:
            used = name in self._in_use or name == host_head.head_of(self._git).name
            if used or not name.startswith((BRANCHES, TAGS)):
                continue
            # A comparison by git: nothing is deleted that somebody has moved.
            self._git.run("update-ref", "-d", name, self._known.last[name])
            del self._last[name]

    def _follow(self, refs: Refs, *, ended: bool) -> "_Followed":
        """Make the host's HEAD what the run's is, if nobody has moved it meanwhile."""
        before = self._known.head
        head = host_head.head_of(self._git)
        if head.name == refs.head:
            return _Followed(refs.head)
        if is_object(refs.head) and not ended:
            return _Followed(before)  # a rebase comes back to its branch
        target = Head(refs.head, refs.head_object)
        problem = self._why_not(head, target, refs) or host_head.switch(
            self._git, head, target, self._message
        )
        return _Followed(before if problem else refs.head, "" if problem else refs.head, problem)

    def _why_not(self, head: Head, target: Head, refs: Refs) -> str:
        """Return why the host's HEAD does not follow; empty if it may."""
        detached = is_object(target.name)
        if detached and refs.operation:
            return f"the run ended in the middle of an operation ({refs.operation})"
        if head.name != self._known.head:
            return f"outside, {head.name or 'nothing'} is checked out"
        if not target.object:
            return "it has no commit"
        if target.name in self._in_use:
            return self._in_use[target.name]
        if not detached and self._ours.get(target.name) != target.object:
            return "outside, it is another commit"
        return ""


@dataclass(frozen=True, slots=True)
class _Followed:
    """What both sides have as HEAD, and how that came."""

    known: str
    now: str = ""  # if the host's has changed
    problem: str = ""


def _fits(name: str, type_: str) -> bool:
    """Tell whether a ref may lead to an object of a type; only tags may lead to any."""
    return type_ == "commit" or (type_ != "" and name.startswith(TAGS))
