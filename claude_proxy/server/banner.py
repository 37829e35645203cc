"""Startup banner and warnings: what the proxy tells its owner once it accepts clients."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from claude_proxy.audit.database import database_in
from claude_proxy.config import policy_notices
from claude_proxy.config.settings import AuditFailure, Learn, Settings
from claude_proxy.policy.policy import Policy
from claude_proxy.proxy.gateway import banner as gateway_banner
from claude_proxy.server import logs
from claude_proxy.server.listening_sockets import OpenListener
from claude_proxy.trust.certificate_authority import CertificateAuthority

logger = logging.getLogger(__name__)

_NEXT_ADDRESS = "\n                        "  # each further address on a line of its own


def warn(
    settings: Settings,
    policy: Policy,
    authority: CertificateAuthority | None,
    listeners: Sequence[OpenListener],
) -> None:
    """Log what is in force but may not be what the owner meant."""
    for message in warnings(settings, policy, authority, listeners):
        logger.warning("%s", message)
    if settings.learn is not None:
        # Not through the log: --quiet would suppress it.
        logs.report([f"warning: learning: {learning_warning(*settings.learn)}"])


def warnings(
    settings: Settings,
    policy: Policy,
    authority: CertificateAuthority | None,
    listeners: Sequence[OpenListener],
) -> Iterator[str]:
    """Yield one message for each setting in force that may not be what the owner meant."""
    if settings.audit_failure is AuditFailure.ALLOW:
        yield "decisions that cannot be recorded are allowed (--audit-failure allow)"
    if any(listener.beyond_loopback for listener in listeners):
        networks = ", ".join(map(str, settings.clients))
        yield f"listening beyond loopback; clients of {networks} are served"
    if authority is not None and (outside := authority.outside(policy.hosts())):
        yield (
            f"the CA's name constraints exclude {len(outside)} allowed hosts, among them "
            f"{outside[0]}; fix: claude-proxy ca rotate --constrain"
        )
    if settings.listen and (unbound := policy_notices.unbound_hosts_notice(settings, policy)):
        yield unbound
    if policy.allows_by_default and settings.upstream_proxy is not None:
        yield (
            "every host is allowed, and the upstream proxy resolves the names: "
            "names that lead to private addresses are not kept out"
        )


def learning_warning(learn: Learn, file: Path) -> str:
    """Return the warning for a proxy that learns an allowlist."""
    if learn is Learn.DENIALS:
        return f"hosts that are denied are added to {file}"
    return (
        "THIS PROXY LETS EVERYTHING THROUGH that no deny rule covers, and adds each host to "
        f"{file}; stop it as soon as you have seen what you wanted to see"
    )


def lines_of(
    settings: Settings,
    policy: Policy,
    authority: CertificateAuthority | None,
    listeners: Sequence[OpenListener],
) -> list[str]:
    """Return the banner: addresses, CA certificate, policy, audit log."""
    rules = "1 rule" if policy.rules_count == 1 else f"{policy.rules_count} rules"
    source = (
        f"allowlist:      {settings.allowlist} ({rules})"
        if settings.policy is None
        else f"policy:         {settings.policy} ({rules})"
    )
    fate = "asked about (answer with `claude-proxy ask`)" if policy.asks_by_default else "denied"
    others = f"All other hosts are {'allowed' if policy.allows_by_default else fate}"
    urls = [listener.url for listener in listeners if not listener.gateway]
    lines = []
    if settings.gateway is not None:
        own = [listener.url for listener in listeners if listener.gateway]
        lines += gateway_banner.lines_of(settings.gateway, own, policy)
    if urls and authority is not None:
        lines.append(f"claude-proxy listens on {_NEXT_ADDRESS.join(urls)}")
        lines.append(f"  CA certificate: {authority.certificate_path}")
    lines += [f"  {source}", f"  audit log:      {database_in(settings.statedir)}"]
    lines.append(f"{others}. Press Ctrl+C to stop." if urls else "Press Ctrl+C to stop.")
    return lines
