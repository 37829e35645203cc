"""Policy of a gateway, derived from the loaded one.

Default-deny, one judge: the gateway's upstream is allowed because it is configured, for what its
mode serves and for nothing else; deny rules and API restrictions are those of the loaded policy,
and the one credential is the gateway's own. Pure.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network

from claude_proxy.config.settings import Base, Gateway, GatewayMode
from claude_proxy.policy.credentials.binding import Binding
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, PathGlob, PatternKind
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme, Rule, Tls
from claude_proxy.proxy.gateway.routes import MESSAGES_PATH
from claude_proxy.wire.authority import Authority

CREDENTIAL = "gateway"
SOURCE = Location("gateway", 1, 1)

type _Network = IPv4Network | IPv6Network

_LOOPBACK: tuple[_Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
_PATHS = {
    GatewayMode.STRICT: (MESSAGES_PATH,),
    GatewayMode.CLAUDE: (
        MESSAGES_PATH,
        f"{MESSAGES_PATH}/count_tokens",
        "/v1/models",
        "/v1/models/*",
    ),
}
_METHODS = {
    GatewayMode.STRICT: frozenset({"POST"}),
    GatewayMode.CLAUDE: frozenset({"POST", "GET"}),
}


@dataclass(frozen=True, slots=True)
class GatewayPolicy(Policy):
    """A policy for one upstream, which knows what the loaded one lets a client reach."""

    loaded: Policy = field(default_factory=Policy)

    def allows_url(self, url: str, method: str = "GET") -> bool:
        """Tell whether a client itself may request `url`, by the loaded policy."""
        return self.loaded.allows_url(url, method)


def policy_of(gateway: Gateway, loaded: Policy) -> Policy:
    """Return the policy that the gateway's requests are judged by."""
    base = gateway.upstream
    pattern = _pattern_of(base.authority)
    rule = Rule(
        pattern=pattern,
        scheme=base.scheme,
        ports=frozenset({base.authority.port}),
        methods=_METHODS[gateway.mode],
        paths=tuple(PathGlob(base.path + path) for path in _PATHS[gateway.mode]),
        tls=Tls.INTERCEPT,
        addresses=_addresses(base, loaded),
        note="",
        source=SOURCE,
    )
    return GatewayPolicy(
        allow=(rule,),
        deny=loaded.deny,
        credentials=(binding_of(gateway),),
        restrictions=loaded.restrictions,
        loaded=loaded,
    )


def binding_of(gateway: Gateway) -> Binding:
    """Return the binding of the gateway's credential to its upstream."""
    authority = gateway.upstream.authority
    return Binding(
        CREDENTIAL,
        (_pattern_of(authority),),
        gateway.credential,
        SOURCE,
        ports=frozenset({authority.port}),
    )


def _pattern_of(authority: Authority) -> HostPattern:
    if authority.address is None:
        return HostPattern(PatternKind.EXACT, authority.host)
    return HostPattern(PatternKind.LITERAL, "", ip_network(authority.address))


def _addresses(base: Base, loaded: Policy) -> tuple[_Network, ...]:
    """Return the non-public addresses that the loaded policy lets the upstream have."""
    # Plain HTTP is for this machine alone, whatever a name resolves to.
    if base.scheme is Scheme.HTTP:
        return _LOOPBACK
    rules = [
        rule
        for rule in loaded.allow
        if rule.pattern.covers(base.authority) and rule.scheme is not RawScheme.TCP
    ]
    return tuple(dict.fromkeys(network for rule in rules for network in rule.addresses))
