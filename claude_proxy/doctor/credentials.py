"""Credential checks: whether each source has a value, and whether the shell has other logins.

Law kept: secrets stay outside. A finding names the source of a value, never the value. A command is
not run: it may ask its user for something, or have other effects.
"""

import shutil
from collections.abc import Iterator

from claude_proxy.config import policy_files
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.finding import Finding, error, ok, warning
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.policy import unbound_hosts
from claude_proxy.policy.credentials.binding import Binding, LoginPin
from claude_proxy.policy.credentials.sources import (
    CommandSource,
    EnvironmentSource,
    SecretSource,
    source_name,
)
from claude_proxy.sandbox.plan.credential_isolation import CLAUDE_VARIABLES, is_for_anthropic
from claude_proxy.vault import sources

_NAME = "credential"


def check_credentials(subject: Subject) -> list[Finding]:
    """Check that every credential of the allowlist is available."""
    policy = policy_files.load_for(subject.settings).policy
    looks = [found for binding in policy.credentials for found in _look(binding, subject)]
    words = unbound_hosts.warn_of_unbound_hosts(policy)
    # A choice of the owner's, and no fault of the set-up.
    return looks if words is None else [*looks, ok(_NAME, "{}; to change that, {}".format(*words))]


def _look(binding: Binding, subject: Subject) -> Iterator[Finding]:
    source, name = binding.use.source, f"{_NAME} {binding.name}"
    hosts = ", ".join(map(str, binding.patterns))
    if source is None:
        known = (
            "given by hash"
            if isinstance(binding.use, LoginPin) and binding.use.digests
            else "learned"
        )
        yield ok(name, f"for {hosts}, {known}")
        return
    place = source_name(source)
    try:
        _try(source, subject)
    except ClaudeProxyError as problem:
        yield error(name, f"{problem.what} ({problem.where or place})", problem.fix or "fix it")
        return
    if isinstance(source, CommandSource):
        yield ok(name, f"for {hosts}, from the {place} (not run)")
    else:
        yield ok(name, f"for {hosts}, from the {place}")
    if not isinstance(binding.use, LoginPin) and is_for_anthropic(binding):
        yield from _others(name, subject, source)


def _try(source: SecretSource, subject: Subject) -> None:
    if not isinstance(source, CommandSource):
        sources.read(source, subject.environ)
    elif shutil.which(source.argv[0], path=subject.environ.get("PATH")) is None:
        raise ClaudeProxyError(
            "the program is not installed",
            where=source_name(source),
            fix="install it, or give its full path",
        )


def _others(name: str, subject: Subject, source: SecretSource) -> Iterator[Finding]:
    """Warn of other logins in this shell that clients would use and the proxy would deny."""
    known = [each for each in sorted(CLAUDE_VARIABLES) if subject.environ.get(each)]
    own = source.name if isinstance(source, EnvironmentSource) else None
    stray = [each for each in known if each != own]
    if stray:
        yield warning(
            name,
            f"this shell also sets {', '.join(stray)}; a client would send it, and the proxy would "
            "deny it",
            f"unset {' '.join(stray)}",
        )
