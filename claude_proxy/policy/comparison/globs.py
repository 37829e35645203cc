"""Glob comparison: whether some text matches all of some globs and none of others.

Exact: globs have no groups and no references, so each is a small automaton, and a search through
the product of several either finds a text or proves that there is none. Pure.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import product

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.messages import glob as words
from claude_proxy.policy.patterns import GlobMatcher, folded

# States of one search. A search that needs more is not finished: then the answer is that there may
# be such a text, which never hides a difference.
_MOST_STATES = 20_000
_REMEMBERED = 4096

_LITERAL, _ONE, _STAR = range(3)  # parts of a glob: a character, any one, and any number
_OTHER = ""  # a character that no glob of a search names


@dataclass(frozen=True, slots=True)
class Glob:
    """A glob, and how it reads a text.

    `lenient`: it matches what `policy.patterns.folded` makes of a path, as denials do. Not
    `segmented`: `*` matches slashes, too, as for names of models.
    """

    text: str
    lenient: bool = False
    segmented: bool = True

    def matches(self, text: str) -> bool:
        """Return whether the glob matches a text."""
        if not self.segmented:
            return words.matches(self.text, text)
        return _matcher(self).matches(folded(text) if self.lenient else text)


@lru_cache(maxsize=_REMEMBERED)
def _matcher(glob: Glob) -> GlobMatcher:
    return GlobMatcher(glob.text, folded if glob.lenient else str)


class _Automaton:
    """The positions in a glob that a text may have led to, as the bits of a number."""

    __slots__ = ("_end", "_open", "_steps", "_tokens", "glob", "literals", "start")

    def __init__(self, glob: Glob) -> None:
        self.glob = glob
        self._open = glob.segmented and glob.text.endswith("/**")
        self._tokens = list(_tokens_of(glob, glob.text.removesuffix("/**") if self._open else None))
        self._end = len(self._tokens)
        self.literals = frozenset(
            token[1] for token in self._tokens if token[0] == _LITERAL
        ) | frozenset("/" if glob.segmented else "")
        self._steps: dict[tuple[int, str], int] = {}
        self.start = self._closure(0)

    def step(self, positions: int, char: str) -> int:
        """Return where `char` leads; "" is a character that is none of the literals."""
        found = self._steps.get((positions, char))
        if found is None:
            found = self._steps[positions, char] = self._step(positions, char)
        return found

    def accepts(self, positions: int) -> bool:
        """Return whether the text so far matches."""
        return bool(positions >> self._end)

    def _step(self, positions: int, char: str) -> int:
        found = 0
        inside = char != "/" or not self.glob.segmented
        for at, (kind, literal) in enumerate(self._tokens):
            if not positions >> at & 1:
                continue
            if inside if kind == _ONE else kind == _LITERAL and char == literal:
                found |= self._closure(at + 1)
            elif kind == _STAR and inside:
                found |= self._closure(at)
        if self._open and ((positions >> self._end & 1 and char == "/") or self._rest(positions)):
            found |= 1 << self._end + 1
        return found

    def _rest(self, positions: int) -> bool:
        return bool(positions >> self._end + 1 & 1)

    def _closure(self, at: int) -> int:
        found = 1 << at
        while at < self._end and self._tokens[at][0] == _STAR:
            at += 1
            found |= 1 << at
        return found


def _tokens_of(glob: Glob, body: str | None) -> Iterator[tuple[int, str]]:
    """Yield the parts of a glob: a kind, and the character that a literal matches."""
    text = glob.text if body is None else body
    spell: Callable[[str], str] = folded if glob.lenient else str
    segments = text.split("/") if glob.segmented else [text]
    for number, segment in enumerate(segments):
        if number:
            yield _LITERAL, "/"
        if segment == "*" and glob.segmented:
            yield _ONE, ""
            yield _STAR, ""
            continue
        for place, piece in enumerate(segment.split("*")):
            if place:
                yield _STAR, ""
            for char in spell(piece):
                yield _LITERAL, char


@lru_cache(maxsize=_REMEMBERED)
def _automaton(glob: Glob) -> _Automaton:
    return _Automaton(glob)


def meets(all_of: Iterable[Glob], none_of: Iterable[Glob] = ()) -> bool:
    """Return whether some text matches each of `all_of` and none of `none_of`.

    Of paths, only those count that no two servers read differently, as the others are judged
    without looking at globs.
    """
    wanted, unwanted = tuple(dict.fromkeys(all_of)), tuple(dict.fromkeys(none_of))
    if not set(wanted).isdisjoint(unwanted):
        return False
    if not wanted and not unwanted:
        return True
    plain = next((glob.text for glob in wanted if not glob.lenient and "*" not in glob.text), None)
    if plain is not None:  # nothing else matches it
        matched = (glob.matches(plain) for glob in wanted)
        return all(matched) and not any(glob.matches(plain) for glob in unwanted)
    return _meets(wanted, unwanted)


@lru_cache(maxsize=_REMEMBERED)
def _meets(wanted: tuple[Glob, ...], unwanted: tuple[Glob, ...]) -> bool:
    if any(_begins_otherwise(one, other) for one, other in product(wanted, wanted)):
        return False
    unwanted = tuple(
        glob for glob in unwanted if not any(_begins_otherwise(glob, each) for each in wanted)
    )
    automata = [_automaton(glob) for glob in (*wanted, *unwanted)]
    units = _units(automata)
    form = _START if automata[0].glob.segmented else _TEXT
    start = (form, *(each.start for each in automata))
    seen, waiting = {start}, [start]
    while waiting:
        state = waiting.pop()
        if _is_found(state, automata, len(wanted)):
            return True
        if len(seen) > _MOST_STATES:
            return True
        for unit in units:
            after = _after(state, automata, unit)
            if after is not None and after not in seen and all(after[1 : len(wanted) + 1]):
                seen.add(after)
                waiting.append(after)
    return False


def _begins_otherwise(one: Glob, other: Glob) -> bool:
    """Return whether two globs begin with different letters, so that no text matches both."""
    lenient = one.lenient or other.lenient
    mine, others = _first_part(one, lenient=lenient), _first_part(other, lenient=lenient)
    size = min(len(mine), len(others))
    return mine[:size] != others[:size]


@lru_cache(maxsize=_REMEMBERED)
def _first_part(glob: Glob, *, lenient: bool) -> str:
    # "/a/**" matches "/a" as well.
    text = glob.text.removesuffix("/**") if glob.segmented else glob.text
    first = text.partition("*")[0]
    return folded(first) if lenient else first


type _State = tuple[int, ...]  # of the path's own form, then of each automaton


def _is_found(state: _State, automata: Sequence[_Automaton], wanted: int) -> bool:
    if state[0] not in _ENDS:
        return False
    accepted = [each.accepts(at) for each, at in zip(automata, state[1:], strict=True)]
    return all(accepted[:wanted]) and not any(accepted[wanted:])


@dataclass(frozen=True, slots=True)
class _Unit:
    """A character of a path, or an escape such as "%40"."""

    raw: tuple[str, ...]  # as it is sent
    lenient: str  # as a lenient server reads it
    form: str  # what it does to the form of a path


def _after(state: _State, automata: Sequence[_Automaton], unit: _Unit) -> _State | None:
    form = _form_after(state[0], unit.form)
    if form is None:
        return None
    found = [form]
    for each, at in zip(automata, state[1:], strict=True):
        if each.glob.lenient:
            at = each.step(at, unit.lenient)  # noqa: PLW2901 - the next state
        else:
            for char in unit.raw:
                at = each.step(at, char)  # noqa: PLW2901 - the next state
        found.append(at)
    return tuple(found)


# --- the form of a path: those that `policy.patterns.is_ambiguous` refuses are left out

_START, _SLASH, _DOT, _DOTS, _INSIDE, _E0, _F0, _EF, _EFBC, _TEXT = range(10)
_ENDS = frozenset({_SLASH, _INSIDE, _E0, _F0, _EF, _EFBC, _TEXT})
_AFTER = {(_SLASH, "."): _DOT, (_DOT, "."): _DOTS, (_EF, "BC"): _EFBC}
_LEADS = {"E0": _E0, "F0": _F0, "EF": _EF}


def _form_after(form: int, kind: str) -> int | None:
    """Return the form of a path after one more unit; None: it is ambiguous."""
    if form == _TEXT:
        return _TEXT
    if kind == "/":
        return None if form in {_SLASH, _DOT, _DOTS} else _SLASH
    if form == _START or (form, kind) in _OVERLONG:
        return None
    if (form, kind) in _AFTER:
        return _AFTER[form, kind]
    return _LEADS.get(kind, _INSIDE)


# Continuations by which UTF-8 is overlong, or is a full-width ".", "/" or "\".
_OVERLONG = frozenset(
    {(_E0, "8E"), (_E0, "8F"), (_E0, "8"), (_E0, "9"), (_F0, "8E"), (_F0, "8F"), (_F0, "8")}
    | {(_EFBC, "8E"), (_EFBC, "8F"), (_EFBC, "BC")}
)
_REFUSED_RAW = frozenset(";\\?#%")
_REFUSED_ESCAPES = frozenset(
    {*range(0x20), 0x7F, 0x23, 0x25, 0x2F, 0x3B, 0x3F, 0x5C, 0xC0, 0xC1}
    | {ord(char) for char in "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"}
)


def _kind_of_escape(byte: int) -> str:
    text = f"{byte:02X}"
    if text in {"E0", "F0", "EF", "BC", "8E", "8F"}:
        return text
    return text[0] if text[0] in "89" else "x"


def _units(automata: Sequence[_Automaton]) -> tuple[_Unit, ...]:
    """Return one unit of each kind that the automata distinguish."""
    exact = frozenset().union(*(each.literals for each in automata if not each.glob.lenient))
    lenient = frozenset().union(*(each.literals for each in automata if each.glob.lenient))
    if not automata[0].glob.segmented:
        return tuple(_Unit((char,), char, "text") for char in (*sorted(exact), _OTHER))
    return _path_units(exact, lenient)


@lru_cache(maxsize=_REMEMBERED)
def _path_units(exact: frozenset[str], lenient: frozenset[str]) -> tuple[_Unit, ...]:
    found: dict[_Unit, None] = {}

    def add(raw: str, read: str, form: str) -> None:
        shown = tuple(char if char in exact else _OTHER for char in raw)
        found[_Unit(shown, read if read in lenient else _OTHER, form)] = None

    for code in range(0x21, 0x7F):
        char = chr(code)
        if char not in _REFUSED_RAW:
            add(char, char.lower(), char if char in "/." else "x")
    # An escape differs from other characters only in what it is decoded to.
    if lenient or "%" in exact or all(unit.raw != (_OTHER,) for unit in found):
        for byte in range(0x100):
            if byte not in _REFUSED_ESCAPES:
                for raw in {f"%{byte:02X}", f"%{byte:02x}", *_mixed(byte)}:
                    add(raw, chr(byte).lower(), _kind_of_escape(byte))
    # What no glob names is tried first, from the end: it is what most often tells globs apart.
    return tuple(sorted(found, key=lambda unit: unit.raw.count(_OTHER) - len(unit.raw)))


def _mixed(byte: int) -> Iterator[str]:
    high, low = f"{byte >> 4:X}", f"{byte & 15:X}"
    yield f"%{high}{low.lower()}"
    yield f"%{high.lower()}{low}"
