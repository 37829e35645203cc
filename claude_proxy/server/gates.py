"""Holds the gates of one process, for proxy and gateway, and the vault that they share.

Law kept: one judge (2). A policy is taken into use by all of them at once, together with the
credentials that it names, so that no request is judged by one policy and given another's value.
"""

from collections.abc import Callable
from dataclasses import replace

from claude_proxy.config.settings import Gateway, Limits, Settings
from claude_proxy.policy.credentials.binding import Binding
from claude_proxy.policy.policy import Policy
from claude_proxy.proxy.gate import Gate, Record
from claude_proxy.proxy.gateway.banner import secret_variables
from claude_proxy.proxy.gateway.policy import binding_of, policy_of
from claude_proxy.vault.vault import Vault


def vault_of(settings: Settings, policy: Policy) -> Vault:
    """Read the credentials of a start; ConfigError if one of them cannot be had.

    The variables that they are in are gone from this process's environment afterwards.
    """
    gateway = settings.gateway
    withheld = frozenset[str]() if gateway is None else secret_variables(gateway)
    return Vault(_bindings_of(settings, policy), settings.statedir, withheld=withheld)


class Judges:
    """The gates, and what they judge by."""

    def __init__(self, settings: Settings, policy: Policy, record: Record, vault: Vault) -> None:
        self._settings = settings
        self._vault = vault

        def gate_of(judged: Policy) -> Gate:
            return Gate(judged, record, secret_provider=vault, audit_failure=settings.audit_failure)

        self.proxy = gate_of(policy)
        gateway = settings.gateway
        self.gateway = None if gateway is None else gate_of(policy_of(gateway, policy))

    def prepare(self, policy: Policy) -> Callable[[], None]:
        """Read the credentials of another policy; return what takes both into use.

        ConfigError if a credential cannot be had. It may take as long as their commands do.
        """
        state = self._vault.prepare(_bindings_of(self._settings, policy))

        def take() -> None:
            self._vault.take(state)
            self.proxy.policy = policy
            gateway = self._settings.gateway
            if gateway is not None and self.gateway is not None:
                self.gateway.policy = policy_of(gateway, policy)

        return take


def limits_of(gateway: Gateway, limits: Limits) -> Limits:
    """Return the limits of a gateway's connections: its timeout bounds every silence."""
    patience_s = gateway.timeout_s
    connect_s = min(limits.connect_timeout_s, patience_s)
    return replace(
        limits,
        idle_timeout_s=patience_s,
        connect_timeout_s=connect_s,
        handshake_timeout_s=min(limits.handshake_timeout_s, patience_s - connect_s),
    )


def _bindings_of(settings: Settings, policy: Policy) -> tuple[Binding, ...]:
    gateway = settings.gateway
    # A gateway alone uses its own key: others' are not to be in its memory, nor to be missed.
    listed = policy.credentials if settings.listen else ()
    return listed if gateway is None else (*listed, binding_of(gateway))
