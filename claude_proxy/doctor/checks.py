"""Lists the checks of an installation and makes them all."""

from collections.abc import Callable
from functools import partial

from claude_proxy.doctor import credentials, listeners, machine, setup
from claude_proxy.doctor.bounded_run import guarded
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.finding import Finding

type SubjectCheck = Callable[[Subject], list[Finding]]

# The name stands in for what a check that fails would have found.
CHECKS: tuple[tuple[str, SubjectCheck], ...] = (
    ("Python", machine.check_python),
    ("directories", setup.check_directories),
    ("allowlist", setup.check_allowlist),
    ("credentials", credentials.check_credentials),
    ("CA", setup.check_authority),
    ("audit log", setup.check_audit),
    ("disk space", setup.check_disk),
    ("listener", listeners.check_listeners),
    ("sandbox", machine.check_sandbox),
    ("seccomp", machine.check_seccomp),
    ("terminal", machine.check_terminal),
    ("podman", machine.check_podman),
    ("Claude Code", machine.check_claude),
)


def examine(
    subject: Subject, checks: tuple[tuple[str, SubjectCheck], ...] = CHECKS
) -> list[Finding]:
    """Make every check, in order, and return all that they find."""
    return [finding for name, check in checks for finding in guarded(name, partial(check, subject))]
