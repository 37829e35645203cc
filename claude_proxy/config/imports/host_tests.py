"""Conditions on a host, and what is left of the hosts of a rule where one holds or does not.

Law kept: silence before allow. Where a condition cannot be written as host patterns, what is left
is less than the other program allowed; what is lost is reported. Pure.
"""

from collections.abc import Iterable, Iterator
from dataclasses import field

from claude_proxy.config.imports.host_languages import HostExpression
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, PatternError, PatternKind

EVERY = HostPattern.every()


@dataclass(frozen=True, slots=True)
class Item:
    """One value of a condition: hosts of a pattern, or those that an expression matches."""

    text: str  # as the file has it
    source: Location
    pattern: HostPattern | None = None
    expression: HostExpression | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """Hosts that are allowed no more, and which value is why."""

    what: str
    source: Location


@dataclass(slots=True)
class Remains:
    """What is left of hosts: patterns, those of them that are denied, and what was lost."""

    hosts: list[HostPattern] = field(default_factory=list)
    denied: list[tuple[HostPattern, Location]] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)


def is_writable(pattern: HostPattern) -> bool:
    """Return whether a policy file can hold the pattern."""
    if pattern.kind is PatternKind.EVERY:
        return False
    try:
        return HostPattern.parse(str(pattern)) == pattern
    except PatternError:
        return False


class HostTest:
    """A condition on a host: any of its values."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.items = tuple(items)
        self._patterns = PatternIndex(
            (each.pattern, each) for each in self.items if each.pattern is not None
        )
        self._expressions = tuple(
            (each.expression, each) for each in self.items if each.expression is not None
        )

    def covers(self, pattern: HostPattern) -> bool:
        """Return whether it holds for every host of a pattern, as far as is known."""
        if pattern.kind is PatternKind.EVERY:
            return any(each.pattern == EVERY for each in self.items)
        if any(True for _ in self._patterns.around(pattern)):
            return True
        return any(each.covers(pattern) for each, _ in self._expressions)

    def may_hold(self, pattern: HostPattern) -> bool:
        """Return whether it may hold for some host of a pattern."""
        if pattern.kind is PatternKind.EVERY:
            return bool(self.items)
        if any(True for _ in self._patterns.around(pattern)):
            return True
        if any(True for _ in self._patterns.inside(pattern)):
            return True
        if pattern.network is None and self._patterns.networks:
            return True  # the name may resolve to an address of one
        return any(each.may_match(pattern) for each, _ in self._expressions)

    def kept(self, hosts: Iterable[HostPattern]) -> Remains:
        """Return what is left of hosts where the condition has to hold."""
        found = Remains()
        for host in hosts:
            if host.kind is PatternKind.EVERY:
                self._keep_all(found)
            else:
                self._keep(host, found)
        return found

    def left(self, hosts: Iterable[HostPattern]) -> Remains:
        """Return what is left of hosts where the condition must not hold."""
        found = Remains()
        for host in hosts:
            self._leave(host, found)
        return found

    # Where it has to hold.

    def _keep_all(self, found: Remains) -> None:
        for item in self.items:
            if item.pattern is not None:
                found.hosts.append(item.pattern)
                continue
            expression = item.expression
            if expression is None or not expression.is_known:
                continue  # which has been told where it was read
            found.hosts += expression.patterns
            beyond = expression.beyond(EVERY, expression.patterns)
            if beyond is None and not expression.patterns:
                what = f"{item.text} matches no host"
                if expression.with_port:
                    what += ' and port, as in "example.com:443", which is all that a CONNECT says'
                found.losses.append(Loss(what, item.source))
            if beyond is not None:
                found.losses.append(Loss(_beyond(item, beyond, expression.patterns), item.source))

    def _keep(self, host: HostPattern, found: Remains) -> None:
        if self.covers(host):
            found.hosts.append(host)
            return
        for pattern, _ in self._patterns.inside(host):
            found.hosts.append(pattern)
        for expression, item in self._expressions:
            if not expression.may_match(host):
                continue
            inside = [each for each in expression.patterns if host.includes(each)]
            found.hosts += inside
            beyond = expression.beyond(host, inside)
            if beyond is not None:
                found.losses.append(Loss(_beyond(item, beyond, inside), item.source))
        if host.network is None and self._patterns.networks:
            item = self._patterns.networks[0][1]
            what = f"{item.text} is compared with the address of {host}, which is not known here"
            found.losses.append(Loss(what, item.source))

    # Where it must not hold.

    def _leave(self, host: HostPattern, found: Remains) -> None:
        if self.covers(host):
            return
        denied: list[tuple[HostPattern, Location]] = []
        for pattern, item in self._patterns.meeting(host):
            if not is_writable(pattern):
                found.losses.append(Loss(f"no entry can be {pattern}", item.source))
                self._narrow(host, found)
                return
            denied.append((pattern, item.source))
        for expression, item in self._expressions:
            if not expression.may_match(host):
                continue
            inside = [each for each in expression.patterns if _meet(each, host)]
            beyond = expression.beyond(host, inside)
            if beyond is not None:
                found.losses.append(Loss(_undeniable(item, beyond, host), item.source))
                self._narrow(host, found)
                return
            denied += [(each, item.source) for each in inside]
        found.hosts.append(host)
        found.denied += denied

    def _narrow(self, host: HostPattern, found: Remains) -> None:
        """Keep of a domain the name itself, as denials below it cannot be written."""
        if host.kind is PatternKind.DOMAIN:
            self._leave(HostPattern(PatternKind.EXACT, host.host), found)


def _beyond(item: Item, name: str, patterns: Iterable[HostPattern]) -> str:
    listed = ", ".join(map(str, patterns))
    example = f", such as {name}" if name else ""
    expression = item.expression
    if not listed:
        what = f"{item.text} matches parts of names{example}, and no entry can say so"
    else:
        what = f"{item.text} also matches other names than {listed}{example}"
    if expression is not None and expression.unmatched is not None:
        pattern, missed = expression.unmatched
        what += f"; {pattern} would also allow {missed}, which it does not match"
    return what


def _undeniable(item: Item, name: str, host: HostPattern) -> str:
    whole = "every host" if host == EVERY else str(host)
    example = f", such as {name}" if name else ""
    return f"{item.text} denies a part of {whole}{example}, which no entry can say"


def _meet(one: HostPattern, other: HostPattern) -> bool:
    return one.includes(other) or other.includes(one)


class PatternIndex[T]:
    """Finds patterns that lie around another one, or inside it, without trying each."""

    def __init__(self, places: Iterable[tuple[HostPattern, T]]) -> None:
        self._all = list(places)
        self.networks = [each for each in self._all if each[0].network is not None]
        self._named: dict[HostPattern, list[tuple[HostPattern, T]]] = {}
        self._below: dict[str, list[tuple[HostPattern, T]]] = {}
        for each in self._all:
            pattern = each[0]
            if pattern.network is not None:
                continue
            self._named.setdefault(pattern, []).append(each)
            for suffix in _suffixes(pattern.host):
                self._below.setdefault(suffix, []).append(each)

    def around(self, pattern: HostPattern) -> Iterator[tuple[HostPattern, T]]:
        """Yield what covers every host of a pattern."""
        yield from self._named.get(EVERY, ())
        if pattern.network is not None:
            yield from (each for each in self.networks if each[0].includes(pattern))
            return
        for wider in _wider(pattern):
            yield from self._named.get(wider, ())

    def inside(self, pattern: HostPattern) -> Iterator[tuple[HostPattern, T]]:
        """Yield what a pattern covers wholly."""
        if pattern.kind is PatternKind.EVERY:
            yield from self._all
        elif pattern.network is not None:
            yield from (each for each in self.networks if pattern.includes(each[0]))
        else:
            for each in self._below.get(pattern.host, ()):
                if pattern.includes(each[0]):
                    yield each

    def meeting(self, pattern: HostPattern) -> Iterator[tuple[HostPattern, T]]:
        """Yield what may hold for a host of a pattern; networks also for names."""
        yield from (each for each in self.around(pattern) if each[0] != pattern)
        yield from self.inside(pattern)
        if pattern.network is None and pattern.kind is not PatternKind.EVERY:
            yield from self.networks


def _suffixes(name: str) -> Iterator[str]:
    yield name
    _, dot, name = name.partition(".")
    while dot:
        yield name
        _, dot, name = name.partition(".")


def _wider(pattern: HostPattern) -> Iterator[HostPattern]:
    yield pattern
    if pattern.kind is not PatternKind.DOMAIN:
        yield HostPattern(PatternKind.DOMAIN, pattern.host)
    for suffix in _suffixes(pattern.host):
        if suffix != pattern.host:
            yield HostPattern(PatternKind.DOMAIN, suffix)
            yield HostPattern(PatternKind.SUBDOMAINS, suffix)
