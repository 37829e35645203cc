"""Lint of a list: rules that are unused, wider than used, shadowed, or lead to shared places.

What is shadowed is proven by the difference of the list with and without the rule; what is unused
only by what was recorded. Nothing is changed. Pure.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.policy import coverage
from claude_proxy.policy.difference import opened
from claude_proxy.policy.patterns import HostPattern, PatternKind
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.recorded_attempt import Form, RecordedAttempt
from claude_proxy.policy.rules import RawScheme, Rule
from claude_proxy.policy.shared_places import shared_places_under
from claude_proxy.wire.authority import Authority

_MOST_SHOWN = 4
# More distinct hosts than these are what a wildcard is for.
_FEW_HOSTS = 3


class FindingKind(StrEnum):
    """What is found; stable, for CI."""

    UNUSED = "unused"
    WIDER = "wider-than-used"
    SHADOWED = "shadowed"
    SHARED = "shared-place"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at, with the rule or the preset that it is about."""

    kind: FindingKind
    rule: Rule
    what: str
    fix: str
    preset: str | None = None  # it is about every rule of this preset

    @property
    def where(self) -> str:
        """The place of the rule."""
        return str(self.rule.source)


@dataclass(slots=True)
class _Use:
    """What was asked for that one rule allows."""

    times: int = 0
    hosts: dict[str, None] | None = None
    methods: dict[str, None] | None = None
    ports: dict[int, None] | None = None


type Uses = Mapping[int, _Use]  # by the place of the rule in the list


def findings(
    policy: Policy, attempts: Iterable[tuple[RecordedAttempt, int]] | None
) -> Iterator[Finding]:
    """Yield what is found; `attempts` with how often each was made, None: nothing is recorded."""
    found = _found(policy, attempts)
    yield from sorted(found, key=lambda each: (each.rule.source.file, each.rule.source.line))


def _found(
    policy: Policy, attempts: Iterable[tuple[RecordedAttempt, int]] | None
) -> Iterator[Finding]:
    if attempts is not None:
        uses = _uses(policy.allow, attempts)
        yield from _unused(policy.allow, uses)
        yield from _wider(policy.allow, uses)
    yield from _shadowed(policy)
    yield from _shared(policy)


# --- by what was recorded


def _uses(rules: Sequence[Rule], attempts: Iterable[tuple[RecordedAttempt, int]]) -> Uses:
    index = _Index(rules)
    found: dict[int, _Use] = {}
    for attempt, times in attempts:
        for place in index.about(attempt.target.host):
            if _is_used_by(rules[place], attempt):
                use = found.setdefault(place, _Use(0, {}, {}, {}))
                use.times += times
                _note(use, attempt)
    return found


def _note(use: _Use, attempt: RecordedAttempt) -> None:
    for known, value in ((use.hosts, attempt.target.host), (use.methods, attempt.method)):
        if known is not None:
            known[value] = None
    if use.ports is not None:
        use.ports[attempt.target.port] = None


def _is_used_by(rule: Rule, attempt: RecordedAttempt) -> bool:
    """Return whether a rule covers an attempt by itself."""
    target = attempt.target
    if attempt.form is Form.LOOKUP:
        return rule.pattern.covers(target)
    if not rule.pattern.covers(target) or (
        rule.ports is not None and target.port not in rule.ports
    ):
        return False
    if attempt.form is not Form.REQUEST:
        return (rule.scheme is RawScheme.TCP) == (attempt.form is Form.RAW)
    if rule.scheme not in {None, attempt.scheme}:
        return False
    if rule.methods is not None and attempt.method not in rule.methods:
        return False
    return rule.paths is None or any(glob.matches(attempt.path) for glob in rule.paths)


def _unused(rules: Sequence[Rule], uses: Uses) -> Iterator[Finding]:
    used_presets = {rules[place].source.preset for place in uses}
    told: set[str] = set()
    for place, rule in enumerate(rules):
        preset = rule.source.preset
        if place in uses or rule.pattern.kind is PatternKind.EVERY or preset in told:
            continue
        if preset is None:
            yield Finding(FindingKind.UNUSED, rule, f"{rule} was not used", "delete the entry")
        elif preset not in used_presets:
            told.add(preset)
            what = f"no rule of the preset {preset} was used"
            yield Finding(FindingKind.UNUSED, rule, what, "delete the entry that adds it", preset)


def _wider(rules: Sequence[Rule], uses: Uses) -> Iterator[Finding]:
    for place, use in uses.items():
        rule = rules[place]
        if rule.source.preset is not None or rule.pattern.kind is PatternKind.EVERY:
            continue
        fixes = list(_narrower(rule, use))
        if fixes:
            what = f"{rule} is wider than what was used: {'; '.join(text for text, _ in fixes)}"
            fix = ", and ".join(fix for _, fix in fixes)
            yield Finding(FindingKind.WIDER, rule, what, fix)


def _narrower(rule: Rule, use: _Use) -> Iterator[tuple[str, str]]:
    """Yield what was used of a rule where that is less than it allows, and what to write."""
    hosts, ports = sorted(use.hosts or ()), sorted(use.ports or ())
    methods = sorted(filter(None, use.methods or ()))
    wide = rule.pattern.kind in {
        PatternKind.SUBDOMAINS,
        PatternKind.DOMAIN,
        PatternKind.NETWORK,
    }
    if wide and len(hosts) <= _FEW_HOSTS:
        listed = _listed(hosts)
        yield f"only {listed}", f"name {'the host' if len(hosts) == 1 else 'the hosts'}"
    seen = set(methods) - {"CONNECT", "SOCKS"}
    if seen and rule.scheme is not RawScheme.TCP and (rule.methods is None or rule.methods - seen):
        listed = ", ".join(sorted(seen))
        yield f"only {listed}", f"write methods: [{listed}]"
    if rule.ports is not None and rule.ports - set(ports):
        listed = ", ".join(map(str, ports))
        yield f"only port {listed}", f"write ports: [{listed}]"


# --- by the list itself


def _shadowed(policy: Policy) -> Iterator[Finding]:
    allow, deny = _Index(policy.allow), _Index(policy.deny)
    gone: set[int] = set()
    # From the end: of two equal rules, the later one is the one too many.
    for place in range(len(policy.allow) - 1, -1, -1):
        rule = policy.allow[place]
        if rule.source.preset is not None:
            continue
        near = [policy.allow[at] for at in allow.near(rule.pattern) if at not in {place, *gone}]
        denials = tuple(policy.deny[at] for at in deny.near(rule.pattern))
        if not any(_meets(each, rule) for each in (*near, *denials)):
            continue
        if _adds_nothing(rule, near, denials, policy):
            gone.add(place)
            yield Finding(
                FindingKind.SHADOWED,
                rule,
                f"{rule} allows nothing: {_why(rule, near, denials)}",
                "delete the entry, or what shadows it",
            )


def _adds_nothing(
    rule: Rule, near: Sequence[Rule], denials: tuple[Rule, ...], policy: Policy
) -> bool:
    rest = Policy(tuple(near), denials, policy.credentials, policy.restrictions)
    return not opened(rest, replace(rest, allow=(*near, rule)))


def _why(rule: Rule, near: Iterable[Rule], denials: Iterable[Rule]) -> str:
    denial = next(coverage.denials(denials, rule), None)
    if denial is not None:
        return f"deny {denial} wins ({denial.source})"
    other = coverage.first_covering(near, rule)
    if other is not None:
        return f"{other} allows it already ({other.source})"
    return "other entries together allow or deny all of it"


def _shared(policy: Policy) -> Iterator[Finding]:
    for rule in policy.allow:
        if rule.source.preset is not None or rule.pattern.kind is PatternKind.EVERY:
            continue
        port = min(rule.ports or (443,))
        found = [
            place
            for place in shared_places_under(rule.pattern)
            if policy.decide_connect(Authority.of(place.base, port)).allowed
        ]
        if found:
            yield Finding(
                FindingKind.SHARED,
                rule,
                f"{rule} leads to where anybody can store or receive: {_listed(found)}",
                "name the hosts that are needed, or deny those",
            )


def _listed(values: Sequence[object]) -> str:
    shown = ", ".join(map(str, values[:_MOST_SHOWN]))
    more = len(values) - _MOST_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _meets(rule: Rule, other: Rule) -> bool:
    return rule.ports is None or other.ports is None or not rule.ports.isdisjoint(other.ports)


class _Index:
    """The places of rules by host, so that a long list is not searched for every one."""

    __slots__ = ("_by_name", "_every", "_networks")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._by_name: dict[str, list[int]] = {}
        self._networks: list[int] = []
        self._every: list[int] = []
        for place, rule in enumerate(rules):
            if rule.pattern.host:
                self._by_name.setdefault(rule.pattern.host, []).append(place)
            elif rule.pattern.network is not None:
                self._networks.append(place)
            else:
                self._every.append(place)

    def about(self, host: str) -> Iterator[int]:
        """Yield the places of the rules that may cover a host."""
        yield from self._above(host)
        yield from self._networks

    def near(self, pattern: HostPattern) -> Iterator[int]:
        """Yield the places of the rules that may cover a host of a pattern."""
        if pattern.network is not None:
            yield from (*self._networks, *self._every)
            return
        yield from self._above(pattern.host)
        if pattern.kind is not PatternKind.EXACT:
            end = f".{pattern.host}" if pattern.host else ""
            for name, places in self._by_name.items():
                if name.endswith(end) and name != pattern.host:
                    yield from places

    def _above(self, host: str) -> Iterator[int]:
        name = host
        while name:
            yield from self._by_name.get(name, ())
            name = name.partition(".")[2]
        yield from self._every
