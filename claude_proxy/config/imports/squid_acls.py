"""Access lists of squid: what an `acl` line says about a request, or why that cannot be known.

Law kept: silence before allow. A condition about something that no policy speaks of (the time, a
header, another program's answer) is unknown; who the client is, is left to the caller. Pure.
"""

from collections.abc import Iterator
from dataclasses import field
from enum import StrEnum
from ipaddress import ip_address, ip_network, summarize_address_range

from claude_proxy.config.imports.host_languages import HostExpression
from claude_proxy.config.imports.host_tests import HostTest, Item
from claude_proxy.config.imports.languages import URL_CHARS, Expr, TooComplexError
from claude_proxy.config.imports.openings import Condition, HostIs, MethodIs, PortIs, UrlIs
from claude_proxy.config.imports.port_sets import PortSet
from claude_proxy.config.imports.posix_regex import parse
from claude_proxy.config.imports.squid_text import Directive, Library, Word, values
from claude_proxy.config.imports.url_languages import UrlExpression
from claude_proxy.config.strict_yaml.nodes import quoted
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ConfigError
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, PatternKind
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.address import Network
from claude_proxy.wire.authority import literal_of, normalise_host


class View(StrEnum):
    """What squid sees of a request where it decides."""

    TUNNEL = "tunnel"  # a CONNECT: the host and the port, and no request inside
    OPENED = "opened"  # a request inside TLS that `ssl_bump` has opened
    PLAIN = "plain"  # a request without TLS

    @property
    def scheme(self) -> Scheme:
        """The scheme of the requests."""
        return Scheme.HTTP if self is View.PLAIN else Scheme.HTTPS


@dataclass(frozen=True, slots=True)
class Unknown:
    """A condition that a policy cannot keep."""

    why: str
    source: Location


@dataclass(frozen=True, slots=True)
class Client:
    """A condition on who asks, or by which port of the proxy."""

    name: str


type Meaning = bool | Condition | Unknown | Client

_CLIENT_TYPES = frozenset(
    (
        *("src", "src_as", "arp", "eui64", "ident", "ident_regex", "proxy_auth"),
        *("proxy_auth_regex", "ext_user", "ext_user_regex", "myip", "myport", "localip"),
        *("localport", "myportname", "peername", "user_cert", "transaction_initiator"),
        *("client_connection_mark", "clientside_mark", "clientside_tos", "srcdomain"),
        *("srcdom_regex", "follow_x_forwarded_for", "tag", "maxconn", "max_user_ip"),
    )
)
_HOST_TYPES = frozenset({"dstdomain", "ssl::server_name"})
_HOST_EXPRESSIONS = frozenset({"dstdom_regex", "ssl::server_name_regex"})
_URL_EXPRESSIONS = {"url_regex": False, "urlpath_regex": True}
_GROUPS = frozenset({"any-of", "all-of"})
_FLAG = lazy_pattern(r"[-+][a-zA-Z](?:=.*)?|--").fullmatch
_port_range = lazy_pattern(r"([0-9]{1,5})(?:-([0-9]{1,5}))?").fullmatch
_BUILT_IN: dict[str, tuple[str, tuple[str, ...]]] = {
    "localhost": ("src", ("127.0.0.1/32", "::1")),
    "to_localhost": ("dst", ("127.0.0.0/8", "0.0.0.0/32", "::1")),
    "to_linklocal": ("dst", ("169.254.0.0/16", "fe80::/10")),
    "CONNECT": ("method", ("CONNECT",)),
}
_SPECIAL = frozenset({"all", "manager"})


@dataclass(slots=True)
class Acl:
    """One access list: its type, and the values of all its lines."""

    name: str
    type: str
    lines: list[tuple[Word, ...]]
    source: Location
    ignoring_case: set[Word] = field(default_factory=set)  # expressions after -i

    @property
    def words(self) -> Iterator[Word]:
        """Every value."""
        return (word for line in self.lines for word in line)


class Acls:
    """All access lists of a configuration."""

    def __init__(self, directives: list[Directive], library: Library) -> None:
        self.notes: list[tuple[str, Location, str]] = []  # what can match nothing, and the fix
        self._acls: dict[str, Acl] = {}
        self._meanings: dict[tuple[str, View], Meaning] = {}
        self._used: dict[str, Location] = {}
        for directive in directives:
            if directive.name == "acl":
                self._read(directive, library)
            else:
                for word in directive.words:
                    self._used.setdefault(word.text.removeprefix("!"), directive.source)

    def knows(self, name: str) -> bool:
        """Return whether there is a list of this name."""
        return name in self._acls or name in _BUILT_IN or name in _SPECIAL

    def group(self, name: str) -> Acl | None:
        """Return the list of this name if it consists of others."""
        acl = self._acls.get(name)
        return acl if acl is not None and acl.type in _GROUPS else None

    def client(self, name: str) -> Acl | None:
        """Return the list of this name if it is about addresses of clients."""
        acl = self._acl(name)
        return acl if acl is not None and acl.type == "src" else None

    def meaning(self, name: str, view: View) -> Meaning:
        """Return what the list says about a request."""
        key = name, view
        if key not in self._meanings:
            self._meanings[key] = self._meaning(name, view)
        return self._meanings[key]

    def _read(self, directive: Directive, library: Library) -> None:
        if len(directive.words) < 2:  # noqa: PLR2004 - a name and a type
            what, fix = "an acl has a name and a type", "compare with: acl good dstdomain .a.com"
            raise ConfigError(what, where=str(directive.source), fix=fix)
        name, type_ = directive.words[0].text, directive.words[1].text
        acl = self._acls.setdefault(name, Acl(name, type_, [], directive.source))
        if acl.type != type_:
            what = f"the acl {quoted(name)} is {quoted(type_)} here and {acl.type} at {acl.source}"
            raise ConfigError(what, where=str(directive.source), fix="rename one of the two")
        words: list[Word] = []
        ignores_case = False
        for word in directive.words[2:]:
            is_flag = not word.is_file and _is_flag(word.text, acl, is_first=not words)
            if is_flag:
                ignores_case = word.text == "-i" or (ignores_case and word.text != "+i")
                continue
            for value in values((word,), library):
                words.append(value)
                if ignores_case:
                    acl.ignoring_case.add(value)
        acl.lines.append(tuple(words))

    def _acl(self, name: str) -> Acl | None:
        if name in self._acls:
            return self._acls[name]
        if name not in _BUILT_IN:
            return None
        type_, texts = _BUILT_IN[name]
        source = self._used[name]  # it has no line of its own
        return Acl(name, type_, [tuple(Word(text, source) for text in texts)], source)

    def _meaning(self, name: str, view: View) -> Meaning:
        acl = self._acl(name)
        if acl is None:
            return name == "all"  # and `manager`: requests for squid's own pages
        if acl.type in _CLIENT_TYPES:
            return _is_everybody(acl) or Client(name)
        if acl.type in _HOST_TYPES:
            return HostIs(HostTest(self._names(acl)))
        if acl.type in _HOST_EXPRESSIONS:
            return HostIs(HostTest(self._expressions(acl, with_port=False)))
        if acl.type in _URL_EXPRESSIONS:
            return self._urls(acl, view)
        return self._of_request(acl, view)

    def _of_request(self, acl: Acl, view: View) -> Meaning:
        words = list(acl.words)
        match acl.type:
            case "dst":
                return self._addresses(acl)
            case "port":
                return PortIs(PortSet.of(_ports(word) for word in words))
            case "method":
                methods = frozenset(word.text.upper() for word in words)
                return "CONNECT" in methods if view is View.TUNNEL else MethodIs(methods)
            case "proto":
                return _protocol({word.text.upper() for word in words}, acl, view)
            case "at_step":
                return True  # the step that counts is the last one
        return Unknown(f"acl {acl.name} is of the type {acl.type}", acl.source)

    def _addresses(self, acl: Acl) -> Meaning:
        items = [each for each in self._networks(acl) if each is not None]
        if len(items) < sum(1 for _ in self._networks(acl)) or not items:
            why = "it compares the addresses of names, which are not known here"
            return Unknown(f"acl {acl.name}: {why}", acl.source)
        return HostIs(HostTest(items))

    # Values.

    def _names(self, acl: Acl) -> Iterator[Item]:
        for word in acl.words:
            text = word.text.lower()
            try:
                yield Item(word.text, word.source, pattern=_domain(text))
            except ValueError as error:
                fix = "write .example.com for a domain and all below it, example.com for one host"
                self._note(f"{quoted(word.text)} matches no host ({error})", word.source, fix)

    def _networks(self, acl: Acl) -> Iterator[Item | None]:
        for word in acl.words:
            if word.text in {"all", "0.0.0.0/0", "::/0", "ipv4", "ipv6"}:
                yield None
                continue
            try:
                networks = list(networks_of(word.text))
            except ValueError:
                yield None
                continue
            for network in networks:
                yield Item(word.text, word.source, pattern=pattern_of_network(network))

    def _expressions(self, acl: Acl, *, with_port: bool) -> Iterator[Item]:
        for word in acl.words:
            expression = HostExpression(self._parsed(word, acl), with_port=with_port)
            yield Item(word.text, word.source, expression=expression)

    def _urls(self, acl: Acl, view: View) -> Meaning:
        of_path = _URL_EXPRESSIONS[acl.type]
        if view is View.TUNNEL:
            # Of a CONNECT squid knows "host:port", and no path.
            if of_path:
                return False
            return HostIs(HostTest(self._expressions(acl, with_port=True)))
        return UrlIs(
            tuple(
                (
                    UrlExpression(self._parsed(word, acl), of_path=of_path),
                    word.text,
                    word.source,
                )
                for word in acl.words
            )
        )

    def _parsed(self, word: Word, acl: Acl) -> Expr | None:
        try:
            return parse(
                word.text, extended=True, ignore_case=word in acl.ignoring_case, alphabet=URL_CHARS
            )
        except (ValueError, TooComplexError) as error:
            fix = "name the hosts instead"
            self._note(f"{quoted(word.text)} cannot be read: {error}", word.source, fix)
            return None

    def _note(self, what: str, source: Location, fix: str) -> None:
        if (what, source, fix) not in self.notes:
            self.notes.append((what, source, fix))


def networks_of(text: str) -> Iterator[Network]:
    """Yield the networks of an address, a network or a range; ValueError if it is none."""
    first, dash, last = text.partition("-")
    if not dash:
        yield ip_network(text, strict=False)
        return
    low, high = ip_address(first), ip_address(last.partition("/")[0])
    if low.version != high.version:
        raise ValueError("a range of two kinds of addresses")
    yield from summarize_address_range(low, high)


def pattern_of_network(network: Network) -> HostPattern:
    """Return the pattern of a network."""
    single = network.prefixlen == network.max_prefixlen
    return HostPattern(PatternKind.LITERAL if single else PatternKind.NETWORK, "", network)


def _domain(text: str) -> HostPattern:
    if text.startswith("*"):
        raise ValueError("squid has no wildcards in front of a name")
    if text.startswith("."):
        return HostPattern(PatternKind.DOMAIN, normalise_host(text[1:]))
    name = normalise_host(text)
    address = literal_of(name)
    if address is None:
        return HostPattern(PatternKind.EXACT, name)
    return pattern_of_network(ip_network(address))


def _ports(word: Word) -> tuple[int, int]:
    found = _port_range(word.text)
    if found is None:
        what = f"{quoted(word.text)} is neither a port nor a range of ports"
        raise ConfigError(what, where=str(word.source), fix="write it like 443 or 1025-65535")
    return int(found[1]), int(found[2] or found[1])


def _protocol(names: set[str], acl: Acl, view: View) -> Meaning:
    if view is View.PLAIN:
        return "HTTP" in names
    if not names & {"HTTP", "HTTPS", "NONE"}:
        return False
    if view is View.OPENED:
        return "HTTPS" in names
    return Unknown(
        f"acl {acl.name}: the protocol of a tunnel depends on squid's version", acl.source
    )


def _is_everybody(acl: Acl) -> bool:
    texts = {word.text for word in acl.words}
    return acl.type == "src" and not texts.isdisjoint({"all", "0.0.0.0/0", "0/0"})


def _is_flag(text: str, acl: Acl, *, is_first: bool) -> bool:
    """Tell whether a word is an option: before the values, and of expressions also among them."""
    if text in {"-i", "+i"} and acl.type in (_HOST_EXPRESSIONS | set(_URL_EXPRESSIONS)):
        return True
    return is_first and _FLAG(text) is not None
