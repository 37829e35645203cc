"""`claude-proxy runs`: lists the runs that the audit log knows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from claude_proxy.audit.database import database_in
from claude_proxy.audit.escape import escape_field
from claude_proxy.audit.queries import AuditReader
from claude_proxy.audit.sinks import encoded, rfc3339
from claude_proxy.audit.tally import LoggedRun
from claude_proxy.cli import paths
from claude_proxy.cli.short_figures import UNKNOWN, duration_of, local_time
from claude_proxy.sandbox import run_directory

EPILOG: Final = """\b
Examples:
  claude-proxy runs
  claude-proxy log --run last --denied
"""

_WIDTHS: Final = (20, 16, 19, 8, 4, 6)
_HEADING: Final = ("NAME", "PROGRAM", "START", "TOOK", "EXIT", "DENIED")
_RUNNING: Final = "running"


@click.command(name="runs", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="COUNT",
    help="Show at most this many of the newest runs.",
)
@click.option(
    "--statedir",
    envvar="CLAUDE_PROXY_STATEDIR",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Directory of the audit log.  [default: ~/.local/state/claude-proxy]",
)
def command(*, as_json: bool, limit: int, statedir: Path | None) -> None:
    """List the runs: name, program, start, exit code, denials."""
    path = database_in(paths.statedir_in_force() if statedir is None else statedir)
    with AuditReader(path) as reader:
        runs = reader.runs(limit)
    if not runs:
        click.echo("claude-proxy: no runs recorded", err=True)
        return
    living = {run.name for run in run_directory.living()}
    click.echo("\n".join(json_lines_of(runs) if as_json else lines_of(runs, living)))


def lines_of(runs: Sequence[LoggedRun], living: set[str]) -> Iterator[str]:
    """Yield a heading, and a line for each run; `living` are the names of those that go on."""
    yield _line(_HEADING)
    newest = {run.name: run for run in runs}
    for run in runs:
        goes_on = run.end is None and run.name in living and newest[run.name] is run
        took = UNKNOWN if run.end is None else duration_of(max(0, run.end - run.start) / 1e6)
        yield _line(
            (
                escape_field(run.name),
                escape_field(run.program or UNKNOWN),
                local_time(run.start),
                _RUNNING if goes_on else took,
                UNKNOWN if run.exit_code is None else str(run.exit_code),
                f"{run.denied:,}",
            )
        )


def json_lines_of(runs: Sequence[LoggedRun]) -> Iterator[str]:
    """Yield one JSON object for each run."""
    for run in runs:
        yield encoded(
            {
                "run": run.name,
                "program": run.program,
                "start": rfc3339(run.start),
                "end": None if run.end is None else rfc3339(run.end),
                "exit_code": run.exit_code,
                "denied": run.denied,
            }
        )


def _line(cells: Sequence[str]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()
