"""Converter of tinyproxy.conf and its filter file: what passes the filter, as entries.

Laws kept: no quiet downgrade, silence before allow. Of an expression the hosts that it surely
matches are allowed; what it matches beyond is reported. Pure; files are read by the `Library`.
"""

from collections.abc import Iterator

from claude_proxy.config.imports.draft import NARROWER, NOT_CARRIED, Draft
from claude_proxy.config.imports.emission import emit
from claude_proxy.config.imports.host_languages import HostExpression
from claude_proxy.config.imports.host_tests import HostTest, Item
from claude_proxy.config.imports.languages import (
    URL_CHARS,
    Anchor,
    Any1,
    Expr,
    Repeat,
    Seq,
    TooComplexError,
)
from claude_proxy.config.imports.openings import (
    HostIs,
    Literal,
    Opening,
    Result,
    UrlIs,
    limited,
)
from claude_proxy.config.imports.port_sets import PortSet
from claude_proxy.config.imports.posix_regex import parse
from claude_proxy.config.imports.squid_text import Library
from claude_proxy.config.imports.url_languages import UrlExpression
from claude_proxy.config.strict_yaml.nodes import quoted
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ConfigError
from claude_proxy.policy.location import Location
from claude_proxy.policy.request import Scheme

_line = lazy_pattern(r'\s*([A-Za-z]+)[ \t]+(?:"([^"]*)"|(.*?))\s*').fullmatch
_YES, _NO = frozenset({"yes", "on"}), frozenset({"no", "off"})
_TYPES = frozenset({"bre", "ere", "fnmatch"})
_ELSEWHERE = {
    "allow": ("says which clients may ask", "use --allow-remote and --client"),
    "basicauth": ("asks for a log-in", "use --proxy-auth-file"),
    "deny": ("says which clients may not ask", "use --client"),
    "upstream": ("sends requests to another proxy", "use --upstream-proxy"),
}


@dataclass(frozen=True, slots=True)
class _Setting:
    value: str
    source: Location


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One line of the filter file."""

    text: str
    expr: Expr | None
    source: Location
    hosts: HostExpression  # of a CONNECT the filter sees "host:port" where it sees URLs


def convert(text: str, *, name: str, library: Library) -> Draft:
    """Return the policy of a configuration; ConfigError if tinyproxy itself would refuse it."""
    return _Converter(text, name, library).convert()


class _Converter:
    def __init__(self, text: str, name: str, library: Library) -> None:
        self._draft = Draft(name, "tinyproxy")
        self._library = library
        self._settings: dict[str, list[_Setting]] = {}
        for key, setting in _settings(text, name):
            self._settings.setdefault(key, []).append(setting)
        self._name = name

    def convert(self) -> Draft:
        openings = [self._tunnels(), Opening(Scheme.HTTP, self._place("filter"))]
        filter_ = self._settings.get("filter")
        if filter_ is not None:
            # Asked first: this also says what is wrong with the type.
            patterns = list(self._patterns(filter_[-1]))
            openings = [each for one in openings for each in self._filtered(one, patterns)]
        emit(openings, self._draft)
        self._note_elsewhere()
        return self._draft

    def _place(self, key: str) -> Location:
        found = self._settings.get(key)
        return found[-1].source if found else Location(self._name, 1, 1)

    def _is_on(self, key: str) -> bool:
        found = self._settings.get(key)
        if not found:
            return False
        value = found[-1].value.lower()
        if value not in _YES | _NO:
            what = f"{quoted(found[-1].value)} is neither yes nor no"
            raise ConfigError(what, where=str(found[-1].source), fix="write Yes or No")
        return value in _YES

    def _tunnels(self) -> Opening:
        opening = Opening(Scheme.HTTPS, self._place("filter"))
        ports = self._settings.get("connectport")
        if not ports:
            return opening
        named = []
        for each in ports:
            if not each.value.isascii() or not each.value.isdecimal():
                what = f"{quoted(each.value)} is not a port"
                raise ConfigError(what, where=str(each.source), fix="write a number")
            named.append(min(int(each.value[:6]), 65536))
        return Opening(Scheme.HTTPS, opening.source, ports=PortSet.single(*named))

    # The filter.

    def _patterns(self, filter_: _Setting) -> Iterator[_Pattern]:
        kind = "ere" if self._is_on("filterextended") else "bre"
        types = self._settings.get("filtertype")
        if types:
            kind = types[-1].value.lower()
            if kind not in _TYPES:
                what = f"{quoted(types[-1].value)} is no type of filter"
                fix = "write bre, ere or fnmatch"
                raise ConfigError(what, where=str(types[-1].source), fix=fix)
        for name in self._library.names(filter_.value, filter_.source):
            text = self._library.text(name, filter_.source)
            for number, line in enumerate(text.split("\n"), 1):
                pattern = _pattern_of(line)
                if pattern:
                    source = Location(name, number, 1)
                    expr = self._read(pattern, kind, source)
                    hosts = HostExpression(expr, with_port=self._is_on("filterurls"))
                    yield _Pattern(pattern, expr, source, hosts)

    def _read(self, text: str, kind: str, source: Location) -> Expr | None:
        try:
            if kind == "fnmatch":
                return _glob(text)
            ignore_case = not self._is_on("filtercasesensitive")
            extended = kind == "ere"
            return parse(text, extended=extended, ignore_case=ignore_case, alphabet=URL_CHARS)
        except (ValueError, TooComplexError) as error:
            what = f"{quoted(text)} cannot be read: {error}"
            self._draft.remark(NOT_CARRIED, what, source, "write the hosts in the policy")
            return None

    def _filtered(self, opening: Opening, patterns: list[_Pattern]) -> Iterator[Opening]:
        if not self._is_on("filterdefaultdeny"):
            literal = Literal(self._condition(opening.scheme, patterns), negated=True)
            yield from self._noted(limited([opening], [literal]))
            return
        for pattern in patterns:
            found = Literal(self._condition(opening.scheme, [pattern]))
            own = Opening(opening.scheme, pattern.source, ports=opening.ports)
            yield from self._noted(limited([own], [found]))

    def _condition(self, scheme: Scheme, patterns: list[_Pattern]) -> HostIs | UrlIs:
        if scheme is Scheme.HTTP and self._is_on("filterurls"):
            return UrlIs(
                tuple(
                    (UrlExpression(each.expr, of_path=False, as_sent=True), each.text, each.source)
                    for each in patterns
                )
            )
        items = (Item(each.text, each.source, expression=each.hosts) for each in patterns)
        return HostIs(HostTest(items))

    def _noted(self, result: Result) -> list[Opening]:
        for loss in result.losses:
            fix = "write more hosts in the policy, if they are needed"
            self._draft.remark(NARROWER, loss.what, loss.source, fix)
        return result.openings

    def _note_elsewhere(self) -> None:
        for key, (what, fix) in _ELSEWHERE.items():
            for each in self._settings.get(key, ())[:1]:
                self._draft.remark(NOT_CARRIED, f"{key.capitalize()} {what}", each.source, fix)
        if self._is_on("reverseonly") or "reversepath" in self._settings:
            place = self._place("reversepath")
            what = "a reverse proxy is another thing than a policy"
            self._draft.remark(NOT_CARRIED, what, place, "keep tinyproxy for it")


def _settings(text: str, name: str) -> Iterator[tuple[str, _Setting]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("#") or not line.strip():
            continue
        found = _line(line)
        if found is None:
            what = f"{quoted(line.strip())} is no line of tinyproxy.conf"
            fix = "is it the right file? a filter file is named by Filter in tinyproxy.conf"
            raise ConfigError(what, where=f"{name}:{number}", fix=fix)
        value = found[3] if found[2] is None else found[2]
        yield found[1].lower(), _Setting(value, Location(name, number, 1))


def _pattern_of(line: str) -> str:
    """Return the pattern of a line, as tinyproxy reads it: up to a space or a comment."""
    words = line.split(None, 1)
    if not words:
        return ""
    word = words[0]
    for at, char in enumerate(word):
        if char == "#" and (at == 0 or word[at - 1] != "\\"):
            return word[:at]
    return word


def _glob(text: str) -> Expr:
    """Return the expression of an fnmatch(3) pattern, which matches a whole text."""
    parts: list[Expr] = [Anchor(at_end=False)]
    chars = iter(text)
    for char in chars:
        if char == "*":
            parts.append(Repeat(Any1(URL_CHARS), 0, None))
        elif char == "?":
            parts.append(Any1(URL_CHARS))
        elif char == "[":
            raise ValueError("it has a bracket")
        else:
            literal = next(chars, "\\") if char == "\\" else char
            parts.append(Any1(frozenset(literal)))
    return Seq((*parts, Anchor(at_end=True)))
