"""Domain lists of sandbox-runtime and Claude Code: their patterns, denied and allowed.

Laws kept: no quiet downgrade, a denial always wins, as it does there. Pure.
"""

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from claude_proxy.config.imports.draft import NARROWER, NOT_CARRIED, Draft
from claude_proxy.config.imports.emission import emit
from claude_proxy.config.imports.host_tests import EVERY, HostTest, Item
from claude_proxy.config.imports.openings import HostIs, Literal, Opening, PortIs, without
from claude_proxy.config.imports.port_sets import ALL_PORTS, PortSet
from claude_proxy.config.imports.squid_acls import pattern_of_network
from claude_proxy.config.strict_yaml.hosts import pattern_of
from claude_proxy.config.strict_yaml.nodes import quoted
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, PatternError, PatternKind
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.address import Network

_with_port = lazy_pattern(r"(\[[^\]]*\]|[^:]*):([1-9][0-9]{0,4})").fullmatch
_WEB_PORTS = {Scheme.HTTPS: 443, Scheme.HTTP: 80}


@dataclass(frozen=True, slots=True)
class DomainEntry:
    """One entry of a list of domains."""

    text: str
    source: Location
    pattern: HostPattern
    port: int | None  # None: every port

    @property
    def literals(self) -> list[Literal]:
        """What has to hold for a request that it covers."""
        item = Item(self.text, self.source, pattern=self.pattern)
        ports = ALL_PORTS if self.port is None else PortSet.single(self.port)
        return [Literal(HostIs(HostTest([item]))), Literal(PortIs(ports))]


def read(
    entries: Iterable[tuple[str, Location]], draft: Draft, *, denied: bool
) -> list[DomainEntry]:
    """Return what a list says, with a remark about what no entry can say.

    A denial that no entry can say takes from what is allowed.
    """
    found = []
    for text, source in entries:
        host, port = _split(text)
        try:
            pattern = EVERY if host == "*" else _pattern(host)
        except PatternError as error:
            if denied and (wide := _internal(host)) is not None:
                found.append(DomainEntry(text, source, wide, port))
            else:
                draft.remark(NOT_CARRIED, error.what, source, error.fix)
            continue
        if host == "localhost" and not denied:
            what = '"localhost" is this machine, which a sandbox does not reach by a name'
            draft.remark(NOT_CARRIED, what, source, "see --host-port of `claude-proxy run`")
            continue
        if pattern == EVERY and not denied:
            what = f"{quoted(text)} allows every host"
            fix = "name the hosts, or write default: allow"
            draft.remark(NOT_CARRIED, what, source, fix)
            continue
        found.append(DomainEntry(text, source, pattern, port))
    return found


def convert(
    allowed: list[DomainEntry],
    denied: list[DomainEntry],
    draft: Draft,
    *,
    plain_http: bool,
    addresses: Iterable[tuple[Network, Location]] = (),
) -> None:
    """Add to a draft what the lists allow; `addresses` are those that no name may resolve to."""
    openings = [
        opening
        for scheme in (Scheme.HTTPS, *([Scheme.HTTP] if plain_http else []))
        for entry in allowed
        for opening in _opening(entry, scheme)
    ]
    for denial in denied:
        before, openings = openings, []
        for opening in before:
            result = without(opening, denial.literals, denial.source)
            openings += result.openings
            for loss in result.losses:
                fix = "allow by hand what is needed"
                draft.remark(NARROWER, loss.what, loss.source, fix)
    emit(openings, draft)
    for network, source in addresses:
        draft.deny_network(pattern_of_network(network), source)
    _note_ports(allowed, draft, plain_http=plain_http)


def _opening(entry: DomainEntry, scheme: Scheme) -> list[Opening]:
    port = _WEB_PORTS[scheme] if entry.port is None else entry.port
    other = _WEB_PORTS[Scheme.HTTP if scheme is Scheme.HTTPS else Scheme.HTTPS]
    if port == other or (scheme is Scheme.HTTP and entry.port not in {None, port}):
        return []
    return [Opening(scheme, entry.source, (entry.pattern,), PortSet.single(port))]


def _note_ports(allowed: list[DomainEntry], draft: Draft, *, plain_http: bool) -> None:
    anywhere = [each for each in allowed if each.port is None]
    if anywhere:
        kept = "443, and 80 without TLS," if plain_http else "443"
        what = f"entries without a port allow every port there, and {kept} here"
        fix = "add ports to the entries that need others"
        if not plain_http:
            fix += "; --http adds plain HTTP on port 80"
        draft.remark(NARROWER, what, anywhere[0].source, fix)
    for each in allowed:
        if each.port not in {None, *_WEB_PORTS.values()}:
            what = "entries with a port allow every protocol on it, and TLS alone here"
            fix = "add entries with scheme: http or tcp where another is spoken"
            draft.remark_once(NARROWER, what, each.source, fix)
        if each.port == _WEB_PORTS[Scheme.HTTP] and not plain_http:
            what = f"{quoted(each.text)} is for plain HTTP"
            draft.remark(NOT_CARRIED, what, each.source, "import with --http")


def _split(text: str) -> tuple[str, int | None]:
    """Return host and port of an entry; an IPv6 address with a port is in brackets."""
    found = _with_port(text)
    host, port = (found[1], int(found[2])) if found else (text, None)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host, port


def _pattern(host: str) -> HostPattern:
    if host.startswith(".") or "/" in host:
        # Not a pattern there; as one it would cover more than the entry does.
        fix = f'write "*{host}" there, if its subdomains are meant' if host[:1] == "." else ""
        raise PatternError(
            f"{quoted(host)} is no pattern of that list", fix or "write the host alone"
        )
    return pattern_of(host.lower() if host.isascii() else host)


def _internal(host: str) -> HostPattern | None:
    """Return the hosts of a pattern that no entry can be, such as "*.com"."""
    match = re.fullmatch(r"(\*\.)?([a-z0-9_.-]+)", host.lower())
    if match is None:
        return None
    kind = PatternKind.SUBDOMAINS if match[1] else PatternKind.EXACT
    return HostPattern(kind, match[2])


def network_of(text: str) -> Network:
    """Return an address or a network; ValueError if it is neither."""
    return ip_network(text if "/" in text else ip_address(text), strict=False)
