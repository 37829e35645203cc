"""Audit events: the decisions, outcomes and notices that `audit/` records.

Secrets stay outside: no event has a field for a header value, a body or a credential. Hosts and
paths are kept as sent; code that prints them must escape them.
"""

from enum import StrEnum
from typing import NamedTuple

from claude_proxy.deferred.data_classes import dataclass

# The scheme of a tunnel that is passed through without interception: its content is unknown.
PASSTHROUGH_SCHEME = "tls"
# The scheme of a tunnel in which any protocol may be spoken.
TCP_SCHEME = "tcp"


class Phase(StrEnum):
    """The point at which a decision was made."""

    CLIENT = "client"  # the client's own address, uid or credentials
    CONNECT = "connect"  # a tunnel's target
    HELLO = "hello"  # the first bytes inside a tunnel: TLS, SNI
    REQUEST = "request"  # one HTTP request
    CONTENT = "content"  # the body of a request
    DIAL = "dial"  # an address, just before the socket opens; a credential, just before it leaves
    RELOAD = "reload"  # an open tunnel whose rule was removed


class DecisionMade(NamedTuple):  # two for each request: a frozen dataclass takes thrice as long
    """One decision of the policy, recorded before it takes effect."""

    # Unique and ascending in the order of recording within one audit file. It begins as the time in
    # nanoseconds since 1970, and is a later number where the clock was set back.
    id: int
    connection: int  # the same for all decisions on one client connection
    client: str  # "127.0.0.1:55555"
    listener: str  # the name of the listener that accepted it
    phase: Phase
    # "https", "http", PASSTHROUGH_SCHEME, TCP_SCHEME, or "" while it is unknown.
    scheme: str
    target: str  # "example.com:443", or the unreadable target as sent
    method: str  # "" outside HTTP
    path: str  # the query only if the owner wants it recorded; "" outside HTTP
    allowed: bool
    reason: str
    rule: str | None  # the pattern of the rule that decided, if one did
    rule_source: str | None  # "allowlist.yaml:12"
    credential: str | None = None  # the name of the credential that was injected or pinned
    run: str | None = None  # the name of the `claude-proxy run` that the client belongs to
    attempt: int | None = None  # the id of the allowed decision whose attempt this denial ends
    at: int = 0  # nanoseconds since 1970; 0: the id is the time
    # How many equal denials this one stands for. It hides a method of tuples.
    count: int = 1  # type: ignore[assignment]
    last: int = 0  # when the last of them was made, like `at`; 0: there is one only

    @property
    def time_ns(self) -> int:
        """When it was made, in nanoseconds since 1970."""
        return self.at or self.id


@dataclass(frozen=True, slots=True)
class Usage:
    """The token usage that a response of the Messages API reports."""

    model: str = ""
    tokens_in: int = 0  # without those from a cache
    tokens_out: int = 0
    cache_written: int = 0  # tokens
    cache_read: int = 0  # tokens


class OutcomeSeen(NamedTuple):
    """How an allowed or denied attempt ended."""

    decision: int  # the id of its decision
    # The status code that the client got (over SOCKS5, the HTTP status of the same meaning); None
    # if no response was sent.
    status: int | None
    bytes_up: int  # body bytes from client to upstream
    bytes_down: int  # body bytes from upstream to client
    duration_ms: float  # from the decision to the end of the exchange
    first_byte_ms: float | None  # from the decision to the head of the response
    upstream: str | None  # "203.0.113.5:443", the address that was dialled, or was denied
    error: str | None  # a short stable word ("connect-refused", "client-closed"), else None
    usage: Usage | None = None
    allowed: bool = True  # what the decision was
    decided_at: int = 0  # the time of the decision, where its id is not the time

    @property
    def time_ns(self) -> int:
        """When it was seen, in nanoseconds since 1970."""
        return (self.decided_at or self.decision) + round(self.duration_ms * 1e6)


# The kind of the notices of connections that are opened ahead of a request.
WARM_UPSTREAM = "warm-upstream"


@dataclass(frozen=True, slots=True)
class Notice:
    """An event of the proxy itself: started, stopped, policy applied or rejected."""

    id: int  # like that of a decision; 0: the time at which it is recorded
    kind: str  # "start", "stop", "policy-applied", "policy-rejected", WARM_UPSTREAM
    text: str
    run: str | None = None  # the name of the run that it is about
    at: int = 0  # like that of a decision

    @property
    def time_ns(self) -> int:
        """When it was made, in nanoseconds since 1970."""
        return self.at or self.id


Event = DecisionMade | OutcomeSeen | Notice
