"""Agreement to a project's file: asked once per change on the terminal, as direnv does.

Fail closed: a change that nobody has seen, and that nobody can be asked about, ends the run.
"""

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from claude_proxy.audit.escape import escape_text
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox import profiles
from claude_proxy.sandbox.agreements import Agreements, Change, change_of

type Ask = Callable[[str], bool]


def pending(project: Path, statedir: Path) -> tuple[str | None, Change | None]:
    """Return the text of the nearest project file, and what its owner has not seen yet of it.

    Raises ConfigError if it is not a plain file.
    """
    path = profiles.find_project_file(project)
    agreements = Agreements(statedir)
    if path is None and agreements.is_empty:
        return None, None
    text = None if path is None else profiles.read_project_file(path)
    return text, change_of(project, path, text, agreements.known)


def settle(
    project: Path, statedir: Path, say: Callable[[str], None], ask: Ask | None = None
) -> str | None:
    """Have the owner see what has changed; return the text that counts, None if there is none.

    Raises ConfigError if the owner does not agree, or cannot be asked. The first file of a project
    is taken without a question if nobody can be asked.
    """
    text, change = pending(project, statedir)
    if change is None:
        return text
    asking = ask or (_ask if _is_attended() else None)
    if asking is not None:
        for line in lines_of(change):
            say(line)
        if not asking("run with this?"):
            raise _not_agreed(change, "was not agreed to")
    elif not change.is_first:
        raise _not_agreed(change, "has changed since its owner has seen it")
    else:
        say(f"note: {change.path} restricts this run; a change of it will be asked about")
    Agreements(statedir).record(change.path, change.text)
    return text


def changed_meanwhile(project: Path) -> ConfigError:
    """Return the error for a file that has changed since `settle`."""
    return ConfigError(
        "the project's file has changed while the run started; nothing was run",
        where=str(project),
        fix="if another run may write there, end it; then try again",
    )


def lines_of(change: Change) -> Iterator[str]:
    """Yield what the owner has to see."""
    if change.text is None:
        yield f"{change.path} is gone; it restricted the runs of this project:"
    elif change.replaces is not None:
        yield f"{change.path} is new, and {change.replaces} no longer counts because of it:"
    elif change.before is None:
        yield f"{change.path} restricts the runs of this project:"
    else:
        yield f"{change.path} restricts the runs of this project, and has changed:"
    new = (change.text or "").splitlines()
    if change.before is None:
        lines = [f"  {line}" for line in new]
    else:
        old = change.before.splitlines()
        import difflib  # noqa: PLC0415 - few files have changed

        lines = list(difflib.unified_diff(old, new, "agreed to", "now", lineterm="", n=1_000_000))
    yield from (f"  {escape_text(line)}" for line in lines)


def _not_agreed(change: Change, what: str) -> ConfigError:
    directory = shlex.quote(str(change.path.parent))
    return ConfigError(
        f"the project's file {what}; nothing was run",
        where=str(change.path),
        fix=f"look at it, and agree to it: claude-proxy agree {directory}",
    )


def _is_attended() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _ask(question: str) -> bool:
    return click.confirm(f"claude-proxy: {question}", default=False, err=True)
