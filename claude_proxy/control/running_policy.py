"""Policy of a running proxy: what it judges by, read again from where the proxy had it from.

Exact: what is read counts only if its version is the one that every worker has in force. No secret
goes over the control socket, and none is read.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from claude_proxy.config import policy_files
from claude_proxy.config.settings import Learn, Settings
from claude_proxy.control.client import Proxy
from claude_proxy.control.protocol import ControlError
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.policy.policy import Policy

POLICY_OP = "policy"
_VERSION_DIGITS = 12


def version_of(policy: Policy) -> str:
    """Return a digest of what a policy says: the same for the same entries, wherever they are."""
    lines, _ = Policy().diff(policy)
    return sha256("\n".join(lines).encode()).hexdigest()[:_VERSION_DIGITS]


def source_of(settings: Settings, policy: Policy) -> dict[str, Any]:
    """Return from where a proxy has its policy, as JSON, and the version in force."""
    learn, narrowing = settings.learn, settings.narrowing
    return {
        "version": version_of(policy),
        "policy": settings.policy,
        "allowlist": str(settings.allowlist),
        "confdir": str(settings.confdir),
        "ask": settings.ask,
        "learn": None if learn is None else [learn[0].value, str(learn[1])],
        "narrowing": None if narrowing is None else str(narrowing),
        "host_ports": list(settings.host_ports),
    }


def policy_in_force(proxy: Proxy) -> Policy:
    """Return what a proxy judges by, without grants; ClaudeProxyError if that cannot be told."""
    answers = proxy.ask_workers(POLICY_OP)
    versions = {str(one.get("version")) for one in answers}
    if len(versions) > 1:
        raise ControlError(
            f"the workers of {proxy.name} do not judge by the same policy yet",
            where=f"process {proxy.facts.pid}",
            fix="try again in a moment",
        )
    try:
        settings = _settings_of(answers[0])
    except (KeyError, TypeError, ValueError):
        raise ControlError(
            f"the proxy {proxy.name} does not say where its policy is from",
            where=f"process {proxy.facts.pid}",
            fix="use the claude-proxy that started it, or start it again",
        ) from None
    problem = "the file says something else now"
    try:
        policy = policy_files.load_for(settings).policy
        if version_of(policy) in versions:
            return policy
    except ClaudeProxyError as error:
        problem = error.what
    named = settings.allowlist if settings.policy is None else f"policy {settings.policy}"
    raise ControlError(
        f"what {proxy.name} judges by cannot be read again: {problem}",
        where=str(named),
        fix=f"put the change in force with `claude-proxy reload {proxy.name}`, then compare",
    )


def _settings_of(found: Mapping[str, Any]) -> Settings:
    learn, narrowing = found["learn"], found["narrowing"]
    return Settings(
        Path(found["allowlist"]),
        Path(found["confdir"]),
        Path("/"),  # nothing of it is read
        policy=None if found["policy"] is None else str(found["policy"]),
        ask=found["ask"] is True,
        learn=None if learn is None else (Learn(learn[0]), Path(learn[1])),
        narrowing=None if narrowing is None else Path(narrowing),
        host_ports=tuple(int(port) for port in found["host_ports"]),
    )
