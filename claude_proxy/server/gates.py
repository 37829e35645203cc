"""The gates of one process, for the proxy and the gateway, and the vault they share.

Keeps "one judge": a new policy takes effect in all gates at once, together with the credentials it
names, so that no request is judged by one policy and given the secret of another.
"""

from collections.abc import Callable

from claude_proxy.config.settings import Gateway, Limits, Settings
from claude_proxy.deferred.data_classes import replace
from claude_proxy.policy.policy import Policy
from claude_proxy.proxy.gate import Gate, Record
from claude_proxy.proxy.gateway.policy import policy_of
from claude_proxy.server.vaults import bindings_of
from claude_proxy.vault.vault import Vault


class Gates:
    """The gates of one process, and the policy and secrets they use."""

    def __init__(self, settings: Settings, policy: Policy, record: Record, vault: Vault) -> None:
        self._settings = settings
        self._vault = vault

        def gate_of(judged: Policy) -> Gate:
            return Gate(judged, record, secret_provider=vault, audit_failure=settings.audit_failure)

        self.proxy = gate_of(policy)
        gateway = settings.gateway
        self.gateway = None if gateway is None else gate_of(policy_of(gateway, policy))

    def prepare(self, policy: Policy) -> Callable[[], None]:
        """Read the credentials of a new policy; return a function that activates both.

        ConfigError if a credential is unavailable. Credential commands may make it slow.
        """
        state = self._vault.prepare(bindings_of(self._settings, policy))

        def activate() -> None:
            self._vault.take(state)
            self.proxy.policy = policy
            gateway = self._settings.gateway
            if gateway is not None and self.gateway is not None:
                self.gateway.policy = policy_of(gateway, policy)

        return activate


def limits_of(gateway: Gateway, limits: Limits) -> Limits:
    """Return the limits of the gateway's connections: its timeout bounds every idle wait."""
    timeout_s = gateway.timeout_s
    connect_s = min(limits.connect_timeout_s, timeout_s)
    return replace(
        limits,
        idle_timeout_s=timeout_s,
        connect_timeout_s=connect_s,
        handshake_timeout_s=min(limits.handshake_timeout_s, timeout_s - connect_s),
    )
