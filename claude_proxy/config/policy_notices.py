"""Policy notices: what a start says once about a policy whose owner has a choice to make."""

from claude_proxy.config.settings import Settings
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.unbound_hosts import warn_of_unbound_hosts
from claude_proxy.system import shown_once


def unbound_hosts_notice(settings: Settings, policy: Policy) -> str | None:
    """Return the warning about hosts that take any account; None if it was shown for this list.

    It is shown again when the list changes which hosts these are.
    """
    words = warn_of_unbound_hosts(policy)
    if words is None:
        return None
    place = settings.allowlist if settings.policy is None else settings.policy
    if not shown_once.is_new(settings.statedir, f"{place}\0{words[0]}"):
        return None
    return f"{words[0]}; fix: {words[1]}; this is said once for each list"
