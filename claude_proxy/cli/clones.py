"""`claude-proxy clones`: lists the clones that runs worked in, or removes one.

Law kept: nothing is lost unasked. A clone with work that the project does not have is removed only
on a second word.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import click

from claude_proxy.audit.escape import escape_field, escape_text
from claude_proxy.audit.sinks import encoded, rfc3339
from claude_proxy.cli import completers, paths
from claude_proxy.cli.short_figures import UNKNOWN, size_of
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.git import clones
from claude_proxy.sandbox.git.changes import changes_of
from claude_proxy.sandbox.git.clones import Clone

EPILOG: Final = """\b
Examples:
  claude-proxy clones
  claude-proxy clones --remove fix-login
  claude-proxy clones --remove fix-login --force     with all that is in it
"""

_HEADING: Final = ("NAME", "BRANCH", "COMMITS", "UNCOMMITTED", "SIZE", "STATE", "PROJECT")
_WIDTHS: Final = (20, 20, 7, 11, 8, 11, 7)


@dataclass(frozen=True, slots=True)
class Row:
    """One clone, as it is listed."""

    clone: Clone
    size: int
    in_use: bool
    branch: str = ""
    commits: int = 0  # that are not taken
    stashes: int = 0  # that are not taken
    uncommitted: int = 0  # files
    unread: tuple[str, ...] = ()  # refs, and why they could not be read
    others: tuple[str, ...] = ()  # refs that are not taken
    kept: bool = False  # something is only in refs/claude-proxy/ of the project
    problem: str = ""

    @property
    def untaken(self) -> bool:
        """Whether it holds what the project does not have, or what nobody can tell."""
        return bool(self.problem or self.unread or self.others)

    @property
    def state(self) -> str:
        """What there is to know before it is removed."""
        if self.in_use:
            return "running"
        if self.problem:
            return "damaged"
        if self.others:
            return "not taken"
        if self.unread:
            return "damaged"
        if self.uncommitted:
            return "uncommitted"
        return "kept" if self.kept else "taken"

    @property
    def lost(self) -> str:
        """What would be lost with it, as a sentence."""
        found = [
            *_counted(self.commits, "commit", "that {} not taken"),
            *_counted(self.stashes, "stash", "that {} not taken", "es"),
            *_counted(self.uncommitted, "file", "with uncommitted work"),
        ]
        if self.others and not (self.commits or self.stashes):
            found.append(f"what no ref of the project leads to ({', '.join(self.others[:3])})")
        if self.unread:
            found.append(f"what could not be read ({'; '.join(self.unread[:3])})")
        return f"{' and '.join(found)} would be lost"


@click.command(name="clones", epilog=EPILOG)
@click.option(
    "--remove", metavar="NAME", shell_complete=completers.clone_names, help="Remove this clone."
)
@click.option("--force", is_flag=True, help="Remove it with work that the project does not have.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option(
    "--statedir",
    envvar="CLAUDE_PROXY_STATEDIR",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Directory of the clones.  [default: ~/.local/state/claude-proxy]",
)
def command(*, remove: str | None, force: bool, as_json: bool, statedir: Path | None) -> None:
    """List the clones that runs worked in, or remove one."""
    statedir = paths.statedir_in_force() if statedir is None else statedir
    if remove is not None:
        _remove(clones.named(statedir, remove), force=force)
        return
    if force:
        raise click.UsageError("--force is for --remove: add it")
    rows = [row_of(clone, os.environ) for clone in clones.all_in(statedir)]
    if not rows:
        click.echo("claude-proxy: no clones; `claude-proxy run --clone` makes one", err=True)
        return
    click.echo("\n".join(json_lines_of(rows) if as_json else lines_of(rows)))
    for name in [] if as_json else [row.clone.name for row in rows if row.kept]:
        click.echo(
            f"claude-proxy: {name}: kept as refs/claude-proxy/{name}/… in the project; "
            f"`claude-proxy take {name}` prints the command that merges it",
            err=True,
        )


def row_of(clone: Clone, environ: Mapping[str, str]) -> Row:
    """Return what is listed of a clone; a clone that cannot be read says why."""
    size, in_use = clones.size_of(clone.path), clones.is_in_use(clone)
    try:
        found = changes_of(clone, environ, whole=False)
    except ClaudeProxyError as error:
        return Row(clone, size, in_use, problem=error.what)
    return Row(
        clone,
        size,
        in_use,
        branch=found.head_name,
        commits=found.untaken_count,
        stashes=found.untaken_stashes,
        uncommitted=found.work.count,
        unread=tuple(escape_text(problem) for problem in found.problems),
        others=tuple(escape_field(one.name) for one in found.branches if not one.taken),
        kept=bool(found.kept),
    )


def _remove(clone: Clone, *, force: bool) -> None:
    if not force:
        _refuse_loss(row_of(clone, os.environ))
    clones.remove(clone)
    click.echo(f"removed the clone {clone.name}", err=True)


def _refuse_loss(row: Row) -> None:
    """Ask before something is lost; where nobody can be asked, refuse."""
    if row.state in {"taken", "kept"}:
        return
    name = row.clone.name
    if row.in_use:
        raise ClaudeProxyError(
            "a run is working in this clone", where=name, fix="wait for its end, or end it"
        )
    lost = row.problem or row.lost
    if sys.stdin.isatty() and sys.stderr.isatty():
        click.echo(f"claude-proxy: {name}: {lost}", err=True)
        if click.confirm("Remove it all the same?", err=True):
            return
        raise ClaudeProxyError("nothing was removed", where=name)
    raise ClaudeProxyError(
        lost,
        where=name,
        fix=f"claude-proxy take {name}; or add --force to remove it all the same",
    )


def _counted(number: int, noun: str, what: str, ending: str = "s") -> Iterator[str]:
    """Yield a number of things and what is said of them, unless there are none."""
    if number:
        plural = number != 1
        is_ = "are" if plural else "is"
        yield f"{number:,} {noun}{ending if plural else ''} {what.format(is_)}"


def lines_of(rows: list[Row]) -> Iterator[str]:
    """Yield a heading, and a line for each clone."""
    yield _line(_HEADING)
    for row in rows:
        unknown = bool(row.problem)
        yield _line(
            (
                row.clone.name,
                escape_field(row.branch or UNKNOWN),
                UNKNOWN if unknown else f"{row.commits:,}",
                UNKNOWN if unknown else f"{row.uncommitted:,}",
                size_of(row.size),
                row.state,
                escape_field(row.clone.record.project),
            )
        )


def json_lines_of(rows: list[Row]) -> Iterator[str]:
    """Yield one JSON object for each clone."""
    for row in rows:
        yield encoded(
            {
                "clone": row.clone.name,
                "project": row.clone.record.project,
                "branch": row.branch or None,
                "commits": row.commits,
                "uncommitted": row.uncommitted,
                "taken": not row.untaken,
                "running": row.in_use,
                "bytes": row.size,
                "created": rfc3339(int(row.clone.record.created * 1e9)),
                "problem": row.problem or None,
            }
        )


def _line(cells: tuple[str, ...]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()
