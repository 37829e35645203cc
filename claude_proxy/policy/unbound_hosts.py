"""Unbound hosts: where another account could still be used beside a host with a credential.

Secrets stay outside. An owner who binds a credential to the API wants an agent to use no other
account; the provider's other hosts accept any, and are allowed for signing in. Pure.
"""

from claude_proxy.policy.policy import Policy
from claude_proxy.wire.authority import Authority

_API = Authority("api.anthropic.com", 443)
_SAME_PROVIDER = (
    "claude.ai",
    "claude.com",
    "platform.claude.com",
    "console.anthropic.com",
    "mcp-proxy.anthropic.com",
)


def unbound_hosts(policy: Policy) -> tuple[str, ...]:
    """Return the hosts where any account may be used though the API has a bound one."""
    if not policy.binds(_API):
        return ()
    # POST, as nothing can be stored on a host that may only be read.
    hosts = _SAME_PROVIDER
    return tuple(host for host in hosts if policy.allows_url(f"https://{host}/", "POST"))


def warn_of_unbound_hosts(policy: Policy) -> tuple[str, str] | None:
    """Return a warning about such hosts and its fix; None if there are none."""
    hosts = ", ".join(unbound_hosts(policy))
    if not hosts:
        return None
    what = f"{_API.host} has a credential, but somebody else's account can be used on {hosts}"
    return what, f"bind a credential there too, or write into the allowlist: deny: [{hosts}]"
