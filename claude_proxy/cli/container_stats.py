"""The command `container stats`: what containers use, and what their proxies decided."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from claude_proxy.audit.escape import escape_field
from claude_proxy.audit.sinks import encoded
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.cli.container_options import statedir_option
from claude_proxy.cli.container_targets import running, runs, several_names
from claude_proxy.cli.short_figures import duration_of
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.policy.advice import ATTACK_DOMAIN
from claude_proxy.sandbox.container import process_usage, store
from claude_proxy.sandbox.container.process_usage import ProcessUsage

EPILOG = """\b
Examples:
  claude-proxy container stats            all that run
  claude-proxy container stats web --json

\b
CPU, MEMORY   of the processes that run now; what several share is counted for each
ALLOWED, DENIED   by the proxy, since the record begins: claude-proxy log --run NAME; names that
                  only `container attack` and `verify` ask for are not counted
"""

_HEADING = ("NAME", "UP", "CPU", "MEMORY", "PROCESSES", "ALLOWED", "DENIED")
_WIDTHS = (20, 8, 8, 9, 9, 7, 6)
_UNKNOWN = "-"


@click.command(name="stats", epilog=EPILOG)
@several_names
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@statedir_option
def command(*, names: tuple[str, ...], as_json: bool, statedir: str | None) -> None:
    """Show what running containers use, and what they were allowed and denied."""
    place = statedir_in_force(statedir)
    wanted = names or tuple(one.name for one in store.load_all(place) if runs(one))
    if not wanted:
        click.echo("claude-proxy: no container runs", err=True)
        return
    found = [(name, _usage_of(place, name)) for name in dict.fromkeys(wanted)]
    decided = _decided(place, [name for name, _ in found])
    if not as_json:
        click.echo(_line(_HEADING))
    for name, usage in found:
        counts = decided.get(name, (0, 0))
        click.echo(_json(name, usage, counts) if as_json else _row(name, usage, counts))


def _usage_of(place: Path, name: str) -> ProcessUsage | None:
    return process_usage.usage_of(running(place, name).state.pid)


def _decided(place: Path, names: list[str]) -> Mapping[str, tuple[int, int]]:
    """Return how many attempts of each run were allowed and denied; empty without a record."""
    from claude_proxy.audit.database import database_in  # noqa: PLC0415 - SQLite
    from claude_proxy.audit.queries import (  # noqa: PLC0415 - as above
        AuditReader,
        HostFilter,
        RunFilter,
        Selection,
    )
    from claude_proxy.audit.tally import Grouping  # noqa: PLC0415 - as above

    found = {}
    attack = HostFilter.parse(f".{ATTACK_DOMAIN}")
    try:
        with AuditReader(database_in(place)) as reader:
            for name in names:
                run = RunFilter(name)
                for one in reader.tallies(Selection(run=run), Grouping.RUN):
                    found[name] = (one.allowed, one.denied)
                for one in reader.tallies(Selection(run=run, host=attack), Grouping.RUN):
                    allowed, denied = found[name]
                    found[name] = (allowed - one.allowed, denied - one.denied)
    except ClaudeProxyError:
        return {}
    return found


def _row(name: str, usage: ProcessUsage | None, counts: tuple[int, int]) -> str:
    cells = (_UNKNOWN,) * 4
    if usage is not None:
        cells = (
            duration_of(usage.age_s * 1e3),
            duration_of(usage.cpu_s * 1e3),
            f"{usage.memory / 2**20:,.0f} MiB",
            f"{usage.processes:,}",
        )
    return _line((escape_field(name), *cells, *(f"{count:,}" for count in counts)))


def _json(name: str, usage: ProcessUsage | None, counts: tuple[int, int]) -> str:
    used: dict[str, Any] = {"up_s": None, "cpu_s": None, "memory": None, "processes": None}
    if usage is not None:
        used = {
            "up_s": round(usage.age_s, 3),
            "cpu_s": round(usage.cpu_s, 3),
            "memory": usage.memory,
            "processes": usage.processes,
        }
    return encoded({"name": name, **used, "allowed": counts[0], "denied": counts[1]})


def _line(cells: tuple[str, ...]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()
