"""Questions to the owner: what one is about, and the rule that its answer would add.

Default-deny: an answer opens no more than the question said, one host, port, scheme and kind of
method, and no more than the rule that asks covers. Pure.
"""

from enum import StrEnum
from ipaddress import ip_network

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.git_push import push_path
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, PatternKind
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import RawScheme, Rule, RuleScheme, Tls
from claude_proxy.wire.authority import Authority

MOST_SHOWN = 4096  # characters of a path
READING = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 section 9.2.1


class Access(StrEnum):
    """The kind of what is to be sent; each is asked about by itself."""

    READ = "read"  # GET, HEAD and OPTIONS
    WRITE = "write"  # any method
    TUNNEL = "tunnel"  # bytes that are not judged: tcp, or TLS that is passed through


@dataclass(frozen=True, slots=True)
class Subject:
    """What a question is about: whatever waits with an equal one waits for the same answer."""

    run: str | None  # None: clients that belong to none
    scheme: RuleScheme
    target: Authority
    access: Access

    def __str__(self) -> str:
        return f"{self.access} {self.scheme}://{self.target}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a question says of the attempt that was the first to ask; for a person to read."""

    subject: Subject
    method: str  # "CONNECT" or "SOCKS" for a tunnel
    path: str  # with its query; "" for a tunnel
    program: str  # what is known of the client, "" if nothing
    asking: Rule | None  # the rule that has the owner asked
    size: int = 0  # bytes that are kept while it waits
    agent: str = ""  # what the client calls itself
    websocket: bool = False  # it asks for a channel for both ways

    def short(self) -> "Facts":
        """Return what is worth keeping: the path is of any length."""
        more = len(self.path) - MOST_SHOWN
        if more <= 0:
            return self
        return replace(self, path=f"{self.path[:MOST_SHOWN]}... ({more} more characters)")

    @property
    def what(self) -> str:
        """The attempt in one line, unescaped."""
        both_ways = " (WebSocket)" if self.websocket else ""
        return f"{self.method} {self.subject.scheme}://{self.subject.target}{self.path}{both_ways}"

    @property
    def what_without_query(self) -> str:
        """The same for a record: a query may contain a secret."""
        return replace(self, path=self.path.partition("?")[0]).what


def subject_of_request(run: str | None, request: Request) -> Subject:
    """Return what is asked about a request."""
    begins_push = bool(request.query) and push_path(request.path, request.query) is not None
    reads = request.method in READING and not begins_push and not opens_websocket(request)
    access = Access.READ if reads else Access.WRITE
    return Subject(run, request.scheme, request.target, access)


def opens_websocket(request: Request) -> bool:
    """Return whether a request asks for a channel for both ways (RFC 6455 section 4.1)."""
    return any(name.lower() == b"upgrade" for name, _ in request.fields)


def subject_of_tunnel(run: str | None, target: Authority, decision: Decision) -> Subject:
    """Return what is asked about a tunnel whose content will not be judged."""
    scheme: RuleScheme = RawScheme.TCP if decision.raw else Scheme.HTTPS
    return Subject(run, scheme, target, Access.TUNNEL)


def rule_of_answer(subject: Subject, asking: Rule, source: Location, note: str = "") -> Rule | None:
    """Return the rule that a lasting yes adds; None if it would allow nothing.

    `asking` is the rule that had the owner asked; the new one is within it.
    """
    methods, tls = asking.methods, Tls.INTERCEPT
    if subject.access is Access.READ:
        methods = READING if methods is None else READING & methods
        if not methods:
            return None
    elif subject.access is Access.TUNNEL:
        tls = asking.tls
    return replace(
        asking,
        pattern=_pattern_of(subject.target),
        scheme=subject.scheme,
        ports=frozenset({subject.target.port}),
        methods=methods,
        tls=tls,
        note=note,
        source=source,
        asks=False,
    )


def _pattern_of(target: Authority) -> HostPattern:
    if target.address is None:
        return HostPattern(PatternKind.EXACT, target.host)
    return HostPattern(PatternKind.LITERAL, "", ip_network(target.address))
