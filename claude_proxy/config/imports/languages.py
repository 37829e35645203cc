"""Regular languages: whether one set of names or URLs lies in another, decided exactly.

Law kept: silence before allow. What a pattern of another program covers is not estimated from its
text: it is searched for a counterexample, and where the search would take too long the answer is
that nothing is known. Pure.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from claude_proxy.deferred.data_classes import dataclass

type Chars = frozenset[str]

# What a host may consist of, and what a URL may, with one character for all that are not ASCII.
HOST_CHARS: Chars = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
URL_CHARS: Chars = frozenset([*map(chr, range(0x20, 0x7F)), "\x01", "\xff"])

_MOST_STATES = 4_000
_MOST_VISITS = 20_000


class TooComplexError(Exception):
    """The question would take too long to answer."""


@dataclass(frozen=True, slots=True)
class Any1:
    """One character of a set."""

    chars: Chars


@dataclass(frozen=True, slots=True)
class Seq:
    """One part after the other."""

    parts: "tuple[Expr, ...]"


@dataclass(frozen=True, slots=True)
class Alt:
    """One of several."""

    parts: "tuple[Expr, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part several times; `most` None: any number."""

    part: "Expr"
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Anchor:
    """The beginning of the text, or its end."""

    at_end: bool


type Expr = Any1 | Seq | Alt | Repeat | Anchor

EMPTY = Seq(())


def literal(text: str) -> Seq:
    """Return the expression of exactly this text."""
    return Seq(tuple(Any1(frozenset(char)) for char in text))


class Automaton:
    """A language that texts can be tested against, built from an expression."""

    def __init__(self, expr: Expr, *, anywhere: bool = False, alphabet: Chars = URL_CHARS) -> None:
        """Build it; with `anywhere` the expression may match any part of a text, as grep does.

        TooComplexError if it would need too many states.
        """
        self._free: list[list[tuple[bool | None, int]]] = []  # without reading: anchor, state
        self._steps: list[list[tuple[Chars, int]]] = []
        self._closures: dict[tuple[frozenset[int], bool, bool], frozenset[int]] = {}
        self._moves: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        first, self._last = self._state(), self._state()
        self._build(expr, first, self._last)
        if anywhere:
            self._steps[self._last].append((alphabet, self._last))
            before = self._state()
            self._steps[before].append((alphabet, before))
            self._free[before].append((None, first))
            first = before
        self.start = frozenset([first])

    @property
    def sets(self) -> set[Chars]:
        """The sets of characters that it tells apart."""
        return {chars for steps in self._steps for chars, _ in steps}

    def accepts(self, text: str) -> bool:
        """Return whether the text belongs to the language."""
        states = self.start
        for at, char in enumerate(text):
            states = self.step(states, char, at_start=at == 0)
        return self.ends(states, at_start=not text)

    def step(self, states: frozenset[int], char: str, *, at_start: bool) -> frozenset[int]:
        """Return the states after one more character."""
        key = self._closure(states, at_start=at_start, at_end=False), char
        found = self._moves.get(key)
        if found is None:
            found = frozenset(
                target for state in key[0] for chars, target in self._steps[state] if char in chars
            )
            self._moves[key] = found
        return found

    def ends(self, states: frozenset[int], *, at_start: bool) -> bool:
        """Return whether a text that ends in these states belongs to the language."""
        return self._last in self._closure(states, at_start=at_start, at_end=True)

    def _closure(self, states: frozenset[int], *, at_start: bool, at_end: bool) -> frozenset[int]:
        key = states, at_start, at_end
        found = self._closures.get(key)
        if found is None:
            reached, waiting = set(states), list(states)
            while waiting:
                for anchor, target in self._free[waiting.pop()]:
                    open_ = anchor is None or (at_end if anchor else at_start)
                    if open_ and target not in reached:
                        reached.add(target)
                        waiting.append(target)
            found = self._closures[key] = frozenset(reached)
        return found

    def _state(self) -> int:
        if len(self._free) >= _MOST_STATES:
            raise TooComplexError
        self._free.append([])
        self._steps.append([])
        return len(self._free) - 1

    def _build(self, expr: Expr, first: int, last: int) -> None:
        match expr:
            case Any1(chars):
                self._steps[first].append((chars, last))
            case Anchor(at_end):
                self._free[first].append((at_end, last))
            case Seq(parts):
                for part in parts:
                    after = self._state()
                    self._build(part, first, after)
                    first = after
                self._free[first].append((None, last))
            case Alt(parts):
                for part in parts:
                    self._build(part, first, last)
            case Repeat():
                self._build_repeat(expr, first, last)

    def _build_repeat(self, expr: Repeat, first: int, last: int) -> None:
        for _ in range(expr.least):
            after = self._state()
            self._build(expr.part, first, after)
            first = after
        if expr.most is None:
            loop = self._state()
            self._free[first].append((None, loop))
            self._build(expr.part, loop, loop)
            self._free[loop].append((None, last))
            return
        for _ in range(expr.most - expr.least):
            self._free[first].append((None, last))
            after = self._state()
            self._build(expr.part, first, after)
            first = after
        self._free[first].append((None, last))


class _Point(NamedTuple):
    inside: tuple[frozenset[int], ...]
    outside: tuple[frozenset[int], ...]


def witness(
    inside: Sequence[Automaton], outside: Sequence[Automaton] = (), *, alphabet: Chars
) -> str | None:
    """Return the shortest text that is in each of `inside` and in none of `outside`.

    None if there is none; TooComplexError if the search would take too long.
    """
    chars = _representatives([*inside, *outside], alphabet)
    first = _Point(tuple(each.start for each in inside), tuple(each.start for each in outside))
    waiting, seen = deque([(first, "")]), {first}
    if _is_found(first, inside, outside, at_start=True):
        return ""
    while waiting:
        point, text = waiting.popleft()
        for char in chars:
            after = _Point(
                _stepped(inside, point.inside, char, at_start=not text),
                _stepped(outside, point.outside, char, at_start=not text),
            )
            if not all(after.inside) or after in seen:
                continue
            if _is_found(after, inside, outside, at_start=False):
                return text + char
            if len(seen) >= _MOST_VISITS:
                raise TooComplexError
            seen.add(after)
            waiting.append((after, text + char))
    return None


def _stepped(
    automata: Sequence[Automaton],
    states: tuple[frozenset[int], ...],
    char: str,
    *,
    at_start: bool,
) -> tuple[frozenset[int], ...]:
    pairs = zip(automata, states, strict=True)
    return tuple(each.step(here, char, at_start=at_start) for each, here in pairs)


def _is_found(
    point: _Point, inside: Sequence[Automaton], outside: Sequence[Automaton], *, at_start: bool
) -> bool:
    return all(
        each.ends(states, at_start=at_start)
        for each, states in zip(inside, point.inside, strict=True)
    ) and not any(
        each.ends(states, at_start=at_start)
        for each, states in zip(outside, point.outside, strict=True)
    )


def _representatives(automata: Iterable[Automaton], alphabet: Chars) -> list[str]:
    """Return one character for all that no automaton tells apart."""
    sets = list({chars for each in automata for chars in each.sets})
    found: dict[tuple[bool, ...], str] = {}
    # Letters first, as the text may be shown to a person.
    for char in sorted(alphabet, key=lambda char: (not char.isalpha(), char)):
        found.setdefault(tuple(char in chars for chars in sets), char)
    return list(found.values())
