"""Openings: what one allow line of another program opens, less what lines before it deny.

Law kept: silence before allow. The other program takes the first line that matches, and here a
denial always wins; so what a denial takes from a later line is taken out of that opening, and where
this cannot be written, more is taken. Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import field

from claude_proxy.config.imports.host_tests import (
    EVERY,
    HostTest,
    Item,
    Loss,
    Remains,
    is_writable,
)
from claude_proxy.config.imports.port_sets import ALL_PORTS, PortSet
from claude_proxy.config.imports.url_languages import Globs, UrlExpression
from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.policy.location import Location
from claude_proxy.policy.methods import METHODS
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.request import Scheme

OTHER_METHODS = "*"  # those that no list of methods names
ALL_METHODS = frozenset((*METHODS, OTHER_METHODS))
DEFAULT_PORTS = {Scheme.HTTPS: 443, Scheme.HTTP: 80}


@dataclass(frozen=True, slots=True)
class Denial:
    """What is taken out of an opening, and has to be denied by an entry."""

    pattern: HostPattern
    source: Location
    ports: frozenset[int] | None = None
    methods: frozenset[str] | None = None
    globs: Globs = None


@dataclass(frozen=True, slots=True)
class Opening:
    """Requests of one scheme that are allowed."""

    scheme: Scheme
    source: Location
    hosts: tuple[HostPattern, ...] = (EVERY,)
    ports: PortSet = ALL_PORTS
    methods: frozenset[str] = ALL_METHODS
    globs: Globs = None
    denials: tuple[Denial, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it opens every host, and every request to them but for its denials."""
        return EVERY in self.hosts and not self.is_limited

    @property
    def is_limited(self) -> bool:
        """Whether it opens only some ports, methods or paths."""
        return self.ports != ALL_PORTS or self.methods != ALL_METHODS or self.globs is not None


@dataclass(frozen=True, slots=True)
class HostIs:
    """The host is one of these."""

    test: HostTest


@dataclass(frozen=True, slots=True)
class PortIs:
    """The port is one of these."""

    ports: PortSet


@dataclass(frozen=True, slots=True)
class MethodIs:
    """The method is one of these."""

    methods: frozenset[str]


@dataclass(frozen=True, slots=True)
class UrlIs:
    """The URL matches one of these expressions."""

    items: tuple[tuple[UrlExpression, str, Location], ...]


type Condition = HostIs | PortIs | MethodIs | UrlIs


@dataclass(frozen=True, slots=True)
class Literal:
    """A condition that has to hold, or must not."""

    condition: Condition
    negated: bool = False

    def opposite(self) -> "Literal":
        """Return the literal that holds where this one does not."""
        return Literal(self.condition, not self.negated)


@dataclass(slots=True)
class Result:
    """What is left, and what was lost on the way."""

    openings: list[Opening] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)


def limited(openings: Iterable[Opening], literals: Iterable[Literal]) -> Result:
    """Return what is left of openings where all literals hold."""
    found = Result(list(openings))
    for literal in literals:
        before, found.openings = found.openings, []
        for opening in before:
            _limit(opening, literal, found)
    return found


def without(opening: Opening, literals: Sequence[Literal], source: Location) -> Result:
    """Return what is left of an opening where not all literals hold: those of a denial."""
    relevant = []
    for literal in literals:
        if not _may_hold(opening, literal):
            return Result([opening])
        if not _holds(opening, literal):
            relevant.append(literal)
    if not relevant:
        return Result()
    if len(relevant) == 1:
        return limited([opening], [relevant[0].opposite()])
    denials = _denials(opening, relevant, source)
    if denials is not None:
        return Result([replace(opening, denials=(*opening.denials, *denials))])
    return _without_one(opening, relevant, source)


def both(one: Opening, other: Opening) -> Result:
    """Return what two openings of the same scheme have in common."""
    items = [Item(str(host), other.source, pattern=host) for host in other.hosts]
    remains = HostTest(items).kept(one.hosts)
    globs = other.globs if one.globs is None else one.globs
    ports, methods = one.ports & other.ports, one.methods & other.methods
    alike = one.globs is None or other.globs is None or one.globs == other.globs
    if not (remains.hosts and ports and methods and alike):
        return Result()
    denials = (*one.denials, *other.denials)
    hosts = tuple(dict.fromkeys(remains.hosts))
    return Result(
        [Opening(one.scheme, one.source, hosts, ports, methods, globs, denials)], remains.losses
    )


# One literal.


def _limit(opening: Opening, literal: Literal, found: Result) -> None:
    match literal.condition:
        case PortIs(ports):
            kept = opening.ports - ports if literal.negated else opening.ports & ports
            if kept:
                found.openings.append(replace(opening, ports=kept))
        case MethodIs(methods):
            left = opening.methods - methods if literal.negated else opening.methods & methods
            if left:
                found.openings.append(replace(opening, methods=left))
        case HostIs(test):
            remains = test.left(opening.hosts) if literal.negated else test.kept(opening.hosts)
            found.losses += remains.losses
            found.openings += _remaining(opening, remains)
        case UrlIs() as urls:
            if literal.negated:
                _leave_urls(opening, urls, found)
            else:
                _keep_urls(opening, urls, found)


def _remaining(opening: Opening, remains: Remains) -> list[Opening]:
    hosts = tuple(dict.fromkeys(remains.hosts))
    denials = tuple(Denial(pattern, source) for pattern, source in remains.denied)
    if not hosts:
        return []
    return [replace(opening, hosts=hosts, denials=(*opening.denials, *denials))]


def _keep_urls(opening: Opening, urls: UrlIs, found: Result) -> None:
    kept: dict[tuple[Globs, PortSet], list[HostPattern]] = {}
    for expression, text, source in urls.items:
        mine = [part for host in opening.hosts for part in _parts(expression, opening, host)]
        for pattern, globs, ports in mine:
            kept.setdefault((globs, ports), []).append(pattern)
        if not mine:
            found.losses.append(Loss(f"no entry can say what {text} matches", source))
        elif [(host, opening.globs, opening.ports) for host in opening.hosts] != mine:
            what = f"of what {text} matches, only {_listed(mine)} is kept"
            found.losses.append(Loss(what, source))
    for (globs, ports), patterns in kept.items():
        hosts = tuple(dict.fromkeys(patterns))
        found.openings.append(replace(opening, hosts=hosts, globs=globs, ports=ports))


def _parts(
    expression: UrlExpression, opening: Opening, host: HostPattern
) -> list[tuple[HostPattern, Globs, PortSet]]:
    """Return hosts, paths and ports of an opening whose URLs all match."""
    usual = opening.ports & PortSet.single(DEFAULT_PORTS[opening.scheme])
    for ports, any_port in ((opening.ports, True), (usual, False)):
        if not ports:
            continue
        if expression.covers(opening.scheme, host, opening.globs, any_port=any_port):
            return [(host, opening.globs, ports)]
        if opening.globs is None:
            parts = list(expression.parts(opening.scheme, host, any_port=any_port))
            if parts:
                return [(pattern, globs, ports) for pattern, globs in parts]
    return []


def _listed(parts: list[tuple[HostPattern, Globs, PortSet]]) -> str:
    said = []
    for pattern, globs, _ in parts[:3]:
        name = "every host" if pattern == EVERY else str(pattern)
        said.append(name if globs is None else f"{' '.join(globs)} of {name}")
    return ", ".join(said)


def _leave_urls(opening: Opening, urls: UrlIs, found: Result) -> None:
    kept: list[HostPattern] = []
    denials: list[Denial] = []
    for host in opening.hosts:
        mine: list[Denial] = []
        for expression, text, source in urls.items:
            if not expression.may_match(opening.scheme, host, opening.globs):
                continue
            globs = expression.bound(opening.scheme, host) if is_writable(host) else None
            if globs is None:
                whole = "every host" if host == EVERY else str(host)
                if not expression.covers(opening.scheme, host, opening.globs):
                    what = f"what {text} denies of {whole} cannot be said, so all of it is denied"
                    found.losses.append(Loss(f"{what} over {opening.scheme}", source))
                break
            mine.append(Denial(host, source, globs=globs))
        else:
            kept.append(host)
            denials += mine
    if kept:
        found.openings.append(
            replace(opening, hosts=tuple(kept), denials=(*opening.denials, *denials))
        )


# Several literals of one denial.


def _holds(opening: Opening, literal: Literal) -> bool:
    """Return whether a literal holds for all of an opening, as far as is known."""
    if literal.negated:
        return not _may_be(opening, literal.condition)
    match literal.condition:
        case PortIs(ports):
            return not opening.ports - ports
        case MethodIs(methods):
            return opening.methods <= methods
        case HostIs(test):
            return all(map(test.covers, opening.hosts))
        case UrlIs(items):
            return all(
                any(each.covers(opening.scheme, host, opening.globs) for each, _, _ in items)
                for host in opening.hosts
            )


def _may_hold(opening: Opening, literal: Literal) -> bool:
    if literal.negated:
        return not _holds(opening, Literal(literal.condition))
    return _may_be(opening, literal.condition)


def _may_be(opening: Opening, condition: Condition) -> bool:
    match condition:
        case PortIs(ports):
            return bool(opening.ports & ports)
        case MethodIs(methods):
            return bool(opening.methods & methods)
        case HostIs(test):
            return any(map(test.may_hold, opening.hosts))
        case UrlIs(items):
            return any(
                each.may_match(opening.scheme, host, opening.globs)
                for host in opening.hosts
                for each, _, _ in items
            )


def _denials(
    opening: Opening, literals: Sequence[Literal], source: Location
) -> list[Denial] | None:
    """Return entries that deny where all literals hold; None if no entries can."""
    hosts: list[tuple[HostPattern, Location]] | None = None
    ports: frozenset[int] | None = None
    methods: frozenset[str] | None = None
    for literal in literals:
        match literal.condition:
            case PortIs(found):
                wanted = opening.ports - found if literal.negated else opening.ports & found
                ports, others = wanted.listed()
                if others:
                    return None
            case MethodIs(named):
                methods = opening.methods - named if literal.negated else opening.methods & named
                if OTHER_METHODS in methods:
                    return None
            case HostIs(test) if not literal.negated and hosts is None:
                hosts = _denied_hosts(opening, test)
                if hosts is None:
                    return None
            case _:
                return None
    if hosts is None:
        hosts = [(host, source) for host in opening.hosts]
    if not all(is_writable(host) for host, _ in hosts):
        return None
    return [Denial(host, place, ports, methods) for host, place in hosts]


def _denied_hosts(opening: Opening, test: HostTest) -> list[tuple[HostPattern, Location]] | None:
    found: list[tuple[HostPattern, Location]] = []
    for host in opening.hosts:
        remains = test.left([host])
        if remains.losses:
            return None
        found += remains.denied
        if not remains.hosts:
            found.append((host, test.items[0].source))
    return found


def _without_one(opening: Opening, literals: Sequence[Literal], source: Location) -> Result:
    """Return what is left where one of the literals does not hold, of those that can be said."""
    for kind in (PortIs, MethodIs, HostIs, UrlIs):
        for literal in literals:
            if not isinstance(literal.condition, kind):
                continue
            found = limited([opening], [literal.opposite()])
            if found.openings and not any(each.denials for each in found.openings):
                what = "the conditions of this denial cannot be kept together, so more is denied"
                return Result(found.openings, [*found.losses, Loss(what, source)])
    what = "the conditions of this denial cannot be kept together, so all that they touch is denied"
    return Result([], [Loss(what, source)])
