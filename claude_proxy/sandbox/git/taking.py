"""Taking of a clone: its branches come into the project's repository, and forward where they may.

Laws kept: the sandbox cannot move its own wall: the clone is data, and no hook or filter runs.
Nothing is lost on either side: every commit is kept in `refs/claude-proxy/NAME/`, the user's files
change only where they have no work of their own, and the clone stays as it is.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.git import clones, given_back, ref_files, review
from claude_proxy.sandbox.git.bring_over import BroughtOver, BroughtRef, bring_over, common_of
from claude_proxy.sandbox.git.clones import Clone
from claude_proxy.sandbox.git.ref_moves import Known
from claude_proxy.sandbox.git.ref_names import BRANCHES
from claude_proxy.sandbox.git.user_git import UserGit, user_git

_NO_FILTER = frozenset({b"unspecified", b"unset", b"set"})


@dataclass(frozen=True, slots=True)
class Taken:
    """What came over; `brought` has one entry for each ref that the clone changed."""

    brought: BroughtOver
    checked_out: str = ""  # the branch whose files in the project have changed

    @property
    def complete(self) -> bool:
        """Whether every branch of the project has what the clone's has."""
        return self.brought.complete and not self.brought.diverged


def take(clone: Clone, environ: Mapping[str, str], branch: str | None = None) -> Taken:
    """Bring the branches of a clone over, or one of them; ClaudeProxyError if it cannot be done.

    The branch that the project has checked out goes forward with its files, if nothing in the way
    has uncommitted work.
    """
    project = Path(clone.record.project)
    host = review.host_of(clone, environ)
    if host is None:
        raise ClaudeProxyError(
            "the repository of the project is gone",
            where=clone.record.project,
            fix="move it back, or make a symbolic link there that leads to where it is now",
        )
    git = user_git(project, environ)
    refs = _refs_of(clone)
    if branch is not None and BRANCHES + branch not in refs:
        raise ClaudeProxyError(
            f"the clone has no branch {branch!r}",
            where="--branch",
            fix="name one of " + ", ".join(_short(name) for name in refs if _is_branch(name)),
        )
    known = _known(clone, refs, None if branch is None else BRANCHES + branch)
    with clones.read_alone(clone):
        brought = _bring(clone, host, known, clone.record.packs)
        if any(ref.failed for ref in brought.refs):
            review.forget_copies(clone)
            brought = _bring(clone, host, known, ())
        taken = _forward_checked_out(Taken(brought), git)
        for place in {host, common_of(host)}:
            given_back.repository(place)
        _remember(clone, taken)
    return taken


def _refs_of(clone: Clone) -> Mapping[str, str]:
    try:
        return ref_files.read_refs(clone.git).refs
    except OSError as error:
        raise ClaudeProxyError(
            f"the clone cannot be read: {(error.strerror or '').lower()}",
            where=str(clone.git),
            fix="see who owns the directory",
        ) from error


def _is_branch(name: str) -> bool:
    return name.startswith(BRANCHES)


def _short(name: str) -> str:
    return ascii(name.removeprefix(BRANCHES))[1:-1]


def _known(clone: Clone, refs: Mapping[str, str], only: str | None) -> Known:
    """Return what both sides have in common, for all refs or as if one alone had changed."""
    # A branch that was taken and is gone in the clone stays in the project.
    taken = {name: at for name, at in clone.record.taken.items() if name in refs}
    known = review.known_of(clone, refs)
    last = {**known.last, **taken}
    if only is not None:
        last |= {name: at for name, at in refs.items() if name != only}
    return replace(known, last=last)


def _bring(clone: Clone, host: Path, known: Known, packs: tuple[str, ...]) -> BroughtOver:
    return bring_over(
        clone.git,
        host,
        clone.name,
        known=known,
        scratch_directory=clone.path / "incoming",
        skip_packs=packs,
    )


def _forward_checked_out(taken: Taken, git: UserGit) -> Taken:
    """Move the project's checked-out branch with its files, if it only has to go forward."""
    head = git.line("symbolic-ref", "-q", "HEAD")
    refs = []
    for ref in taken.brought.refs:
        if ref.name == head and ref.move.moves and ref.problem and not ref.failed:
            problem = _forward(git, ref)
            ref = replace(ref, problem=problem)  # noqa: PLW2901 - the same one, as it is now
            taken = taken if problem else replace(taken, checked_out=_short(head))
        refs.append(ref)
    return replace(taken, brought=replace(taken.brought, refs=tuple(refs)))


def _forward(git: UserGit, ref: BroughtRef) -> str:
    """Fast-forward what is checked out; return why not."""
    if reason := _needs_filter(git, ref.object):
        return reason
    changed = _names_between("HEAD", ref.object, git) if os.geteuid() == 0 else []
    answer = git.run(
        *("merge", "--ff-only", "--quiet", "--no-autostash", "--no-overwrite-ignore"),
        *("--no-stat", ref.object),
    )
    if changed:
        top = git.line("rev-parse", "--show-toplevel")
        given_back.files(Path(top or git.directory), changed)
    if answer.ok:
        return ""
    in_the_way = [line.strip() for line in answer.err.splitlines() if line.startswith("\t")]
    if in_the_way:
        shown = ", ".join(in_the_way[:3]) + (", …" if len(in_the_way) > 3 else "")  # noqa: PLR2004
        return f"uncommitted work is in the way: {shown}"
    return answer.reason


def _names_between(old: str, new: str, git: UserGit) -> list[str]:
    """Return the paths, from the top of the work tree, that differ between two commits."""
    words = ("diff-tree", "-r", "--no-ext-diff", "--no-renames", "--name-only", "-z", old, new)
    return [name for name in os.fsdecode(git.run(*words).out).split("\0") if name]


def _needs_filter(git: UserGit, commit: str) -> str:
    """Return why git would run a program for a file that changes; empty if it would not.

    The settings of the user name the programs, and those may be files of the project, which the
    clone may have changed.
    """
    words = ("-r", "-z", "--name-only")
    changed = git.run("diff-tree", *words, "--no-renames", "HEAD", commit)
    # Without a commit, everything is new.
    paths = changed.out if changed.ok else git.run("ls-tree", *words, commit).out
    if b".gitattributes" in {path.rpartition(b"/")[2] for path in paths.split(b"\0")}:
        drivers = git.run("config", "--get-regexp", r"^filter\..*\.(smudge|process)$")
        return "its .gitattributes changes, and filters are configured" if drivers.out else ""
    answer = git.run("check-attr", "-z", "--stdin", "filter", stdin=paths)
    fields = answer.out.split(b"\0")
    for path, value in zip(fields[0::3], fields[2::3], strict=False):
        configured = any(
            git.line("config", "--get", f"filter.{os.fsdecode(value)}.{key}")
            for key in ("smudge", "process")
        )
        if value not in _NO_FILTER and configured:
            return f"{ascii(os.fsdecode(path))[1:-1]} needs a filter, which is a program"
    return ""


def _remember(clone: Clone, taken: Taken) -> None:
    """Record what the project has now, so that the next time begins there."""
    now = {ref.name: ref.object for ref in taken.brought.refs if not ref.failed and not ref.waits}
    record = replace(clone.record, taken={**clone.record.taken, **now})
    clones.write_record(clone.path, record)
