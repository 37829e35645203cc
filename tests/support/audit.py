"""The audit log as `claude-proxy log --json` prints it, read without a process of its own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from claude_proxy.cli.log import command


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `claude-proxy log --json`."""

    fields: Mapping[str, Any]

    @property
    def allowed(self) -> bool:
        """Whether the decision was to allow."""
        assert self.fields["action"] in {"allow", "deny"}
        return bool(self.fields["action"] == "allow")

    def __getattr__(self, name: str) -> Any:
        try:
            return self.fields[name]
        except KeyError:
            raise AttributeError(f"the audit row has no {name}: {dict(self.fields)}") from None


def audit_rows(statedir: Path, *arguments: str) -> list[Row]:
    """Return what `claude-proxy log --json` shows of the log in `statedir`, oldest first.

    The command is called and not started: a start takes a second, and the tests look at the log
    hundreds of times. Its own process is tested in tests/e2e/test_audit.py.
    """
    words = ["--json", "--limit", "100000", *arguments, "--statedir", str(statedir)]
    ran = CliRunner().invoke(command, words, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return [Row(json.loads(line)) for line in ran.stdout.splitlines()]
