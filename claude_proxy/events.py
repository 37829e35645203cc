"""Audit events: what the audit log records; nothing here writes it.

Secrets stay outside: no event has room for a header value, a body or a credential. Hosts and paths
are kept as sent; code that prints them escapes them.
"""

from dataclasses import dataclass
from enum import StrEnum

# The scheme of a tunnel whose TLS is passed through: what is spoken inside is not seen.
PASSTHROUGH_SCHEME = "tls"


class Phase(StrEnum):
    """At which of the gates a decision was made."""

    CLIENT = "client"  # the client's own address, uid or credentials
    CONNECT = "connect"  # a tunnel's target
    HELLO = "hello"  # the first bytes inside a tunnel: TLS, SNI
    REQUEST = "request"  # one HTTP request
    CONTENT = "content"  # what the body of a request asks for
    DIAL = "dial"  # an address, just before the socket opens; a credential, just before it leaves
    RELOAD = "reload"  # an open tunnel whose rule is gone


@dataclass(frozen=True, slots=True)
class DecisionMade:
    """One answer of the policy, written before anything is done about it."""

    id: int  # unique and ascending within one audit file: nanoseconds since 1970 at the decision
    connection: int  # the same for all decisions on one client connection
    client: str  # "127.0.0.1:55555"
    listener: str  # the name of the listener that accepted it
    phase: Phase
    scheme: str  # "https", "http", OPAQUE, or "" where none is known yet
    target: str  # "example.com:443", or the unreadable target as sent
    method: str  # "" outside HTTP
    path: str  # without the query unless the owner wants it recorded; "" outside HTTP
    allowed: bool
    reason: str
    rule: str | None  # the pattern that decided, if one did
    rule_source: str | None  # "allowlist.yaml:12"
    credential: str | None = None  # the name of the one that was injected or pinned


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer of the Messages API says that it has cost."""

    model: str = ""
    tokens_in: int = 0  # those that were not in a cache
    tokens_out: int = 0
    cache_written: int = 0  # tokens
    cache_read: int = 0  # tokens


@dataclass(frozen=True, slots=True)
class OutcomeSeen:
    """How an allowed (or denied) attempt ended; joined to its decision by `decision`."""

    decision: int
    # The status code the client got (over SOCKS5, the one that HTTP would have had for it); None
    # where no answer was sent.
    status: int | None
    bytes_up: int  # body bytes client to upstream
    bytes_down: int  # body bytes upstream to client
    duration_ms: float  # from the decision to the end of the exchange
    first_byte_ms: float | None  # from the decision to the answer's head
    upstream: str | None  # "203.0.113.5:443", the address that was dialled
    error: str | None  # a short stable word ("connect-refused", "client-closed"), else None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about the proxy itself: started, stopped, policy applied or rejected."""

    id: int  # as a decision's; 0 for the moment at which it is recorded
    kind: str  # "start", "stop", "policy-applied", "policy-rejected", "limit"
    text: str


Event = DecisionMade | OutcomeSeen | Notice
