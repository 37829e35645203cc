"""Rules of a policy: the hosts, ports, methods and paths that one entry covers.

Fail closed: a rule that could not be enforced cannot be created, and an empty list is an error,
never "everything". Pure.
"""

from collections.abc import Iterable
from enum import StrEnum

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, PathGlob
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.address import Network
from claude_proxy.wire.authority import MAX_PORT

# Many web frameworks let these header fields replace the method or path, which would bypass a rule
# for either. Where such a rule applies, they are removed.
OVERRIDE_HEADERS: frozenset[bytes] = frozenset(
    {
        b"x-http-method-override",
        b"x-http-method",
        b"x-method-override",
        b"x-method",
        b"x-http-override",
        b"x-original-method",
        b"x-forwarded-method",
        b"x-override-method",
        b"x-original-url",
        b"x-original-uri",
        b"x-rewrite-url",
        b"x-rewrite-uri",
        b"x-override-url",
        b"x-forwarded-uri",
        b"x-forwarded-path",
        b"x-forwarded-prefix",
        b"x-envoy-original-path",
        b"x-envoy-original-method",
        b"x-middleware-subrequest",
        b"x-middleware-rewrite",
    }
)


class RawScheme(StrEnum):
    """The scheme of a rule for bytes of any protocol; no request has it."""

    TCP = "tcp"


type RuleScheme = Scheme | RawScheme

# Where HTTP is spoken, in TLS or not: what is neither has no business there.
WEB_PORTS = frozenset({80, 443})


class Tls(StrEnum):
    """What happens to TLS inside a tunnel: decrypted and judged, or left alone."""

    INTERCEPT = "intercept"
    PASSTHROUGH = "passthrough"


_is_token = lazy_pattern(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch


def _is_method(text: str) -> bool:
    return _is_token(text) is not None and text.upper() == text


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `allow` or `deny`; None means every value."""

    pattern: HostPattern
    scheme: RuleScheme | None  # None: http and https, and of a denial tcp as well
    ports: frozenset[int] | None
    methods: frozenset[str] | None
    paths: tuple[PathGlob, ...] | None
    tls: Tls
    addresses: tuple[Network, ...]  # addresses that are not public but that the host may have
    note: str
    source: Location
    # Of tcp: the first bytes are not looked at either. No file can say so: `policy.host_services`.
    opaque: bool = False
    asks: bool = False  # allows nothing by itself: the owner is asked first

    def __post_init__(self) -> None:
        # An empty set is a mistake that could mean "nothing" or "everything".
        if self.ports == frozenset() or self.methods == frozenset() or self.paths == ():
            raise ValueError(f"the rule for {self.name} has an empty list")
        if self.ports is not None and not all(1 <= port <= MAX_PORT for port in self.ports):
            raise ValueError(f"the rule for {self.name} has a port outside 1-{MAX_PORT}")
        if self.methods is not None and not all(map(_is_method, self.methods)):
            raise ValueError(f"the rule for {self.name} has a method that is not in capitals")
        if self.opaque and self.scheme is not RawScheme.TCP:
            raise ValueError(f"the rule for {self.name} is for requests, which are judged")
        if self.scheme is RawScheme.TCP and self.limited:
            raise ValueError(f"the rule for {self.name} limits requests, and tcp has none")
        if self.tls is Tls.PASSTHROUGH and (self.limited or self.scheme is not Scheme.HTTPS):
            raise ValueError(f"the rule for {self.name} limits requests, which passthrough hides")

    @property
    def name(self) -> str:
        """The host pattern in its canonical spelling."""
        return str(self.pattern)

    @property
    def limited(self) -> bool:
        """Whether the rule covers only some requests to its hosts, by method or path."""
        return self.methods is not None or self.paths is not None

    def __str__(self) -> str:
        words = [f"{self.scheme}://{self.name}" if self.scheme else self.name]
        if self.ports is not None:
            words.append(f"ports {_listed(self.ports)}")
        if self.methods is not None:
            words.append(f"methods {_listed(self.methods)}")
        if self.paths is not None:
            words.append(f"paths {_listed(glob.text for glob in self.paths)}")
        if self.tls is Tls.PASSTHROUGH:
            words.append("passthrough")
        if self.addresses:
            words.append(f"addresses {_listed(map(str, self.addresses))}")
        if self.asks:
            words.append("asks")
        return " ".join(words)


def _listed(values: Iterable[str | int]) -> str:
    return ",".join(map(str, sorted(values, key=lambda value: (isinstance(value, str), value))))
