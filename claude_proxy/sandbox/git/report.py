"""Lines for the user about what was brought over from a run."""

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from claude_proxy.sandbox.git.bring_over import BroughtOver, BroughtRef
from claude_proxy.sandbox.git.ref_moves import Move
from claude_proxy.sandbox.git.ref_names import BRANCHES, TAGS, is_object, is_stash, short_name

_SHOWN = 10
_SHORT = 10


def lines_of(done: BroughtOver, host: Path, place: Path) -> Iterator[str]:
    """Yield what happened to the refs of one Git directory of the host.

    `place` is where the run's own Git directory is, if something could not be brought over.
    """
    where = _shown(str(host.parent if host.name == ".git" else host))
    moved = [ref for ref in done.refs if not ref.waits and ref.move.moves]
    if moved:
        yield f"note: brought over into {where}: {_listed(map(_moved, moved))}"
    if done.head:
        yield f"note: {where} is now on {_shown(_place_of(done.head))}, as this run left it"
    elif done.head_problem:
        yield f"warning: HEAD of {where} stays where it was: {_shown(done.head_problem)}"
    kept = [ref for ref in done.diverged if ref.move is Move.KEPT]
    if kept:
        listed = _listed(_shown(ref.kept_as) for ref in kept)
        yield f"note: kept in {where}: {listed}{_applying(kept, where)}"
    for ref in [ref for ref in done.diverged if ref.move is not Move.KEPT][:_SHOWN]:
        yield f"warning: {_advice(ref, where)}"
    failed = [ref for ref in done.refs if ref.failed]
    for ref in failed[:_SHOWN]:
        what = _shown(short_name(ref.name))
        yield f"warning: {what} was not brought over into {where}: {_shown(ref.problem)}"
    for problem in done.problems:
        yield f"warning: commits of this run, for {where}: {_shown(problem)}"
    if not done.complete:
        yield (
            f"note: the run's own Git directory is kept in {_shown(str(place))}; the next run "
            "tries again"
        )


def _moved(ref: BroughtRef) -> str:
    kind = "new branch " if ref.move is Move.CREATE and ref.name.startswith(BRANCHES) else ""
    kind = "tag " if ref.name.startswith(TAGS) else kind
    return f"{kind}{_shown(short_name(ref.name))} ({ref.object[:_SHORT]})"


def _advice(ref: BroughtRef, where: str) -> str:
    name, kept = _shown(short_name(ref.name)), _quoted(ref.kept_as)
    git = f"git -C {shlex.quote(where)}"
    match ref.move:
        case Move.DIVERGED if ref.name.startswith(TAGS):
            return f"the tag {name} is another one in {where}; this run's is kept as {kept}"
        case Move.DIVERGED:
            return (
                f"{name} has commits of its own in {where}; this run's are kept as {kept}; "
                f"to merge them: {git} stash -u && {git} merge {kept}"
            )
        case Move.REWRITTEN:
            return (
                f"this run rewrote commits of {name} that {where} has; its version is kept as "
                f"{kept}; to take it: {git} reset {kept}"
            )
        case Move.DELETED:
            return f"{name} was deleted in {where}; this run's commits are kept as {kept}"
        case _:
            return (
                f"{name} was not moved in {where}: {_shown(ref.problem)}; this run's commits are "
                f"kept as {kept}; to take them: {git} merge {kept}"
            )


def _applying(kept: Iterable[BroughtRef], where: str) -> str:
    """Return the command that applies the newest stash; empty if there is none."""
    stashes = {ref.name: ref.kept_as for ref in kept if is_stash(ref.name)}
    if not stashes:
        return ""
    which = "the newest stash" if len(stashes) > 1 else "the stash"
    newest = stashes[min(stashes)]  # "refs/stash"; older ones have a number
    return f"; to apply {which}: git -C {shlex.quote(where)} stash apply {_quoted(newest)}"


def _place_of(head: str) -> str:
    return head[:_SHORT] if is_object(head) else short_name(head)


def _listed(words: Iterable[str]) -> str:
    found = list(words)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{', '.join(found[:_SHOWN])}{more}"


def _quoted(text: str) -> str:
    return shlex.quote(_shown(text))


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
