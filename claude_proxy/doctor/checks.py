"""The checks of an installation, in order."""

from collections.abc import Callable
from functools import partial

from claude_proxy.doctor import credentials, engines, listeners, machine, setup, upstream
from claude_proxy.doctor.bounded_run import guarded
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.finding import Finding

type SubjectCheck = Callable[[Subject], list[Finding]]

# The name of a check is shown if the check itself fails.
CHECKS: tuple[tuple[str, SubjectCheck], ...] = (
    ("Python", machine.check_python),
    ("directories", setup.check_directories),
    ("allowlist", setup.check_allowlist),
    ("credentials", credentials.check_credentials),
    ("CA", setup.check_authority),
    ("audit log", setup.check_audit),
    ("disk space", setup.check_disk),
    ("listener", listeners.check_listeners),
    ("upstream proxy", upstream.check_upstream),
    ("sandbox", machine.check_sandbox),
    ("seccomp", machine.check_seccomp),
    ("terminal", machine.check_terminal),
    ("containers", engines.check_engines),
    ("Claude Code", machine.check_claude),
)


def examine(
    subject: Subject, checks: tuple[tuple[str, SubjectCheck], ...] = CHECKS
) -> list[Finding]:
    """Run every check, in order, and return all findings."""
    return [finding for name, check in checks for finding in guarded(name, partial(check, subject))]
