"""Hosts of a pattern as a regular language, and the patterns that a regular expression contains.

Law kept: silence before allow. A pattern stands for an expression only if every host of it matches;
what the expression matches beyond is found, too, and can be told. Pure.
"""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import NamedTuple

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


class Shape(NamedTuple):
    """What nearly all expressions about hosts are: a name, anchored or not."""

    pattern: HostPattern  # every host of which is matched
    beyond: str | None  # a host that is matched as well; None: there is none


def shape_of(expr: Expr) -> Shape | None:
    """Return what an expression says if it is a name with what is usual around it.

    Only a short cut: the search for counterexamples has the same answer.
    """
    parts = list(_flat(expr))
    is_ended = parts[-1:] == [Anchor(at_end=True)]
    parts = parts[: len(parts) - is_ended]
    kind = None
    if parts[:1] == [Anchor(at_end=False)]:
        kind = PatternKind.EXACT
        parts = parts[1:]
        if parts[:1] == [_ANY_DOMAIN]:
            kind = PatternKind.DOMAIN
            parts = parts[1:]
    elif parts[:1] == [_START_OR_DOT]:
        kind = PatternKind.DOMAIN
        parts = parts[1:]
    samples = [_sample(each.chars) if isinstance(each, Any1) else "\0" for each in parts]
    name = "".join(samples)
    is_literal = all(isinstance(each, Any1) and len(each.chars) <= 2 for each in parts)  # noqa: PLR2004 - both cases of a letter
    if kind is None and is_ended and is_literal and name.startswith("."):
        kind, name = PatternKind.SUBDOMAINS, name[1:]
    if "\0" in name or "." not in name or name != name.strip("."):
        return None
    if any(isinstance(each, Any1) and _sample(each.chars) not in each.chars for each in parts):
        return None  # a capital letter, which no host has
    if kind is not None:
        found = list(_parsed([f"{_PREFIXES[kind]}{name}"])) if is_ended and is_literal else []
        return Shape(found[0], None) if found else None
    found = list(_parsed([f".{name}"]))
    return Shape(found[0], f"a{name}") if found else None


def _flat(expr: Expr) -> Iterator[Expr]:
    if isinstance(expr, Seq):
        for part in expr.parts:
            yield from _flat(part)
    else:
        yield expr


_PREFIXES = {PatternKind.EXACT: "", PatternKind.SUBDOMAINS: "*.", PatternKind.DOMAIN: "."}
_START_OR_DOT = Alt((Seq((Anchor(at_end=False),)), Seq((Any1(frozenset(".")),))))
_ANY_DOMAIN = Repeat(Seq((Repeat(Any1(URL_CHARS), 0, None), Any1(frozenset(".")))), 0, 1)


def _meet(one: HostPattern, other: HostPattern) -> bool:
    return one.includes(other) or other.includes(one)


class HostExpression:
    """A regular expression about hosts, as far as it can be understood."""

    def __init__(self, expr: Expr | None, *, with_port: bool = False) -> None:
        """Take an expression that may match anywhere; None: one that cannot be read.

        With `with_port` it is compared with "host:port", as in the target of a CONNECT.
        """
        self._expr = expr
        self.with_port = with_port
        self._found: dict[tuple[HostPattern, bool], bool] = {}
        self._shape = None if expr is None or with_port else shape_of(expr)
        # Patterns of which it matches every host, the widest of each name.
        self.patterns: tuple[HostPattern, ...] = ()
        # A pattern that was meant, perhaps, and a host of it that it does not match.
        self.unmatched: tuple[HostPattern, str] | None = None
        if self._shape is not None:
            self.patterns = (self._shape.pattern,)
        elif expr is not None and self._automaton is not None:
            self.patterns = self._sensible(tuple(self._covered(_candidates(expr))))

    @cached_property
    def _automaton(self) -> Automaton | None:
        try:
            if self._expr is not None:
                return Automaton(self._expr, anywhere=True, alphabet=URL_CHARS)
        except TooComplexError:
            pass
        return None

    def _sensible(self, patterns: tuple[HostPattern, ...]) -> tuple[HostPattern, ...]:
        """Leave out single words, of which more than the one name is meant."""
        words = tuple(each for each in patterns if each.network is None and "." not in each.host)
        if words and self.beyond(HostPattern.every(), patterns) is not None:
            return tuple(each for each in patterns if each not in words)
        return patterns

    @property
    def is_known(self) -> bool:
        """Whether anything is known about what it matches."""
        return self._shape is not None or self._automaton is not None

    def covers(self, pattern: HostPattern) -> bool:
        """Return whether it matches every host of a pattern, as far as is known."""
        if self._shape is not None and self._shape.pattern.includes(pattern):
            return True
        hosts = self._hosts(pattern)
        if hosts is None or self._automaton is None:
            return False
        key = pattern, True
        if key not in self._found:
            self._found[key] = _is_none([hosts], [self._automaton])
        return self._found[key]

    def may_match(self, pattern: HostPattern) -> bool:
        """Return whether it may match a host of a pattern."""
        if self._shape is not None and _meet(self._shape.pattern, pattern):
            return True
        hosts = self._hosts(pattern)
        if hosts is None or self._automaton is None:
            return True
        key = pattern, False
        if key not in self._found:
            self._found[key] = not _is_none([hosts, self._automaton], [])
        return self._found[key]

    def beyond(self, within: HostPattern, patterns: Iterable[HostPattern]) -> str | None:
        """Return a host of `within` that it may match and none of `patterns` covers; "" if unknown.

        None: there is no such host.
        """
        patterns = tuple(patterns)
        shape = self._shape
        if shape is not None and shape.pattern in patterns:
            if shape.beyond is None:
                return None
            if within.kind is PatternKind.EVERY and len(patterns) == 1:
                return shape.beyond
        hosts = self._hosts(within)
        if hosts is None or self._automaton is None:
            return ""
        outside = [each for each in map(self._hosts, patterns) if each is not None]
        try:
            found = witness([hosts, self._automaton], outside, alphabet=ADDRESS_CHARS)
        except TooComplexError:
            return ""
        return found.rpartition(":")[0] if found and self.with_port else found

    def _hosts(self, pattern: HostPattern) -> Automaton | None:
        return hosts_of(pattern, with_port=self.with_port)

    def _covered(self, names: Iterable[str]) -> Iterator[HostPattern]:
        for name in names:
            for texts in ((f".{name}",), (f"*.{name}", name)):
                found = [each for each in _parsed(texts) if self.covers(each)]
                yield from found
                if found:
                    break
                self._note_unmatched(texts[0])

    def _note_unmatched(self, text: str) -> None:
        for pattern in _parsed([text]):
            hosts = self._hosts(pattern)
            if self.unmatched is None and hosts is not None and self._automaton is not None:
                with suppress(TooComplexError):
                    missed = witness([hosts], [self._automaton], alphabet=ADDRESS_CHARS)
                    self.unmatched = (pattern, missed) if missed else None


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
