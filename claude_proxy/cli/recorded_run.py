"""The option --run of commands that read the audit log: one run by its name, or the newest."""

from pathlib import Path
from typing import Final

from claude_proxy.audit.escape import escape_text
from claude_proxy.audit.queries import AuditReader, RunFilter
from claude_proxy.errors import ConfigError

LAST: Final = "last"


def run_filter(path: Path, name: str) -> RunFilter:
    """Return the filter of a run in the log at `path`; ConfigError if there was none."""
    with AuditReader(path) as reader:
        if name != LAST:
            if reader.has_rows_of(name):
                return RunFilter(name)
            raise ConfigError(
                f'there was no run "{escape_text(name)}"',
                where="--run",
                fix="`claude-proxy runs` lists them; last means the newest",
            )
        last = reader.last_run()
    if last is None:
        raise ConfigError(
            "there was no run yet",
            where="--run",
            fix="leave it out, or start one: claude-proxy run -- COMMAND",
        )
    return RunFilter(last)
