"""Hosts of a pattern as a regular language, and the patterns that a regular expression contains.

Law kept: silence before allow. A pattern stands for an expression only if every host of it matches;
what the expression matches beyond is found, too, and can be told. Pure.
"""

import itertools
from collections.abc import Iterable, Iterator
from functools import lru_cache

from claude_proxy.config.imports.languages import (
    HOST_CHARS,
    URL_CHARS,
    Alt,
    Anchor,
    Any1,
    Automaton,
    Chars,
    Expr,
    Repeat,
    Seq,
    TooComplexError,
    literal,
    witness,
)
from claude_proxy.policy.patterns import HostPattern, PatternError, PatternKind

# A host in a URL, where an IPv6 address is in brackets.
ADDRESS_CHARS: Chars = HOST_CHARS | frozenset(":[]")
_EDGE: Chars = HOST_CHARS - frozenset("-.")
_INNER: Chars = HOST_CHARS - frozenset(".")
_LABEL = Seq((Any1(_EDGE), Repeat(Seq((Repeat(Any1(_INNER), 0, None), Any1(_EDGE))), 0, 1)))
_LABELS = Seq((_LABEL, literal(".")))
_PORT = Seq((literal(":"), Repeat(Any1(frozenset("0123456789")), 1, 5)))
_IPV6 = Seq(
    (
        Repeat(literal("["), 0, 1),
        Repeat(Any1(frozenset("0123456789abcdef:")), 2, None),
        Repeat(literal("]"), 0, 1),
    )
)
MOST_BRANCHES = 64
_MOST_CANDIDATES = 24


def hosts_expr(pattern: HostPattern) -> Expr | None:
    """Return the names that a pattern covers, and the address of a literal; None for a network."""
    if pattern.kind is PatternKind.NETWORK:
        return None
    if pattern.kind is PatternKind.LITERAL:
        text = str(pattern)
        return literal(f"[{text}]" if ":" in text else text)
    if pattern.kind is PatternKind.EVERY:
        return Alt((Seq((Repeat(_LABELS, 0, None), _LABEL)), _IPV6))
    least = {PatternKind.EXACT: None, PatternKind.SUBDOMAINS: 1, PatternKind.DOMAIN: 0}
    times = least[pattern.kind]
    name = literal(pattern.host)
    return name if times is None else Seq((Repeat(_LABELS, times, None), name))


@lru_cache(maxsize=4096)
def hosts_of(pattern: HostPattern, *, with_port: bool = False) -> Automaton | None:
    """Return the language of `hosts_expr`, each with a port after it where wanted."""
    expr = hosts_expr(pattern)
    if expr is None:
        return None
    return Automaton(Seq((expr, _PORT)) if with_port else expr)


class HostExpression:
    """A regular expression about hosts, as far as it can be understood."""

    def __init__(self, expr: Expr | None, *, with_port: bool = False) -> None:
        """Take an expression that may match anywhere; None: one that cannot be read.

        With `with_port` it is compared with "host:port", as in the target of a CONNECT.
        """
        self._with_port = with_port
        try:
            self._automaton = (
                None if expr is None else Automaton(expr, anywhere=True, alphabet=URL_CHARS)
            )
        except TooComplexError:
            self._automaton = None
        self._found: dict[tuple[HostPattern, bool], bool] = {}
        # Patterns of which it matches every host, the widest of each name.
        self.patterns: tuple[HostPattern, ...] = ()
        if expr is not None and self._automaton is not None:
            self.patterns = self._sensible(tuple(self._covered(_candidates(expr))))

    def _sensible(self, patterns: tuple[HostPattern, ...]) -> tuple[HostPattern, ...]:
        """Leave out single words, of which more than the one name is meant."""
        words = tuple(each for each in patterns if "." not in str(each) and ":" not in str(each))
        if words and self.beyond(HostPattern.every(), patterns) is not None:
            return tuple(each for each in patterns if each not in words)
        return patterns

    @property
    def is_known(self) -> bool:
        """Whether anything is known about what it matches."""
        return self._automaton is not None

    def covers(self, pattern: HostPattern) -> bool:
        """Return whether it matches every host of a pattern, as far as is known."""
        hosts = self._hosts(pattern)
        if self._automaton is None or hosts is None:
            return False
        key = pattern, True
        if key not in self._found:
            self._found[key] = _is_none([hosts], [self._automaton])
        return self._found[key]

    def may_match(self, pattern: HostPattern) -> bool:
        """Return whether it may match a host of a pattern."""
        hosts = self._hosts(pattern)
        if self._automaton is None or hosts is None:
            return True
        key = pattern, False
        if key not in self._found:
            self._found[key] = not _is_none([hosts, self._automaton], [])
        return self._found[key]

    def beyond(self, within: HostPattern, patterns: Iterable[HostPattern]) -> str | None:
        """Return a host of `within` that it may match and none of `patterns` covers; "" if unknown.

        None: there is no such host.
        """
        hosts = self._hosts(within)
        if self._automaton is None or hosts is None:
            return ""
        outside = [each for each in map(self._hosts, patterns) if each is not None]
        try:
            found = witness([hosts, self._automaton], outside, alphabet=ADDRESS_CHARS)
        except TooComplexError:
            return ""
        return found.rpartition(":")[0] if found and self._with_port else found

    def _hosts(self, pattern: HostPattern) -> Automaton | None:
        return hosts_of(pattern, with_port=self._with_port)

    def _covered(self, names: Iterable[str]) -> Iterator[HostPattern]:
        for name in names:
            for texts in ((f".{name}",), (f"*.{name}", name)):
                found = [each for each in _parsed(texts) if self.covers(each)]
                yield from found
                if found:
                    break


def _is_none(inside: list[Automaton], outside: list[Automaton]) -> bool:
    try:
        return witness(inside, outside, alphabet=ADDRESS_CHARS) is None
    except TooComplexError:
        # Of an inclusion: not known to hold. Of a meeting, whose answer is turned round: may be.
        return False


def _parsed(texts: Iterable[str]) -> Iterator[HostPattern]:
    for text in texts:
        try:
            yield HostPattern.parse(text)
        except PatternError:
            continue


def _candidates(expr: Expr) -> list[str]:
    """Return names that an expression may be about: the texts between what can vary."""
    found: dict[str, None] = {}
    for run in itertools.islice(runs_of(expr), MOST_BRANCHES):
        name = run.strip(".")
        if name and all(char in HOST_CHARS for char in name):
            found.setdefault(name)
    return list(found)[:_MOST_CANDIDATES]


def runs_of(expr: Expr) -> Iterator[str]:
    """Yield the texts that an expression has between what can vary."""
    for runs in _runs(expr):
        yield from filter(None, "".join(runs).split("\0"))


def _runs(expr: Expr) -> Iterator[list[str]]:
    """Yield the texts of each branch, with NUL where anything else may be."""
    match expr:
        case Any1(chars):
            yield [_sample(chars)]
        case Anchor():
            yield [""]
        case Alt(parts):
            for part in parts:
                yield from _runs(part)
        case Seq(parts):
            yield from _sequences(parts)
        case Repeat(part, least, most):
            if most == 1 and least == 0:
                yield [""]
                yield from _runs(part)
            elif least == most == 1:
                yield from _runs(part)
            else:
                yield ["\0"]


def _sequences(parts: tuple[Expr, ...]) -> Iterator[list[str]]:
    done: list[list[str]] = [[]]
    for part in parts:
        branches = list(itertools.islice(_runs(part), MOST_BRANCHES))
        done = list(
            itertools.islice(
                ([*before, *branch] for before in done for branch in branches), MOST_BRANCHES
            )
        )
    yield from done


def _sample(chars: Chars) -> str:
    lower = {char.lower() for char in chars}
    if len(lower) == 1:
        return next(iter(lower))
    # A dot that is not escaped is mostly meant as one.
    return "." if chars >= HOST_CHARS else "\0"
