"""Knows where somebody else's account could still be used, beside the host that has its credential.

Law kept: secrets stay outside (9). Who binds a credential to the API wants no other account to be
of use to an agent; the provider's other hosts take any, and are allowed for signing in. Pure.
"""

from claude_proxy.policy.policy import Policy
from claude_proxy.wire.authority import Authority

_API = Authority("api.anthropic.com", 443)
_OF_THE_SAME_ACCOUNTS = (
    "claude.ai",
    "claude.com",
    "platform.claude.com",
    "console.anthropic.com",
    "mcp-proxy.anthropic.com",
)


def unbound_hosts(policy: Policy) -> tuple[str, ...]:
    """Return the hosts where any account may be used though one is bound at the API."""
    if not policy.binds(_API):
        return ()
    # POST, as a host that may only be read keeps nothing for anybody.
    hosts = _OF_THE_SAME_ACCOUNTS
    return tuple(host for host in hosts if policy.allows_url(f"https://{host}/", "POST"))


def warn_of_unbound_hosts(policy: Policy) -> tuple[str, str] | None:
    """Return what to tell the owner of such hosts, and the fix; None if there are none."""
    hosts = ", ".join(unbound_hosts(policy))
    if not hosts:
        return None
    what = f"{_API.host} has a credential, but somebody else's account can be used on {hosts}"
    return what, f"bind a credential there too, or write into the allowlist: deny: [{hosts}]"
