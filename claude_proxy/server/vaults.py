"""The vault of one process: which credentials it holds, for the proxy and for the gateway.

Keeps "no quiet downgrade": the credentials are read before there is an engine, which this module
does not import.
"""

from claude_proxy.config.settings import Settings
from claude_proxy.policy.credentials.binding import Binding
from claude_proxy.policy.policy import Policy
from claude_proxy.proxy.gateway.banner import secret_variables
from claude_proxy.proxy.gateway.policy import binding_of
from claude_proxy.vault.vault import Vault


def vault_of(settings: Settings, policy: Policy) -> Vault:
    """Read the credentials at startup; ConfigError if one of them is unavailable.

    Removes the variables that hold them from this process's environment.
    """
    gateway = settings.gateway
    withheld = frozenset[str]() if gateway is None else secret_variables(gateway)
    return Vault(bindings_of(settings, policy), settings.statedir, withheld=withheld)


def bindings_of(settings: Settings, policy: Policy) -> tuple[Binding, ...]:
    """Return the credentials that the policy and the gateway name."""
    gateway = settings.gateway
    # A gateway alone uses only its own key; no other secret may be in its memory or be required.
    listed = policy.credentials if settings.listen else ()
    return listed if gateway is None else (*listed, binding_of(gateway))
