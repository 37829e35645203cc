"""Learned list: the narrowest entries that would have let recorded attempts pass.

Law kept: default-deny. No method, port or host is named that was not seen, no host is ever a
wildcard, and a path is one only within a template (`path_templates`). What cannot be written
without opening more than was seen is set apart and named; it is written only if the owner says so.
What a denial, a restriction or the metadata service of a cloud stands against is left out. What
only a grant or an answer allowed is no more a statement of the list than what was denied. Pure.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_network
from typing import Final, NamedTuple

from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.policy.advice import ATTACK_DOMAIN, METADATA_NAMES, is_this_machine
from claude_proxy.policy.git_push import push_path
from claude_proxy.policy.learned_presets import PresetUse, preset_uses, vouching
from claude_proxy.policy.location import Location
from claude_proxy.policy.methods import METHODS
from claude_proxy.policy.path_templates import PathTemplate, is_writable, templates_of
from claude_proxy.policy.patterns import HostPattern, PathGlob, PatternError
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.raw_ports import RAW_PORTS
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.recorded_attempt import (
    JUDGED_AGAIN,
    Form,
    RecordedAttempt,
    judged,
    judged_without_address,
)
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import WEB_PORTS, RawScheme, Rule, RuleScheme, Tls
from claude_proxy.policy.shared_places import (
    RESOLVER_PATHS,
    PlaceKind,
    SharedPlace,
    shared_place_of,
)
from claude_proxy.wire.address import Address, AddressKind, Network, effective, kind_of
from claude_proxy.wire.authority import Authority

MOST_WANTED: Final = 50_000  # different attempts; a client may ask for as many as it likes
MOST_ENTRIES: Final = 2_000
MOST_PATHS: Final = 2_000  # of one host, port and scheme

_SOURCE: Final = Location("what was learned", 1, 1)
_REMEMBERED: Final = 65_536
_TOO_MANY: Final = (
    f"there are more than {MOST_WANTED} different ones: learn from one run, or from a shorter time"
)


class Apart(StrEnum):
    """Why an entry is set apart, as `--include` names it."""

    STORES = "stores"  # anybody can store data there, or receive it
    ADDRESSES = "addresses"  # an address, or a name that leads to one that is not public
    DNS = "dns"  # a resolver of names by HTTPS
    TCP = "tcp"  # bytes of any protocol
    HOSTS = "hosts"  # what was or would be asked for inside is unknown: the whole host
    PATHS = "paths"  # of a path that no entry can name: every path


# These are written where the list in force allowed what was asked for.
_WRITTEN_IF_ALLOWED = frozenset({Apart.STORES, Apart.ADDRESSES, Apart.TCP})


class Seen(NamedTuple):
    """A recorded attempt, equal ones counted."""

    attempt: RecordedAttempt | None  # None: its target is no valid one
    subject: str  # as it was recorded
    allowed: bool
    reason: str
    nowhere: bool  # it was allowed, and there was no such name or no answer
    times: int
    granted: bool = False  # it was allowed, but by a grant or an answer, which ended

    @property
    def listed(self) -> bool:
        """Whether the list that was in force allowed it."""
        return self.allowed and not self.granted


@dataclass(frozen=True, slots=True)
class LearnedEntry:
    """One entry, and what it was learned from."""

    rule: Rule
    paths: tuple[PathTemplate, ...]
    count: int
    denied: int  # of these, how many were denied when they were asked for
    granted: int  # of these, how many only a grant or an answer allowed
    written: bool
    apart: Apart | None = None
    place: SharedPlace | None = None
    vouched: str | None = None  # the preset by which every path of it is thought harmless


class LeftOut(NamedTuple):
    """What no entry is proposed for, and why."""

    subject: str
    why: str
    times: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What the owner decides about a learned list."""

    include: frozenset[Apart] = frozenset()  # what is set apart and written all the same
    presets: frozenset[str] = frozenset()  # that are taken for what they cover
    may_take_presets: bool = True  # where they open little more than was used


@dataclass(slots=True)
class Learned:
    """What would have to be added to a policy, so that all that was recorded passes."""

    total: int = 0
    covered: int = 0  # by the policy as it is
    asked: int = 0  # about which that policy asks
    entries: list[LearnedEntry] = field(default_factory=list)
    presets: list[PresetUse] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def written(self) -> list[LearnedEntry]:
        """The entries that are written."""
        return [entry for entry in self.entries if entry.written]

    @property
    def taken(self) -> list[PresetUse]:
        """The presets that are written."""
        return [use for use in self.presets if use.taken]


def learn(
    seen: Iterable[Seen], policy: Policy, presets: Mapping[str, Policy], choice: Choice
) -> Learned:
    """Return what would have to be added to a policy, so that all that was seen passes."""
    learner = _Learner(policy, presets, choice)
    for each in seen:
        learner.take(each)
    return learner.learned()


class _Place(NamedTuple):
    """Where attempts went that can share entries."""

    form: Form
    scheme: RuleScheme
    target: Authority
    apart: Apart | None
    written: bool


class _Learner:
    """Sorts what was seen, and builds the entries."""

    def __init__(self, policy: Policy, presets: Mapping[str, Policy], choice: Choice) -> None:
        self._policy = policy
        self._everything = policy.allowing_by_default(_SOURCE)
        self._presets = presets
        self._choice = choice
        self._found = Learned()
        self._wanted: list[Seen] = []
        self._left_out: Counter[tuple[str, str]] = Counter()
        self._refused: dict[tuple[Authority, str], set[str]] = defaultdict(set)
        self._passed: list[RecordedAttempt] = []  # what the policy allows already

    def take(self, seen: Seen) -> None:
        """Sort one attempt."""
        self._found.total += seen.times
        attempt = seen.attempt
        if attempt is None or seen.reason not in JUDGED_AGAIN:
            self._leave_out(seen, _why_of(seen.reason))
            return
        decision = judged(self._policy, attempt)
        if decision.allowed:
            self._found.covered += seen.times
            self._passed.append(attempt)
            return
        if decision.asks:
            self._found.asked += seen.times
        if seen.nowhere:
            self._leave_out(seen, "it led nowhere: there is no such name, or nothing answered")
        elif (why := self._never(seen, attempt)) is not None:
            self._leave_out(seen, why)
        elif len(self._wanted) >= MOST_WANTED:
            self._left_out["more attempts", _TOO_MANY] += seen.times
        else:
            self._wanted.append(seen)

    def learned(self) -> Learned:
        """Return the list."""
        found = self._found
        requests = [each.attempt for each in self._wanted if each.attempt is not None]
        found.presets = preset_uses(
            self._presets,
            requests,
            [*requests, *self._passed],
            self._choice.presets,
            may_take=self._choice.may_take_presets,
        )
        rest = [each for each in self._wanted if not self._is_of_preset(each)]
        for place, group in self._places(rest).items():
            found.entries += self._entries(place, group)
        if len(found.entries) > MOST_ENTRIES:
            for entry in found.entries[MOST_ENTRIES:]:
                host = f"{entry.rule.scheme}://{entry.rule.name}"
                self._left_out[host, "there are too many entries"] += entry.count
            del found.entries[MOST_ENTRIES:]
        self._check(rest)
        found.left_out = [
            LeftOut(subject, why, count) for (subject, why), count in self._left_out.most_common()
        ]
        return found

    # --- what is left out

    def _leave_out(self, seen: Seen, why: str) -> None:
        self._left_out[seen.subject, why] += seen.times
        if seen.attempt is not None and seen.attempt.form is Form.REQUEST:
            self._refused[seen.attempt.target, seen.attempt.method].add(seen.attempt.path)

    def _never(self, seen: Seen, attempt: RecordedAttempt) -> str | None:
        """Return why no entry is ever proposed for an attempt."""
        if (why := _why_of_target(attempt, allowed=seen.allowed)) is not None:
            return why
        if attempt.form is Form.RAW and not seen.allowed:
            return f"bytes of any protocol: if that is meant, allow tcp://{attempt.target}"
        if attempt.form is Form.TUNNEL and attempt.target.port in RAW_PORTS:
            return f"neither TLS nor HTTP is usual there: tcp://{attempt.target} would be the entry"
        if attempt.form is not Form.REQUEST:
            return self._why_of_denial(attempt)
        if attempt.method not in METHODS:
            return "no entry can name its method"
        return self._why_of_denial(attempt)

    def _why_of_denial(self, attempt: RecordedAttempt) -> str | None:
        """Return what in the policy stands against an attempt, whatever is allowed beside it."""
        if attempt.form is Form.RAW:
            return None  # what does is found in the end
        decision = judged_without_address(self._everything, attempt)
        if decision.allowed or decision.reason is Reason.ADDRESS_NOT_ALLOWED:
            return None
        if decision.rule is not None and decision.reason is Reason.DENY_RULE:
            return f"a denial wins: {decision.rule} ({decision.rule.source})"
        return _why_of(decision.reason)

    def _check(self, rest: Sequence[Seen]) -> None:
        """Leave out what would stay denied with every entry, and say why."""
        rules = [entry.rule for entry in self._found.entries]
        after = replace(self._policy, allow=(*self._policy.allow, *rules))
        for each in rest:
            if each.attempt is not None:
                decision = judged(after, each.attempt)
                if not decision.allowed:
                    why = f"it would stay denied: {decision.reason}"
                    self._left_out[each.subject, why] += each.times

    # --- where things belong

    def _is_of_preset(self, seen: Seen) -> bool:
        return any(use.taken and seen.attempt in use.attempts for use in self._found.presets)

    def _places(self, rest: Sequence[Seen]) -> dict[_Place, list[Seen]]:
        """Return what was seen by place, in the order in which it was seen."""
        asked = {
            each.attempt.target
            for each in rest
            if each.attempt is not None and each.attempt.form is Form.REQUEST
        }
        hosts = {target.host for target in asked} | {
            each.attempt.target.host
            for each in rest
            if each.attempt is not None and each.attempt.form is not Form.LOOKUP
        }
        places: dict[_Place, list[Seen]] = {}
        for each in rest:
            attempt = each.attempt
            if attempt is None:
                continue
            if attempt.form is Form.TUNNEL and attempt.target in asked:
                continue  # what was asked for inside opens it
            if attempt.form is Form.LOOKUP and attempt.target.host in hosts:
                continue
            places.setdefault(self._place_of(each, attempt), []).append(each)
        return places

    def _place_of(self, seen: Seen, attempt: RecordedAttempt) -> _Place:
        apart = self._apart(attempt)
        scheme: RuleScheme = attempt.scheme
        if attempt.form is Form.RAW:
            scheme = RawScheme.TCP
        elif attempt.form is Form.TUNNEL and attempt.target.port == 80:  # noqa: PLR2004 - RFC 9110
            scheme = Scheme.HTTP
        return _Place(attempt.form, scheme, attempt.target, apart, self._is_written(seen, apart))

    def _is_written(self, seen: Seen, apart: Apart | None) -> bool:
        if apart is None or apart in self._choice.include:
            return True
        if seen.attempt is not None and seen.attempt.form is Form.PASSTHROUGH:
            return seen.listed
        return seen.listed and apart in _WRITTEN_IF_ALLOWED

    def _apart(self, attempt: RecordedAttempt) -> Apart | None:
        target = attempt.target
        place = _shared_place(target.host)
        # Every path only of a host that a preset names so, and where not anybody can store.
        is_nameless = attempt.form is Form.REQUEST and not is_writable(attempt.path)
        if is_nameless and (place is not None or vouching(self._presets, attempt) is None):
            return Apart.PATHS
        if (place is not None and place.kind is PlaceKind.DNS) or attempt.path in RESOLVER_PATHS:
            return Apart.DNS
        if attempt.form is Form.RAW:
            return Apart.TCP
        if attempt.form is not Form.REQUEST:
            return Apart.HOSTS
        if target.address is not None or _needs_address(attempt):
            return Apart.ADDRESSES
        return None if place is None else Apart.STORES

    # --- entries

    def _entries(self, place: _Place, group: Sequence[Seen]) -> Iterator[LearnedEntry]:
        if place.form is not Form.REQUEST:
            yield self._entry(place, group, None, ())
            return
        needed = [(each, *named) for each in group for named in _named_by(each)]
        # A method of which no path can be named is for every path.
        every = dict.fromkeys(method for _, method, path in needed if not is_writable(path))
        by_methods: dict[frozenset[str], list[PathTemplate]] = defaultdict(list)
        for template, methods in self._templates(place, needed, every):
            by_methods[methods].append(template)
        for methods, found in by_methods.items():
            here = [each for each, method, path in needed if method in methods]
            yield self._entry(place, here, methods, tuple(found))
        for only in every:
            here = [each for each, method, _ in needed if method == only]
            yield self._entry(place, here, frozenset({only}), ())

    def _templates(
        self, place: _Place, needed: Sequence[tuple[Seen, str, str]], every: Collection[str]
    ) -> Iterator[tuple[PathTemplate, frozenset[str]]]:
        """Yield the templates of a place, each with its methods."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        unlisted: dict[str, set[str]] = defaultdict(set)
        for seen, method, path in needed:
            if method not in every:
                counts[method][path] += seen.times
                if not seen.listed:
                    unlisted[method].add(path)
        found: dict[tuple[str, ...], tuple[PathTemplate, list[str]]] = {}
        for method, paths in counts.items():
            for template in self._templates_of(place, method, paths, unlisted[method]):
                known = found.get(template.globs)
                if known is not None:
                    more = replace(known[0], count=known[0].count + template.count)
                    found[template.globs] = (more, [*known[1], method])
                elif len(found) < MOST_PATHS:
                    found[template.globs] = (template, [method])
                else:
                    why = f"there are more than {MOST_PATHS} paths of this host"
                    self._left_out[f"{place.scheme}://{place.target}", why] += template.count
        for template, methods in found.values():
            yield template, frozenset(methods)

    def _templates_of(
        self, place: _Place, method: str, paths: Counter[str], unlisted: set[str]
    ) -> list[PathTemplate]:
        # A name that leads to an address which is not public is a host like any other.
        is_name = place.apart is Apart.ADDRESSES and place.target.address is None
        is_exact = place.apart is not None and not is_name
        return templates_of(
            dict(paths),
            never=self._refused[place.target, method],
            # Where anybody can store, one path is one account's. And a request that was denied, or
            # allowed this once, has not shown that any path of a kind is harmless.
            exact=lambda path: is_exact or path in unlisted,
        )

    def _entry(
        self,
        place: _Place,
        group: Sequence[Seen],
        methods: frozenset[str] | None,
        templates: tuple[PathTemplate, ...],
    ) -> LearnedEntry:
        globs = dict.fromkeys(glob for template in templates for glob in template.globs)
        first = next((each.attempt for each in group if each.attempt is not None), None)
        is_every_path = place.form is Form.REQUEST and not templates and first is not None
        passes = place.form is Form.PASSTHROUGH
        rule = Rule(
            pattern=HostPattern.parse(place.target.host),
            scheme=place.scheme,
            ports=frozenset({place.target.port}),
            methods=methods,
            paths=tuple(map(PathGlob.parse, globs)) or None,
            tls=Tls.PASSTHROUGH if passes else Tls.INTERCEPT,
            addresses=tuple(_addresses_of(group)),
            note="",
            source=_SOURCE,
        )
        return LearnedEntry(
            rule=rule,
            paths=templates,
            count=sum(each.times for each in group),
            denied=sum(each.times for each in group if not each.allowed),
            granted=sum(each.times for each in group if each.granted),
            written=place.written,
            apart=place.apart,
            place=_shared_place(place.target.host),
            vouched=vouching(self._presets, first) if is_every_path and first else None,
        )


def _named_by(seen: Seen) -> Iterator[tuple[str, str]]:
    """Yield the methods and paths that an attempt needs."""
    attempt = seen.attempt
    if attempt is None:
        return
    yield attempt.method, attempt.path
    if (push := push_path(attempt.path, attempt.query)) is not None:
        # What a push asks first is answered only where the push itself is allowed.
        yield "POST", push


def _needs_address(attempt: RecordedAttempt) -> bool:
    address = attempt.address
    return address is not None and kind_of(address) is not AddressKind.PUBLIC


def _addresses_of(group: Sequence[Seen]) -> Iterator[Network]:
    """Yield the addresses that are not public, to which a name led."""
    found: dict[Address, None] = {}
    for each in group:
        attempt = each.attempt
        if attempt is None or attempt.target.address is not None or attempt.address is None:
            continue
        if _needs_address(attempt):
            found[effective(attempt.address)] = None
    return map(ip_network, found)


def _why_of_target(attempt: RecordedAttempt, *, allowed: bool) -> str | None:
    target, dialled = attempt.target, attempt.address
    reached = [each for each in (target.address, dialled) if each is not None]
    if target.host in METADATA_NAMES or any(
        kind_of(each) is AddressKind.METADATA for each in reached
    ):
        return "it is the metadata service of a cloud machine, which gives away its credentials"
    if target.host == ATTACK_DOMAIN or target.host.endswith(f".{ATTACK_DOMAIN}"):
        return "claude-proxy's own attack asked for it, and it was to be denied"
    here = is_this_machine(target) or any(
        kind_of(each) in {AddressKind.LOOPBACK, AddressKind.UNSPECIFIED} for each in reached
    )
    if here and not allowed:
        return "it is this machine, which the proxy does not lead to"
    if (unnameable := _why_unnameable(target.host)) is not None:
        return unnameable
    if attempt.form is Form.RAW and target.port in WEB_PORTS:
        return "at this port nothing but TLS and HTTP can be allowed"
    return None


@lru_cache(maxsize=_REMEMBERED)
def _why_unnameable(host: str) -> str | None:
    try:
        HostPattern.parse(host)
    except PatternError as error:
        return f"no entry can name it: {error.what}"
    return None


@lru_cache(maxsize=_REMEMBERED)
def _shared_place(host: str) -> SharedPlace | None:
    return shared_place_of(host)


def _why_of(reason: str) -> str:
    return f"no entry would let it pass: {reason}"
