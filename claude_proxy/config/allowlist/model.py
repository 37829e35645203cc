"""Policy files as values: rules, and what a run of the policy gets of the network and the home."""

from enum import StrEnum

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.location import Location
from claude_proxy.policy.policy import Policy


class Default(StrEnum):
    """What happens to a host that no entry names."""

    DENY = "deny"
    ALLOW = "allow"
    ASK = "ask"


class NetworkMode(StrEnum):
    """How a run of the policy reaches the network."""

    PROXY = "proxy"  # through the proxy alone
    NONE = "none"  # not at all
    OPEN = "open"  # as without claude-proxy; nothing is judged


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """What one policy file says, with everything that it includes."""

    policy: Policy
    source: Location  # where `network` is written, else where the file begins
    description: str = ""
    default: Default = Default.DENY
    network: NetworkMode = NetworkMode.PROXY
    profile: str | None = None  # of `claude-proxy run`; None: the one of the command
