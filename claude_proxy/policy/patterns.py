"""Host patterns and path globs: which hosts and paths a rule covers.

Agreement: a pattern has one spelling and one meaning. A text that looks like a regular expression,
covers a public suffix, or is ambiguous is refused, with a fix. Pure; matching takes linear time.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import field
from enum import StrEnum
from ipaddress import ip_address, ip_network
from urllib.parse import quote, unquote

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.wire.address import Network, effective
from claude_proxy.wire.authority import (
    Authority,
    literal_of,
    normalise_host,
    quoted,
    text_of,
)
from claude_proxy.wire.public_suffix import Suffix, public_suffix


class PatternError(ValueError):
    """An invalid host pattern or path glob: what is wrong, and how to fix it."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}; {fix}")
        self.what = what
        self.fix = fix


class PatternKind(StrEnum):
    """Which hosts a pattern covers."""

    EXACT = "exact"  # "example.com"
    SUBDOMAINS = "subdomains"  # "*.example.com": all subdomains at any depth, not example.com
    DOMAIN = "domain"  # ".example.com": example.com and all its subdomains
    LITERAL = "literal"  # "192.0.2.1": the address as a target, not a name that resolves to it
    NETWORK = "network"  # "192.0.2.0/24": the same for every address in it
    EVERY = "every"  # all hosts, for a policy that allows by default; it has no text form


@dataclass(frozen=True, slots=True)
class HostPattern:
    """The hosts that a rule covers; `parse` creates one from a text."""

    kind: PatternKind
    host: str  # the normalised name without its wildcard; "" for addresses
    network: Network | None = None  # only for addresses; a literal has a network of one address

    @classmethod
    def parse(cls, text: str) -> "HostPattern":
        """Parse a pattern of a policy file; PatternError says how to fix it."""
        if _is_odd(text):
            _refuse_non_host(text)
        if "/" in text:
            return cls(PatternKind.NETWORK, "", _network(text))
        for prefix, kind in (("*.", PatternKind.SUBDOMAINS), (".", PatternKind.DOMAIN)):
            if text.startswith(prefix):
                return cls(kind, _wide_name(text, text.removeprefix(prefix)))
        name = _name(text)
        address = literal_of(name)
        if address is None:
            return cls(PatternKind.EXACT, _narrow_name(name))
        return cls(PatternKind.LITERAL, "", _not_hiding(ip_network(address), text))

    @classmethod
    def every(cls) -> "HostPattern":
        """Return the pattern of all names and addresses, which has no text form."""
        return cls(PatternKind.EVERY, "")

    def covers(self, target: Authority) -> bool:
        """Return whether the host of `target` is covered; its port does not matter."""
        if self.network is not None:
            return target.address is not None and target.address in self.network
        if target.address is not None:
            return self.kind is PatternKind.EVERY
        match self.kind:
            case PatternKind.EXACT:
                return target.host == self.host
            case PatternKind.SUBDOMAINS:
                return target.host.endswith(f".{self.host}")
            case PatternKind.DOMAIN:
                return f".{target.host}".endswith(f".{self.host}")
            case _:
                return self.kind is PatternKind.EVERY

    def includes(self, other: "HostPattern") -> bool:
        """Return whether this pattern covers every host that `other` covers."""
        if self.kind is PatternKind.EVERY:
            return True
        if self.network is not None and other.network is not None:
            first, last = other.network[0], other.network[-1]
            return first in self.network and last in self.network
        if self.network is not None or other.network is not None or other.kind is PatternKind.EVERY:
            return False
        if self.kind is PatternKind.EXACT:
            return other == self
        if other.host.endswith(f".{self.host}"):
            return True
        same = other.host == self.host
        return same and (self.kind is PatternKind.DOMAIN or other.kind is PatternKind.SUBDOMAINS)

    @property
    def specificity(self) -> tuple[int, int]:
        """How narrow the pattern is: of two that cover the same host, the narrower is greater.

        Only patterns that cover a common host can be compared. "*.x" and ".x" are equal.
        """
        if self.network is not None:
            return (1, self.network.prefixlen)
        labels = self.host.count(".") + 1
        return (_NARROWNESS[self.kind], labels)

    def __str__(self) -> str:
        if self.network is not None:
            address = text_of(self.network.network_address)
            single = self.kind is PatternKind.LITERAL
            return address if single else f"{address}/{self.network.prefixlen}"
        return f"{_PREFIXES[self.kind]}{self.host}"


def any_covers(patterns: Iterable[HostPattern], target: Authority) -> bool:
    """Return whether one of the patterns covers `target`."""
    # Not any(...): a generator would cost more than most matches.
    for pattern in patterns:  # noqa: SIM110
        if pattern.covers(target):
            return True
    return False


_PREFIXES = {
    PatternKind.EXACT: "",
    PatternKind.SUBDOMAINS: "*.",
    PatternKind.DOMAIN: ".",
    PatternKind.EVERY: "*",
}
_NARROWNESS = {
    PatternKind.EVERY: 0,
    PatternKind.SUBDOMAINS: 1,
    PatternKind.DOMAIN: 1,
    PatternKind.EXACT: 2,
}
# Whether a text is not just a name, with or without a wildcard in front.
_is_odd = lazy_pattern(r"(?!(?:\*?\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\Z)").match
_has_port = lazy_pattern(r"(?:[^:]*|\[.*\]):[0-9]*").fullmatch
_is_network = lazy_pattern(r"[0-9A-Fa-f:.]+/[0-9.]+").fullmatch
_regex_character = lazy_pattern(r"[\^$()|\\+?{}]|\[|\]").search
_NAME_IT = 'name the host, or use "*.example.com" for its subdomains'


def _refuse_non_host(text: str) -> None:
    if not text or text.isspace():
        raise PatternError("the host is empty", _NAME_IT)
    if not text.strip("*."):
        raise PatternError(f"the host pattern {quoted(text)} matches every host", _NAME_IT)
    if "://" in text:
        fix = "write only the host; plain HTTP is allowed by `scheme: http`"
        raise PatternError(f"the host {quoted(text)} contains a scheme", fix)
    if "@" in text:
        raise PatternError(f"the host {quoted(text)} contains user info", "write only the host")
    if "/" in text and not _is_network(text):
        fix = "write only the host, and the path under `paths`"
        raise PatternError(f"the host {quoted(text)} contains a path", fix)
    if _has_port(text):
        fix = "write only the host, and the port under `ports`"
        raise PatternError(f"the host {quoted(text)} contains a port", fix)
    if text.startswith("[") and text.endswith("]") and ":" in text:
        raise PatternError(f"the host {quoted(text)} is in brackets", f'write "{text[1:-1]}"')
    if _regex_character(text):
        fix = f"a host is not a regular expression: {_NAME_IT}"
        raise PatternError(f"the host {quoted(text)} contains characters no name has", fix)
    if "*" in text.removeprefix("*."):
        fix = 'a wildcard is the whole first label: "*.example.com"'
        raise PatternError(f"the host {quoted(text)} has a wildcard inside", fix)


def _name(text: str) -> str:
    try:
        return normalise_host(text, unicode=True)
    except ValueError as error:
        raise PatternError(f"the host {error}", _fix_of_name(text)) from None


def _fix_of_name(text: str) -> str:
    try:
        return f'write "{text_of(effective(ip_address(text)))}"'
    except ValueError:
        if text.replace(".", "").isdigit():
            return 'write all four numbers of the address in decimal, like "192.0.2.1"'
        return "write the name as in a URL, in lower case"


def _narrow_name(name: str) -> str:
    # A provider's suffix may also be a host ("s3.amazonaws.com"); a registry's suffix never is.
    if public_suffix(name) is Suffix.REGISTRY:
        fix = f'name a host below it, like "example.{name}"'
        raise PatternError(f"{quoted(name)} is a public suffix, not a host", fix)
    return name


def _wide_name(text: str, rest: str) -> str:
    name = _name(rest)
    if literal_of(name) is not None:
        fix = f'write "{name}", or a network like "192.0.2.0/24"'
        raise PatternError(f"the wildcard {quoted(text)} is in front of an address", fix)
    if public_suffix(name) is not None:
        fix = f'name the hosts, or use a wildcard one level down, like "*.example.{name}"'
        what = f"the wildcard {quoted(text)} covers a public suffix, where anybody can have a name"
        raise PatternError(what, fix)
    return name


def _network(text: str) -> Network:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        fix = 'write it like "192.0.2.0/24" or "2001:db8::/32"'
        raise PatternError(f"{quoted(text)} is not a network", fix) from None
    if network.prefixlen == 0:
        fix = "name the networks that are needed"
        raise PatternError(f"the network {quoted(text)} contains every address", fix)
    canonical = f"{text_of(network.network_address)}/{network.prefixlen}"
    if text != canonical:
        what = f"the network {quoted(text)} is not in its canonical spelling"
        raise PatternError(what, f'write "{canonical}"')
    return _not_hiding(network, text)


def _not_hiding(network: Network, text: str) -> Network:
    inner = effective(network.network_address)
    if inner != network.network_address:
        single = network.prefixlen == network.max_prefixlen
        fix = f'write "{inner}"' if single else "name the IPv4 network itself"
        raise PatternError(f"{quoted(text)} hides an IPv4 address in an IPv6 one", fix)
    return network


# What two servers, or a server and its framework, may read as different paths (RFC 3986).
_find_ambiguity = lazy_pattern(
    r"""
    \A(?! / | \*\Z )                    # not a path; the "*" of OPTIONS is unambiguous
    | //                                # merged by some
    | /\.{1,2} (?= / | \Z )             # removed by some
    | [;\\?\#\x00-\x20\x7f-\U0010ffff]  # parameters, the other slash, delimiters, raw bytes
    | % (?! [0-9A-Fa-f]{2} )            # "%u002e" of IIS, and broken escapes
    | % (?: [01][0-9A-F] | 7F           # control bytes
          | 25                          # decoded twice by some
          | 2[3F] | 3[BF] | 5C          # encoded "#", "/", ";", "?" and "\"
          | 2[DE] | 3[0-9] | 4[1-9A-F] | 5[0-9AF] | 6[1-9A-F] | 7[0-9AE]   # never needed:
                                        # unreserved characters (section 2.3), including "."
          | C[01] | E0%[89][0-9A-F] | F0%8[0-9A-F]  # overlong UTF-8, once used for "." and "/"
          | EF%BC%(?: 8[EF] | BC )      # full-width ".", "/" and "\", which Windows converts
        )
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
).search
# Nearly every path: segments of characters that need no escape, except "." and "..".
_is_clear = lazy_pattern(r"(?:/(?!\.{1,2}(?:/|\Z))[\w.~!$&'()*+,=:@-]+)+/?|/", re.ASCII).fullmatch
_PATH_CHARACTERS = "/%~!$&'()*+,=:@"
_no_path_character = lazy_pattern(r"[\^|{}\[\]<>\"`]").search


@dataclass(frozen=True, slots=True)
class PathGlob:
    """Paths that a rule covers: `*` matches within one segment, a final `/**` matches the rest."""

    text: str
    _matcher: "GlobMatcher" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _refuse_non_glob(self.text)
        object.__setattr__(self, "_matcher", GlobMatcher(self.text))

    @classmethod
    def parse(cls, text: str) -> "PathGlob":
        """Parse a glob of a policy file; PatternError says how to fix it."""
        return cls(text)

    def matches(self, path: str) -> bool:
        """Return whether the glob covers `path` exactly as it was sent."""
        return self._matcher.matches(path)

    def __str__(self) -> str:
        return self.text


def _refuse_non_glob(text: str) -> None:
    if not text.startswith("/"):
        what = f"the path {quoted(text)} does not begin with a slash"
        raise PatternError(what, 'write it like "/v1/*" or "/v1/**"')
    if "**" in text.removesuffix("/**"):
        what = f'the path {quoted(text)} has "**" before its end or inside a segment'
        raise PatternError(what, 'use "*" for one segment, and "/**" only at the end')
    if (found := _no_path_character(text)) is not None:
        fix = "a path is a glob, not a regular expression; percent-encode what is meant literally"
        raise PatternError(f"the path {quoted(text)} contains {quoted(found[0])}", fix)
    if _is_clear(text) is None and (found := _find_ambiguity(text)) is not None:
        fix = "such paths are always denied where paths are restricted; write it without"
        encoded = quote(text, safe=_PATH_CHARACTERS, errors="replace")
        if encoded != text and _find_ambiguity(encoded) is None:
            fix = f'write "{encoded}"'
        raise PatternError(f"the path {quoted(text)} contains {quoted(found[0])}", fix)


def is_ambiguous(path: str) -> bool:
    """Return whether two servers could read `path` as different paths."""
    return _is_clear(path) is None and _find_ambiguity(path) is not None


class GlobMatcher:
    """A glob split into its parts; matching never backtracks, so it takes linear time."""

    __slots__ = ("_open", "_prefix", "_segments")

    def __init__(self, text: str, spell: Callable[[str], str] = str) -> None:
        self._open = text.endswith("/**")
        body = text.removesuffix("/**")
        self._prefix = None if "*" in body else spell(body)
        # Split at the stars before `spell` decodes: "%2A" is a literal star.
        self._segments = tuple(tuple(map(spell, segment.split("*"))) for segment in body.split("/"))

    def matches(self, path: str) -> bool:
        """Return whether the glob covers `path`, to which `spell` has been applied."""
        if self._prefix is not None:
            if not path.startswith(self._prefix):
                return False
            rest = path[len(self._prefix) :]
            return self._open and rest[0] == "/" if rest else path != ""
        segments = path.split("/", len(self._segments))
        if len(segments) > len(self._segments):
            if not self._open:
                return False
            segments.pop()
        return len(segments) == len(self._segments) and all(
            map(_segment_matches, self._segments, segments)
        )


def _segment_matches(pieces: tuple[str, ...], segment: str) -> bool:
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return segment == first
    if pieces == ("", ""):
        return segment != ""
    end = len(segment) - len(last)
    at = len(first)
    if at > end or not segment.startswith(first) or not segment.endswith(last):
        return False
    # The leftmost match of each piece leaves the most room for the next, so none is tried twice.
    for piece in pieces[1:-1]:
        found = segment.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def folded(text: str) -> str:
    """Return `text` as a lenient server may read it: percent-decoded and in lower case."""
    # Latin-1 maps each byte to one character, so parts of a text fold like the whole text.
    return unquote(text, "latin-1").lower()
