"""Converter of plain lists: names by line, /etc/hosts, and the usual forms of blocklists.

Laws kept: no quiet downgrade, silence before allow. A name alone is allowed, one with a null
address is denied; a line that could be read in two ways is read in none. Pure.
"""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from claude_proxy.config.imports.draft import NARROWER, NOT_CARRIED, Draft, Entry
from claude_proxy.config.imports.host_tests import is_writable
from claude_proxy.config.strict_yaml.hosts import pattern_of
from claude_proxy.config.strict_yaml.nodes import quoted
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ConfigError
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, PatternError, PatternKind
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.address import Address, AddressKind, kind_of

# Names of every machine for itself, as /etc/hosts has them.
_OWN_NAMES = frozenset(
    (
        *("localhost", "localhost.localdomain", "localhost4", "localhost6", "broadcasthost"),
        *("localhost4.localdomain4", "localhost6.localdomain6", "local"),
        *("ip6-localhost", "ip6-loopback", "ip6-localnet", "ip6-mcastprefix"),
        *("ip6-allnodes", "ip6-allrouters", "ip6-allhosts"),
    )
)
_NULL = frozenset({AddressKind.LOOPBACK, AddressKind.UNSPECIFIED})
_with_port = lazy_pattern(r"(\[[^\]]*\]|[^:/]*):([1-9][0-9]{0,4})").fullmatch
_url = lazy_pattern(r"(https?)://([^/?#@]*)(/?)").fullmatch
_blocked_domain = lazy_pattern(r"\|\|([^/^$|*]+)\^(?:\$(?:important|third-party|all))?").fullmatch
_dnsmasq = lazy_pattern(
    r"(?:address|local|server)=/([^/]+)/(?:0\.0\.0\.0|::|127\.0\.0\.1|#)?"
).fullmatch
_FIX = "write one host in each line, such as example.com or *.example.com"


@dataclass(frozen=True, slots=True)
class _Line:
    words: list[str]
    source: Location


def convert(text: str, *, name: str, deny: bool = False, plain_http: bool = False) -> Draft:
    """Return the policy of a list; with `deny` names alone are denied as well."""
    return _Converter(name, deny=deny, plain_http=plain_http).convert(text)


class _Converter:
    def __init__(self, name: str, *, deny: bool, plain_http: bool) -> None:
        self._draft = Draft(name, "hosts")
        self._deny = deny
        self._schemes = (Scheme.HTTPS, Scheme.HTTP) if plain_http else (Scheme.HTTPS,)

    def convert(self, text: str) -> Draft:
        for line in _lines(text, self._draft.name):
            try:
                self._read(line)
            except PatternError as error:
                self._draft.remark(NOT_CARRIED, error.what, line.source, error.fix)
        draft = self._draft
        if not (draft.allow or draft.deny or draft.remarks):
            what = "the list has no hosts"
            raise ConfigError(what, where=draft.name, fix="is it the right file?")
        self._note_denied_too()
        if draft.deny and not draft.allow:
            what = "the list only denies, and what no entry allows is denied anyway"
            fix = "add allow entries, include the file in a policy, or write default: allow"
            draft.remark(NARROWER, what, draft.deny[0].source, fix)
        return draft

    def _read(self, line: _Line) -> None:
        first = line.words[0]
        address = _address(first)
        if address is not None and len(line.words) > 1:
            self._read_names(address, line)
            return
        if len(line.words) > 1:
            raise PatternError(f"{quoted(' '.join(line.words))} is more than one word", _FIX)
        if first.startswith("@@"):
            what = f"{quoted(first)} is an exception from a denial, and a denial always wins"
            raise PatternError(what, "leave out what denies it")
        blocked = _blocked_domain(first) or _dnsmasq(first)
        if blocked is not None:
            self._add_denied(_parsed(f".{blocked[1].strip('.').lower()}"), line.source)
        elif first.startswith("!"):
            self._add_denied(_parsed(first[1:]), line.source)
        else:
            self._read_target(first, line.source)

    def _read_names(self, address: Address, line: _Line) -> None:
        """Read a line of /etc/hosts."""
        for name in line.words[1:]:
            if name.lower() in _OWN_NAMES or name == line.words[0]:
                continue
            pattern = _parsed(name)
            if pattern.kind is not PatternKind.EXACT:
                raise PatternError(f"{quoted(name)} is no name of /etc/hosts", _FIX)
            if kind_of(address) in _NULL or self._deny:
                self._add_denied(pattern, line.source)
            elif kind_of(address) is AddressKind.METADATA:
                what = f"{address} is the metadata service of a cloud machine, which gives away its"
                raise PatternError(f"{what} credentials", "leave it out")
            else:
                private = kind_of(address) is not AddressKind.PUBLIC
                self._add_allowed(pattern, line.source, address=address if private else None)

    def _read_target(self, text: str, source: Location) -> None:
        found = _url(text)
        scheme = None if found is None else Scheme(found[1])
        if found is not None:
            text = found[2]
        elif "://" in text:
            raise PatternError(f"{quoted(text)} is a URL with a path", "write the host alone")
        with_port = _with_port(text)
        port = int(with_port[2]) if with_port else None
        host = with_port[1].strip("[]") if with_port else text
        pattern = _parsed(host)
        if host.lower() in _OWN_NAMES:
            what = f"{quoted(host)} is this machine, which a sandbox does not reach by a name"
            raise PatternError(what, "see --host-port of `claude-proxy run`")
        if self._deny:
            self._add_denied(pattern, source, port)
        else:
            self._add_allowed(pattern, source, scheme, port)

    def _add_allowed(
        self,
        pattern: HostPattern,
        source: Location,
        scheme: Scheme | None = None,
        port: int | None = None,
        address: Address | None = None,
    ) -> None:
        if not is_writable(pattern):
            raise PatternError(f"no entry can be {pattern}", _FIX)
        for each in self._schemes if scheme is None else (scheme,):
            if port == (80 if each is Scheme.HTTPS else 443):
                continue
            self._draft.allow.append(
                Entry(
                    pattern,
                    source,
                    each,
                    None if port is None else frozenset({port}),
                    addresses=() if address is None else (ip_network(address),),
                )
            )

    def _add_denied(self, pattern: HostPattern, source: Location, port: int | None = None) -> None:
        ports = None if port is None else frozenset({port})
        self._draft.deny.append(Entry(pattern, source, ports=ports))

    def _note_denied_too(self) -> None:
        denied = {each.pattern: each.source for each in self._draft.deny}
        for each in self._draft.allow:
            if each.pattern in denied:
                what = f"{each.pattern} is denied as well ({denied[each.pattern]}), and that wins"
                self._draft.remark(NARROWER, what, each.source, "delete one of the two lines")


def _lines(text: str, name: str) -> Iterator[_Line]:
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        kept = next((words[:at] for at, word in enumerate(words) if word.startswith("#")), words)
        # "! text" and "[Adblock Plus]" are remarks of blocklists, ";" and "//" those of others.
        is_remark = kept and (kept[0] == "!" or kept[0].startswith((";", "//", "[Adblock")))
        if kept and not is_remark:
            yield _Line(kept, Location(name, number, 1))


def _address(text: str) -> Address | None:
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _parsed(text: str) -> HostPattern:
    return pattern_of(text.lower() if text.isascii() else text)
