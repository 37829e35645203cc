"""Findings of checks: a level, what was found, and how to fix it; pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"  # something optional does not work, and something else does in its place
    WARNING = "warning"  # it works, but not as it should
    ERROR = "error"  # it cannot work


EXIT_CODES = {Level.OK: 0, Level.NOTE: 0, Level.WARNING: 1, Level.ERROR: 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    level: Level
    what: str
    fix: str | None = None


def ok(name: str, what: str) -> Finding:
    """Return a finding that needs no fix."""
    return Finding(name, Level.OK, what)


def warning(name: str, what: str, fix: str | None = None) -> Finding:
    """Return a finding that may be acceptable."""
    return Finding(name, Level.WARNING, what, fix)


def error(name: str, what: str, fix: str | None = None) -> Finding:
    """Return a finding that prevents something from working."""
    return Finding(name, Level.ERROR, what, fix)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return the exit code of the worst finding."""
    return max((EXIT_CODES[finding.level] for finding in findings), default=0)
