"""Path sets: the paths that rules allow for one method, and what one set has more than another.

Exact: what is reported is a union of globs without other globs, and it is empty only if every path
of the one set is in the other. Paths that two servers could read differently are all treated alike,
as the policy does. Pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from math import prod

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.comparison.globs import Glob, meets
from claude_proxy.policy.patterns import is_ambiguous

_MOST_PARTS = 64
_MOST_SHOWN = 8  # in one line

type _Term = tuple[str, ...]  # globs that a path matches all of; none: every path


@dataclass(frozen=True, slots=True)
class PathSet:
    """Paths that are allowed; built from rules, of which a denial always wins."""

    whole: bool = False  # a rule allows every path
    globs: frozenset[str] = frozenset()  # what other rules allow
    denied: frozenset[str] = frozenset()  # in any spelling; then ambiguous paths are denied, too
    within: frozenset[str] | None = None  # globs of the API's restrictions; None: there are none
    unambiguous: bool = False  # the API's restrictions deny ambiguous paths

    @property
    def has_ambiguous(self) -> bool:
        """Whether paths are allowed that two servers could read differently."""
        return self.whole and not (self.denied or self.unambiguous) and self.within is None

    @property
    def has_asterisk(self) -> bool:
        """Whether the `*` of `OPTIONS *` is allowed."""
        return self.whole and self.within is None

    @property
    def is_empty(self) -> bool:
        """Whether no path is allowed."""
        denials = _lenient(self.denied)
        return not self.has_asterisk and not any(
            meets(map(Glob, term), denials) for term in self.terms()
        )

    def terms(self) -> tuple[_Term, ...]:
        """Return the positive part as alternatives: globs that a path must match all of."""
        first = [()] if self.whole else [(glob,) for glob in sorted(self.globs)]
        if self.within is None:
            return _without_narrower(first)
        second = [(glob,) for glob in sorted(self.within)]
        return _without_narrower(_joined(one, two) for one, two in product(first, second))


@dataclass(frozen=True, slots=True)
class PathPart:
    """Paths that match all of some globs and none of others."""

    globs: _Term = ()  # none: every path
    spelled: tuple[str, ...] = ()  # also, in any spelling
    but: tuple[str, ...] = ()  # except these
    but_spelled: tuple[str, ...] = ()  # and these, in any spelling

    def covers(self, path: str) -> bool:
        """Return whether an unambiguous path is one of these."""
        wanted = (*map(Glob, self.globs), *_lenient(self.spelled))
        unwanted = (*map(Glob, self.but), *_lenient(self.but_spelled))
        return all(each.matches(path) for each in wanted) and not any(
            each.matches(path) for each in unwanted
        )

    def __str__(self) -> str:
        if not self.globs:
            shown = " in ".join(self.spelled)
        else:
            shown = " and ".join((*self.globs, *self.spelled))
        denied = dict.fromkeys((*self.but, *self.but_spelled))
        return f"{shown or 'every path'}{_but(denied)}"


@dataclass(frozen=True, slots=True)
class MorePaths:
    """What one set of paths has more than another."""

    parts: tuple[PathPart, ...] = ()
    ambiguous: bool = False
    asterisk: bool = False

    def __bool__(self) -> bool:
        return bool(self.parts) or self.ambiguous or self.asterisk

    def covers(self, path: str) -> bool:
        """Return whether a path is one of these."""
        if path == "*":
            return self.asterisk
        if is_ambiguous(path):
            return self.ambiguous
        return any(part.covers(path) for part in self.parts)

    def __str__(self) -> str:
        """Return the paths as text; "" if these are all."""
        shown = [str(part) for part in self.parts]
        if shown == ["every path"]:
            return ""
        if self.ambiguous and not shown:
            shown = ["paths that servers read differently, such as //a and /a;b"]
        return listed(shown) or "the path *"


def more_paths(old: PathSet, new: PathSet) -> MorePaths:
    """Return the paths that `new` has and `old` has not."""
    if old == new:
        return MorePaths()
    return MorePaths(
        tuple(_more(old, new)),
        new.has_ambiguous and not old.has_ambiguous,
        new.has_asterisk and not old.has_asterisk,
    )


def _more(old: PathSet, new: PathSet) -> Iterator[PathPart]:
    before, denials = old.terms(), _lenient(new.denied)
    for term in new.terms():
        wanted = tuple(map(Glob, term))
        here = [each for each in before if meets((*wanted, *map(Glob, each)), denials)]
        # A term of two globs leaves two kinds of paths; each is one of `_without`.
        for rest in _without(term, here):
            if meets(map(Glob, rest.globs), (*map(Glob, rest.but), *denials)):
                yield _but_denied(rest, new.denied)
        yield from _no_longer_denied(term, here, old, new)


def _no_longer_denied(
    term: _Term, here: Iterable[_Term], old: PathSet, new: PathSet
) -> Iterator[PathPart]:
    """Yield what a denial of the old set took from what it allows otherwise."""
    here = list(here)
    for glob in sorted(old.denied - new.denied):
        lenient = Glob(glob, lenient=True)
        wanted = (*map(Glob, term), lenient)
        denials = _lenient(new.denied)
        if any(meets((*wanted, *map(Glob, each)), denials) for each in here):
            part = PathPart(term, (glob,))
            if term and not meets(map(Glob, term), (lenient,)):
                part = PathPart(term)  # all of it was denied
            elif len(term) == 1 and not meets((lenient,), map(Glob, term)):
                part = PathPart((), (glob,))
            yield _but_denied(part, new.denied)


def _without(term: _Term, others: Iterable[_Term]) -> Iterator[PathPart]:
    """Yield what matches a term and none of `others`, each of which is a term itself."""
    choices = [tuple(glob for glob in each if glob not in term) for each in others]
    if any(not choice for choice in choices):
        return
    # Not (a and b) is (not a) or (not b).
    if prod(map(len, choices)) > _MOST_PARTS:
        yield PathPart(term)  # too many to list: say more, never less
        return
    yield from dict.fromkeys(
        PathPart(term, but=tuple(dict.fromkeys(chosen))) for chosen in product(*choices)
    )


def _but_denied(part: PathPart, denied: frozenset[str]) -> PathPart:
    """Return a part with the denials that take something from it."""
    wanted = [*map(Glob, part.globs), *_lenient(part.spelled)]
    unwanted = [*map(Glob, part.but)]
    met = tuple(
        glob for glob in sorted(denied) if meets((*wanted, Glob(glob, lenient=True)), unwanted)
    )
    return PathPart(part.globs, part.spelled, part.but, met)


def _joined(one: _Term, two: _Term) -> _Term:
    """Return the paths of both terms as one, without the wider glob if one includes the other."""
    for narrow, wide in ((one, two), (two, one)):
        if not meets(map(Glob, narrow), map(Glob, wide)) and wide:
            return narrow
    return tuple(dict.fromkeys((*one, *two)))


def _without_narrower(terms: Iterable[_Term]) -> tuple[_Term, ...]:
    """Return the terms that are not empty and not part of another one."""
    found = [term for term in dict.fromkeys(terms) if len(term) < 2 or meets(map(Glob, term))]  # noqa: PLR2004 - a single glob always matches something
    if len(found) == 1:
        return (found[0],)
    kept: list[_Term] = []
    for at, term in enumerate(found):
        others = (*kept, *found[at + 1 :])
        if not any(_is_within(term, other) for other in others):
            kept.append(term)
    return tuple(kept)


def _is_within(term: _Term, other: _Term) -> bool:
    return all(not meets(map(Glob, term), (Glob(glob),)) for glob in other)


def _lenient(globs: Iterable[str]) -> tuple[Glob, ...]:
    return tuple(Glob(glob, lenient=True) for glob in sorted(globs))


def _but(globs: Iterable[str]) -> str:
    shown = listed(list(globs))
    return f" but {shown}" if shown else ""


def listed(words: Sequence[str]) -> str:
    """Return words as text; of very many the first ones, and how many there are more."""
    if len(words) <= _MOST_SHOWN + 1:
        return ", ".join(words)
    return f"{', '.join(words[:_MOST_SHOWN])} and {len(words) - _MOST_SHOWN} more"
