"""Homes that `run` keeps for the agents of each project: the list of them, and starting over."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from claude_proxy.audit.escape import escape_field
from claude_proxy.cli.short_figures import local_time, size_of
from claude_proxy.sandbox import agent_home
from claude_proxy.sandbox.agent_home import HomeInfo

_WIDTHS: Final = (8, 19)
_HEADING: Final = ("SIZE", "LAST USED", "PROJECT")
_NS: Final = 1_000_000_000


def lines_of(homes: Sequence[HomeInfo]) -> Iterator[str]:
    """Yield a heading, and a line for each home."""
    yield _line(_HEADING)
    for home in homes:
        size = size_of(home.size.size)
        project = escape_field(home.project)
        notes = [
            *(["in use"] if home.in_use else []),
            *([] if home.exists else ["the directory is gone"]),
        ]
        yield _line(
            (
                size if home.size.complete else f">{size}",
                local_time(int(home.used_s * _NS)),
                f"{project}  ({', '.join(notes)})" if notes else project,
            )
        )


def reset(statedir: Path, directory: Path | None) -> str:
    """Remove the home of a project, the current one if none is named; return what to say.

    The project's directory may be gone already. Raises ConfigError if a run is using the home.
    """
    project = Path(os.path.realpath(directory or Path.cwd()))
    if agent_home.reset(statedir, project):
        return f"removed what was kept for {project}; the next run makes a new home"
    return f"nothing is kept for {project}"


def _line(cells: Sequence[str]) -> str:
    *narrow, last = cells
    padded = (cell.ljust(width) for cell, width in zip(narrow, _WIDTHS, strict=True))
    return "  ".join((*padded, last))
