"""`claude-proxy changes`: shows what a run did in its clone of the project.

Law kept: a sandbox's text cannot leave its field. Names, messages and differences are printed with
everything escaped that a terminal would obey.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from claude_proxy.audit.escape import escape_field, escape_line, escape_text
from claude_proxy.audit.sinks import encoded
from claude_proxy.cli import completers, paths
from claude_proxy.cli.main import wants_colour
from claude_proxy.sandbox.git import clones
from claude_proxy.sandbox.git.changes import (
    ChangedFile,
    Changes,
    Comparison,
    changes_of,
)
from claude_proxy.sandbox.git.clones import Clone

EPILOG: Final = """\b
Examples:
  claude-proxy changes fix-login           all of it, what to look at first at the top
  claude-proxy changes fix-login --stat    without the text of the files
  claude-proxy changes fix-login | less -R

What `claude-proxy take` has brought over is left out; --all shows it, too. Exit codes: 0; 1 if
there is no such clone, or if it cannot be read.
"""

_SHOWN_COMMITS: Final = 50
_COLOURS: Final = {"+": "green", "-": "red", "@": "cyan"}


@click.command(name="changes", epilog=EPILOG)
@click.argument("name", shell_complete=completers.clone_names)
@click.option("--stat", is_flag=True, help="Leave out the text of the files.")
@click.option("--all", "since_start", is_flag=True, help="Show what was taken already, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--statedir",
    envvar="CLAUDE_PROXY_STATEDIR",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Directory of the clones.  [default: ~/.local/state/claude-proxy]",
)
def command(
    *, name: str, stat: bool, since_start: bool, as_json: bool, statedir: Path | None
) -> None:
    """Show what a run did in its clone of the project.

    First the files that changed, then those to look at first: new executables, files that tools
    obey, symbolic links, repositories. Then the text of the differences: what is committed, and
    what is not.
    """
    clone = clones.named(paths.statedir_in_force() if statedir is None else statedir, name)
    changes = changes_of(clone, os.environ, diff=not stat, since_start=since_start)
    if as_json:
        click.echo(encoded(json_of(clone, changes, diff=not stat)))
        return
    colour = wants_colour(sys.stdout)
    for line in lines_of(clone, changes):
        click.echo(_coloured(line) if colour else line)


def lines_of(clone: Clone, changes: Changes) -> Iterator[str]:
    """Yield what is printed."""
    yield from _heading(clone, changes)
    if changes.committed.files:
        yield ""
        yield from _stat(changes.committed)
    yield from _first(changes.committed, "look at these first:")
    yield from _uncommitted(changes)
    for title, compared in (
        ("committed", changes.committed),
        ("uncommitted", changes.uncommitted),
    ):
        if compared.diff:
            yield ""
            yield f"--- {title} ---"
            yield from (escape_line(line) for line in compared.diff.rstrip("\n").split("\n"))
        if compared.cut_off:
            yield "(the rest is left out: the difference is too long)"


def _heading(clone: Clone, changes: Changes) -> Iterator[str]:
    where = escape_text(changes.head_name or "no branch")
    yield f"clone {clone.name} of {escape_text(clone.record.project)}, on {where}"
    if not (changes.commit_count or changes.untaken):
        yield "no commits that are not taken"
    if any(branch.problem for branch in changes.branches):
        yield "warning: not everything could be read, so what follows is not all"
    for commit in changes.commits[:_SHOWN_COMMITS]:
        subject, author = escape_text(commit.subject), escape_text(commit.author)
        yield f"  {commit.object[:12]}  {commit.date}  {author}: {subject}"
    if (more := changes.commit_count - _SHOWN_COMMITS) > 0:
        yield f"  and {more:,} more"
    for branch in changes.branches:
        taken = f"kept as {branch.kept}" if branch.kept else "taken"
        state = branch.problem or (taken if branch.taken else "not taken")
        yield f"  {escape_field(branch.name)}: {branch.ahead:,} ahead, {escape_text(state)}"
    for problem in changes.problems:
        yield f"  left out: {escape_text(problem)}"


def _stat(compared: Comparison) -> Iterator[str]:
    yield from (escape_line(line) for line in compared.stat.rstrip("\n").split("\n"))


def _first(compared: Comparison, title: str) -> Iterator[str]:
    flagged = [file for file in compared.files if file.reasons]
    if flagged:
        yield ""
        yield title
    for file in flagged:
        yield f"  {escape_text(file.path)}: {escape_text('; '.join(file.reasons))}"


def _uncommitted(changes: Changes) -> Iterator[str]:
    work = changes.work
    if not work.count:
        return
    yield ""
    yield "not committed in the clone, so not brought over by `take`:"
    if changes.uncommitted.files:
        yield from _stat(changes.uncommitted)
    for paths_, what in (
        (work.nested, "a repository of its own"),
        (work.large, "too large to be shown"),
        (work.unread, "not read: no plain file, or not to be opened"),
    ):
        yield from (f" {escape_text(os.fsdecode(path))}: {what}" for path in paths_)
    yield from _first(changes.uncommitted, "of these, look first at:")


def json_of(clone: Clone, changes: Changes, *, diff: bool) -> dict[str, object]:
    """Return all of it as one JSON object; invalid UTF-8 in names is escaped."""
    found: dict[str, object] = {
        "clone": clone.name,
        "project": clone.record.project,
        "branch": changes.head_name,
        "base": changes.base or None,
        "head": changes.head or None,
        "commit_count": changes.commit_count,
        "commits": [
            {
                "id": commit.object,
                "author": _clean(commit.author),
                "date": commit.date,
                "subject": _clean(commit.subject),
            }
            for commit in changes.commits
        ],
        "branches": [
            {"name": _clean(one.name), "id": one.object, "ahead": one.ahead, "taken": one.taken}
            for one in changes.branches
        ],
        "committed": [_json_of_file(file) for file in changes.committed.files],
        "uncommitted": [_json_of_file(file) for file in changes.uncommitted.files],
        "repositories": [_clean(os.fsdecode(path)) for path in changes.work.nested],
        "not_shown": [
            _clean(os.fsdecode(path)) for path in (*changes.work.large, *changes.work.unread)
        ],
        "problems": list(changes.problems),
    }
    if diff:
        found["diff"] = _clean(changes.committed.diff)
        found["uncommitted_diff"] = _clean(changes.uncommitted.diff)
    return found


def _json_of_file(file: ChangedFile) -> dict[str, object]:
    return {
        "path": _clean(file.path),
        "change": file.happened,
        "mode": file.new_mode,
        "look_first": [_clean(reason) for reason in file.reasons],
    }


def _clean(text: str) -> str:
    """Return text without lone surrogates, which JSON readers refuse."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _coloured(line: str) -> str:
    colour = _COLOURS.get(line[:1])
    return click.style(line, fg=colour) if colour else line
