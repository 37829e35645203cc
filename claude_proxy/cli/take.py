"""`claude-proxy take`: brings the commits of a clone, or of a run, over into the project."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from claude_proxy.audit.database import database_in
from claude_proxy.audit.escape import escape_field, escape_text
from claude_proxy.audit.queries import AuditReader
from claude_proxy.audit.sinks import encoded
from claude_proxy.cli import completers, paths
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.git import clones, report, taking, waiting_runs
from claude_proxy.sandbox.git.bring_over import BroughtOver, BroughtRef
from claude_proxy.sandbox.git.changes import changes_of
from claude_proxy.sandbox.git.clones import Clone
from claude_proxy.sandbox.git.ref_moves import Move
from claude_proxy.sandbox.git.ref_names import is_stash, short_name
from claude_proxy.sandbox.git.taking import Taken
from claude_proxy.system.runs import is_name

EPILOG: Final = """\b
Examples:
  claude-proxy take fix-login
  claude-proxy take fix-login --branch fix/login
  claude-proxy take claude-x2kq            a run without --clone: what it has committed so far

Everything is kept as refs/claude-proxy/NAME/BRANCH. A branch of the project goes forward if nobody
has moved it meanwhile; one that is checked out does so with its files, if no uncommitted work is in
the way. Exit codes: 0; 1 if a branch waits for you to merge it, or if something failed.
"""

_WORDS: Final = {
    Move.SAME: "is the same in the project",
    Move.CREATE: "created",
    Move.FORWARD: "forward",
    Move.REPLACE: "replaced what was taken before",
    Move.CONTAINED: "the project has it, and more",
    Move.DIVERGED: "the project has other commits",
    Move.REWRITTEN: "commits that the project has were rewritten",
    Move.DELETED: "was deleted in the project",
    Move.KEPT: "kept",
}
_WAITING: Final = 1
_SHOWN: Final = 10


@click.command(name="take", epilog=EPILOG)
@click.argument("name", shell_complete=completers.clone_names)
@click.option("--branch", metavar="NAME", help="Bring over this branch alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--statedir",
    envvar="CLAUDE_PROXY_STATEDIR",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Directory of the clones.  [default: ~/.local/state/claude-proxy]",
)
def command(*, name: str, branch: str | None, as_json: bool, statedir: Path | None) -> int:
    """Bring the commits of a clone over into the project.

    Nothing of the clone is run or obeyed, and it stays as it is. NAME may also be a run without
    --clone, whose commits wait: it goes on, or was killed.
    """
    statedir = paths.statedir_in_force() if statedir is None else statedir
    clone = clones.find(statedir, name)
    if clone is None:
        return _take_run(statedir, name, branch, as_json=as_json)
    taken = taking.take(clone, os.environ, branch)
    left = changes_of(clone, os.environ, whole=False).work.count
    if as_json:
        click.echo(encoded(json_of(clone, taken, left)))
    else:
        for line in lines_of(clone, taken, left):
            click.echo(line)
    return 0 if taken.complete else _WAITING


def _take_run(statedir: Path, name: str, branch: str | None, *, as_json: bool) -> int:
    """Bring over what a run without a clone has committed."""
    brought = None if branch is not None else waiting_runs.take(statedir, name)
    if brought is None:
        kept = waiting_runs.kept_of(name, Path.cwd(), os.environ) if is_name(name) else []
        if branch is not None or not (kept or _has_begun(statedir, name)):
            clones.named(statedir, name)  # an error that says what there is
        click.echo(encoded(_json_of_ended(name, kept)) if as_json else _nothing_left(name, kept))
        return 0
    if as_json:
        for directory, done in brought:
            click.echo(encoded(_json_of_run(name, directory.host, done)))
    lines = [line for one, done in brought for line in report.lines_of(done, one.host, one.private)]
    for line in () if as_json else lines or [f"nothing new of the run {name}"]:
        click.echo(line)
    complete = all(done.complete and not done.diverged for _, done in brought)
    return 0 if complete else _WAITING


def _has_begun(statedir: Path, name: str) -> bool:
    """Tell whether there has been a run of this name, as far as the audit log is there to tell."""
    with suppress(ClaudeProxyError), AuditReader(database_in(statedir)) as reader:
        return reader.has_run(name)
    return False


def _nothing_left(name: str, kept: Sequence[str]) -> str:
    """Return what is said of a run that has nothing to bring over; `kept` are the refs it left."""
    text = f"nothing left to take of the run {name}"
    if not kept:
        return text
    shown = ", ".join(map(escape_field, kept[:_SHOWN]))
    more = f" and {len(kept) - _SHOWN:,} more" if len(kept) > _SHOWN else ""
    return f"{text}: what it committed is kept as {shown}{more}"


def _json_of_ended(name: str, kept: Sequence[str]) -> dict[str, object]:
    return {"run": name, "complete": True, "refs": [], "kept": list(map(escape_text, kept))}


def _json_of_run(name: str, host: Path, done: BroughtOver) -> dict[str, object]:
    return {
        "run": name,
        "repository": str(host),
        "complete": done.complete and not done.diverged,
        "refs": [_json_of_ref(ref) for ref in done.refs],
        "problems": list(done.problems),
    }


def lines_of(clone: Clone, taken: Taken, uncommitted: int) -> Iterator[str]:
    """Yield what is printed."""
    if not taken.brought.refs and not taken.brought.problems:
        yield f"nothing new in the clone {clone.name}"
    for ref in taken.brought.refs:
        yield f"{escape_field(short_name(ref.name))}: {_happened(ref, taken)}"
        if ref.waits and not ref.failed:
            how = "apply it: git stash apply" if is_stash(ref.name) else "merge it: git merge"
            yield f"  to {how} {escape_field(ref.kept_as)}"
    for problem in taken.brought.problems:
        yield f"left out: {escape_text(problem)}"
    if uncommitted:
        yield (
            f"{uncommitted:,} file{'' if uncommitted == 1 else 's'} with uncommitted work: only in "
            f"the clone, see `claude-proxy changes {clone.name}`"
        )


def _happened(ref: BroughtRef, taken: Taken) -> str:
    if ref.failed:
        return f"not brought over: {escape_text(ref.problem)}"
    text = f"{ref.object[:12]}, {_WORDS[ref.move]}"
    if ref.move.moves and ref.problem:
        text = f"{ref.object[:12]}, not {'created' if ref.move is Move.CREATE else 'moved'}"
    if ref.problem:
        return f"{text}: {escape_text(ref.problem)}"
    if taken.checked_out and ref.move.moves and short_name(ref.name) == taken.checked_out:
        return f"{text}, with the files of the project"
    return text


def json_of(clone: Clone, taken: Taken, uncommitted: int) -> dict[str, object]:
    """Return all of it as one JSON object."""
    return {
        "clone": clone.name,
        "project": clone.record.project,
        "complete": taken.complete,
        "refs": [_json_of_ref(ref) for ref in taken.brought.refs],
        "checked_out": taken.checked_out or None,
        "uncommitted": uncommitted,
        "problems": list(taken.brought.problems),
    }


def _json_of_ref(ref: BroughtRef) -> dict[str, object]:
    return {
        "name": escape_text(ref.name),
        "id": ref.object,
        "kept_as": escape_text(ref.kept_as) or None,
        "move": ref.move.value,
        "moved": not ref.waits and not ref.failed,
        "problem": ref.problem or None,
    }
