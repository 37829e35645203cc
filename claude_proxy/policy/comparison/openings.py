"""Openings: what one policy allows and another does not, each like a rule that a person reads.

Together they are exact: whatever is newly allowed is in one of them, and nothing else is. Pure.
"""

from collections.abc import Iterator
from typing import Any

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.comparison.host_tree import HostSet
from claude_proxy.policy.comparison.path_sets import MorePaths
from claude_proxy.policy.comparison.values import MethodSet, Places, PortSet
from claude_proxy.policy.patterns import HostPattern, PatternKind
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RuleScheme

_USUAL: dict[RuleScheme, int] = {Scheme.HTTPS: 443, Scheme.HTTP: 80}
_MOST_PORTS = 4  # that are shown as places of their own
_MOST_EXCEPTIONS = 6


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests that are judged, by method and path."""

    methods: MethodSet
    paths: MorePaths

    def __str__(self) -> str:
        paths = str(self.paths)
        if not paths:
            every = self.methods.is_every
            return "every request to" if every else f"{self.methods} of every path on"
        return (
            f"{self.methods} of {paths} on" if self.methods.others else f"{self.methods} {paths} on"
        )


@dataclass(frozen=True, slots=True)
class Unseen:
    """Bytes or TLS that nobody judges: `text` says which."""

    text: str

    def __str__(self) -> str:
        return f"{self.text} to"


@dataclass(frozen=True, slots=True)
class Login:
    """A login that requests or a tunnel may use."""

    text: str

    def __str__(self) -> str:
        return f"{self.text} on"


@dataclass(frozen=True, slots=True)
class Capability:
    """What requests to the Messages API may ask for."""

    text: str

    def __str__(self) -> str:
        return f"{self.text} on"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses that names may lead to; `own`: also where they are this machine's."""

    networks: tuple[HostSet, ...]
    own: bool = False

    def __str__(self) -> str:
        listed = ", ".join(f"{each}{_but(each.but)}" for each in self.networks)
        return f"{listed}{', if it is of this machine,' if self.own else ''} as the address of"


type What = Requests | Unseen | Login | Capability | Addresses

TCP = "bytes of any protocol but HTTP"
TCP_WITHOUT_TLS = "bytes of any protocol but HTTP and TLS"
OPAQUE = "bytes of any protocol"
TLS_IN_TCP = "TLS in a tunnel of tcp"
PASSTHROUGH = "TLS that is passed through unopened"
CONNECTION = "a connection, but no request,"
OWN_ADDRESS = "a connection, if it is an address of this machine,"

_KINDS: dict[type[What], str] = {
    Requests: "requests",
    Unseen: "tunnel",
    Login: "login",
    Capability: "capability",
    Addresses: "address",
}


@dataclass(frozen=True, slots=True)
class Opening:
    """Something that is allowed on some hosts, schemes and ports."""

    what: What
    hosts: HostSet
    places: Places
    partly: "tuple[Partly, ...]" = ()  # hosts of these where the other policy allows some of it

    def __str__(self) -> str:
        if isinstance(self.what, Addresses):
            return f"{self.what} {self.hosts}{_but(self.hosts.but)}{_of_ports(self.places)}"
        but = _but(self.hosts.but)
        if self.partly:
            but += ", except what both allow"
        return f"{self.what} {', '.join(self.where())}{but}"

    def where(self) -> Iterator[str]:
        """Yield the places as text, such as "https://example.com:8443"."""
        host, places = str(self.hosts), dict(self.places)
        if (
            len(places) > 1
            and len(set(places.values())) == 1
            and next(iter(places.values())).others
        ):
            yield f"{host} at {next(iter(places.values()))} (http and https)"
            return
        for scheme, ports in self.places:
            yield from _urls(scheme, host, ports, bracketed=_is_ipv6(self.hosts.pattern))

    @property
    def sort_key(self) -> tuple[object, ...]:
        """The order of lines: by hosts, then by kind."""
        return (self.hosts.sort_key, list(_KINDS).index(type(self.what)), str(self))

    def facts(self) -> dict[str, Any]:
        """Return the opening as values for JSON."""
        found: dict[str, Any] = {
            "text": str(self),
            "kind": _KINDS[type(self.what)],
            "host": str(self.hosts),
            "except": list(map(str, self.hosts.but)),
            "places": [
                {
                    "scheme": scheme.value,
                    "ports": None if ports.others else sorted(ports.ports),
                    "except_ports": sorted(ports.ports) if ports.others else [],
                }
                for scheme, ports in self.places
            ],
        }
        what = self.what
        if isinstance(what, Requests):
            found["methods"] = None if what.methods.others else sorted(what.methods.names)
            found["except_methods"] = sorted(what.methods.names) if what.methods.others else []
            found["paths"] = [
                {
                    "match": list(part.globs),
                    "match_any_spelling": list(part.spelled),
                    "except": list(part.but),
                    "except_any_spelling": list(part.but_spelled),
                }
                for part in what.paths.parts
            ]
            found["ambiguous_paths"] = what.paths.ambiguous
            found["partly"] = [
                {"host": str(each.hosts), "opens": [rest.facts() for rest in each.rest]}
                for each in self.partly
            ]
        elif isinstance(what, Addresses):
            found["addresses"] = [
                {"network": str(each), "except": list(map(str, each.but))} for each in what.networks
            ]
        else:
            found["what"] = what.text
        return found


@dataclass(frozen=True, slots=True)
class Partly:
    """Hosts where only a part of an opening is new: what that is, if anything."""

    hosts: HostSet
    rest: tuple[Opening, ...]


def _urls(scheme: RuleScheme, host: str, ports: PortSet, *, bracketed: bool) -> Iterator[str]:
    shown = f"[{host}]" if bracketed else host
    if " " in host:  # "every public host"
        usual = not ports.others and ports.ports == {_USUAL.get(scheme)}
        yield f"{host} by {scheme}" + ("" if usual else f" at {_named(ports)}")
    elif ports.others or len(ports.ports) > _MOST_PORTS:
        yield f"{scheme}://{shown} at {_named(ports)}"
    else:
        for port in sorted(ports.ports):
            usual = _USUAL.get(scheme) == port
            yield f"{scheme}://{shown}" + ("" if usual else f":{port}")


def _named(ports: PortSet) -> str:
    if ports.others:
        return str(ports)
    return f"{'port' if len(ports.ports) == 1 else 'ports'} {ports}"


def _of_ports(places: Places) -> str:
    ports = {ports for _, ports in places}
    if len(ports) != 1 or ports in (
        {PortSet(frozenset({443}))},
        {PortSet(frozenset(), others=True)},
    ):
        return ""
    return f" at {_named(ports.pop())}"


def _is_ipv6(pattern: HostPattern) -> bool:
    network = pattern.network
    return network is not None and network.version == 6 and pattern.kind is PatternKind.LITERAL  # noqa: PLR2004 - of IP


def _but(patterns: tuple[HostPattern, ...]) -> str:
    if not patterns:
        return ""
    shown = ", ".join(map(str, patterns[:_MOST_EXCEPTIONS]))
    more = len(patterns) - _MOST_EXCEPTIONS
    return f" but {shown}" + (f" and {more} more" if more > 0 else "")
