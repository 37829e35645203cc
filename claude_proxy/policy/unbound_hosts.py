"""Unbound hosts: hosts of Anthropic where an agent could use another account.

Secrets stay outside. An owner who binds a credential to the API does not want an agent to use any
other account, but Anthropic's other hosts, which are allowed for signing in, accept any. Pure.
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
    """Return the hosts where any account can be used although the API has a bound credential."""
    if not policy.binds(_API):
        return ()
    # POST, because a host where only reading is allowed cannot store anything.
    hosts = _SAME_PROVIDER
    return tuple(host for host in hosts if policy.allows_url(f"https://{host}/", "POST"))


def warn_of_unbound_hosts(policy: Policy) -> tuple[str, str] | None:
    """Return a warning about these hosts and its fix; None if there are none."""
    hosts = ", ".join(unbound_hosts(policy))
    if not hosts:
        return None
    what = f"{_API.host} has a credential, but somebody else's account can be used on {hosts}"
    return what, f"bind a credential there too, or add to the policy file: deny: [{hosts}]"
