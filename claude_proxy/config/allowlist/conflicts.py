"""Conflicts of entries: limits that another entry would undo.

Law kept: no quiet downgrade. A passthrough wins for its host, a rule for tcp for its host and port,
and `default: allow` for every host, so a limit, a credential or an API restriction there could not
be kept: the load is refused, with both lines. Pure.
"""

from collections.abc import Callable, Iterable, Iterator

from claude_proxy.config.strict_yaml.nodes import Problems
from claude_proxy.policy.credentials.binding import SAME_ACCOUNTS, Binding, bound_by_provider
from claude_proxy.policy.credentials.database import is_for_requests
from claude_proxy.policy.location import Location
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.patterns import HostPattern, PatternKind
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme, Rule, Tls
from claude_proxy.wire.authority import Authority

type ProblemsOf = Callable[[Location], Problems]  # where a mistake at a place is noted
type Ports = frozenset[int] | None  # None: every port
type Limit = Binding | ApiRestrictions


def note_clashes(allow: list[Rule], deny: list[Rule], problems_of: ProblemsOf) -> None:
    """Report limits on requests that could not be kept, as another rule lets them pass unseen."""
    through = [rule for rule in allow if rule.tls is Tls.PASSTHROUGH]
    if through:
        limits = [rule for rule in allow if rule.limited and rule.scheme is Scheme.HTTPS]
        denials = [rule for rule in deny if rule.limited and rule.scheme is not Scheme.HTTP]
        _note_clashes_with(through, [*limits, *denials], denials, problems_of)
    raw = [rule for rule in allow if rule.scheme is RawScheme.TCP]
    if raw:
        # HTTP is refused in such a tunnel, so an entry for plain HTTP could not be kept either.
        limits = [rule for rule in allow if rule.limited or rule.scheme is Scheme.HTTP]
        limits += [rule for rule in deny if rule.limited]
        _note_clashes_with(raw, limits, limits, problems_of)


def _note_clashes_with(
    through: list[Rule], narrower: list[Rule], wider: list[Rule], problems_of: ProblemsOf
) -> None:
    """Report rules that clash with one of `through` around them, or that are around one of it."""
    passed, limited = Coverage(map(_place, through)), Coverage(map(_place, wider))
    # A dict, as two rules of the same pattern find each other.
    found: dict[tuple[Rule, Rule], None] = {}
    for limit in narrower:
        if (passing := passed.of(limit.pattern, limit.ports)) is not None:
            found[limit, passing] = None
    for passing in through:
        if (limit_around := limited.of(passing.pattern, passing.ports)) is not None:
            found[limit_around, passing] = None
    for limit, passing in found:
        _note_clash(limit, passing, problems_of)


def note_unseen(policy: Policy, problems_of: ProblemsOf) -> None:
    """Report credentials, and what narrows an API, on hosts whose TLS is passed through."""
    limits: list[Binding | ApiRestrictions] = [*policy.credentials]
    limits += [each for each in policy.restrictions if each.narrows]
    places = [(pattern, each.ports, each) for each in limits for pattern in each.patterns]
    through = [rule for rule in policy.allow if rule.tls is Tls.PASSTHROUGH]
    if through:
        _note_unseen_by(through, places, problems_of)
    raw = [rule for rule in policy.allow if rule.scheme is RawScheme.TCP]
    if raw:
        # On every port: another service of the host takes the same accounts.
        # The login of a database is judged in the bytes themselves.
        everywhere = [
            (pattern, None, each)
            for pattern, _, each in places
            if not isinstance(each, Binding) or is_for_requests(each)
        ]
        _note_unseen_by(raw, [*everywhere, *_places_of_accounts(policy)], problems_of)


def _places_of_accounts(policy: Policy) -> Iterator[tuple[HostPattern, Ports, Limit]]:
    """Yield the hosts that take the accounts of a bound API, with the binding."""
    for host in sorted(SAME_ACCOUNTS):
        for binding in bound_by_provider(Authority.of(host, 443), policy.credentials):
            yield HostPattern.parse(host), None, binding


def _note_unseen_by(
    through: list[Rule],
    places: list[tuple[HostPattern, Ports, Limit]],
    problems_of: ProblemsOf,
) -> None:
    passed, limited = Coverage(map(_place, through)), Coverage(places)
    # A limit whose host is passed through, or that holds a host that is; each pair once.
    found: dict[tuple[int, int], tuple[Limit, Rule]] = {}
    for pattern, ports, limit in places:
        if (passing := passed.of(pattern, ports)) is not None:
            found[id(limit), id(passing)] = limit, passing
    for passing in through:
        for _, limit in limited.around(passing.pattern, passing.ports):
            found[id(limit), id(passing)] = limit, passing
    for limit, passing in found.values():
        _note_unseen(limit, passing, problems_of)


def note_unkept_limits(allow: Iterable[Rule], problems_of: ProblemsOf) -> None:
    """Report limits on requests that `default: allow` would undo; those of presets are no matter.

    A preset says what its tool needs, not what the owner wants to keep out.
    """
    for rule in allow:
        if rule.limited and rule.source.preset is None:
            fields = "methods" if rule.paths is None else "paths"
            problems_of(rule.source).add_at(
                f"{fields} cannot be kept here, as default: allow lets every request through",
                rule.source.line,
                rule.source.column,
                key=rule.name,
                fix=f"delete {fields}, and list under deny what is not to be reached",
            )


def unreached(policy: Policy) -> list[Binding]:
    """Return the credentials that nobody can use: no rule allows a host of theirs, or asks."""
    policy = policy.as_answered()
    https = [rule for rule in policy.allow if rule.scheme in {None, Scheme.HTTPS}]
    for_requests = [
        each
        for each in policy.credentials
        if is_for_requests(each) and not policy.allows_by_default
    ]
    for_databases = [each for each in policy.credentials if not is_for_requests(each)]
    raw = [rule for rule in policy.allow if rule.scheme is RawScheme.TCP]
    unused = {
        binding.name
        for rules, bindings in ((https, for_requests), (raw, for_databases))
        for binding in _unreached_by(rules, bindings)
    }
    return [binding for binding in policy.credentials if binding.name in unused]


def _unreached_by(rules: list[Rule], bindings: list[Binding]) -> list[Binding]:
    allowed = Coverage(map(_place, rules))
    reached = set()
    places = [(pattern, each.ports, each) for each in bindings for pattern in each.patterns]
    bound = Coverage(places)
    for pattern, ports, binding in places:
        if allowed.of(pattern, ports) is not None:
            reached.add(binding.name)
    for rule in rules:
        reached |= {binding.name for _, binding in bound.around(rule.pattern, rule.ports)}
    return [binding for binding in bindings if binding.name not in reached]


def _note_unseen(limit: Limit, through: Rule, problems_of: ProblemsOf) -> None:
    if through.scheme is RawScheme.TCP:
        _note_raw(limit, through, problems_of)
        return
    place = limit.source if limit.source.preset is None else through.source
    fix = "this entry"
    if isinstance(limit, Binding):
        what = f"the credential {limit.name} cannot be used"
    elif place is limit.source:
        what = "requests to the API cannot be judged"
    else:
        what = f"requests to the API cannot be judged as {limit.source} says"
        fix = "say under anthropic what is not to be narrowed: each key may be all"
    problems_of(place).add_at(
        f"{what}, as {through.name} ({through.source}) passes TLS through",
        place.line,
        place.column,
        key=str(limit.patterns[0]),
        fix=f"delete tls: passthrough, or {fix}",
    )


def _note_raw(limit: Limit, through: Rule, problems_of: ProblemsOf) -> None:
    """Report a rule for tcp on a host whose logins or requests are judged."""
    place = through.source if through.source.preset is None else limit.source
    if isinstance(limit, Binding):
        why = f"the credential {limit.name} ({limit.source}) is bound to it"
    else:
        why = f"requests to it are limited ({limit.source})"
    problems_of(place).add_at(
        f"bytes of any protocol may not go to {through.name} ({through.source}), as {why}",
        place.line,
        place.column,
        key=through.name,
        fix="delete the entry with scheme: tcp, or name another host in it",
    )


def _place(rule: Rule) -> tuple[HostPattern, Ports, Rule]:
    return rule.pattern, rule.ports, rule


def _note_clash(limit: Rule, through: Rule, problems_of: ProblemsOf) -> None:
    if through.scheme is RawScheme.TCP:
        _note_raw_clash(limit, through, problems_of)
        return
    fields = "methods" if limit.paths is None else "paths"
    place = limit if limit.source.preset is None else through
    other = through if place is limit else limit
    if place is limit:
        reason = f"{through.name} ({through.source}) passes TLS through"
        what = f"{fields} cannot be checked here, as {reason}"
    else:
        what = f"passing TLS through here would undo the {fields} of {limit.name} ({limit.source})"
    problems_of(place.source).add_at(
        what,
        place.source.line,
        place.source.column,
        key=place.name,
        fix=f"delete this entry or the other ({other.source}), or tls: passthrough",
    )


def _note_raw_clash(limit: Rule, through: Rule, problems_of: ProblemsOf) -> None:
    """Report an entry whose requests could not be judged, or made, because of one for tcp."""
    place = limit if limit.source.preset is None else through
    other = through if place is limit else limit
    if not limit.limited:
        kept = "plain HTTP cannot be spoken"
    else:
        kept = f"{'methods' if limit.paths is None else 'paths'} cannot be checked"
    problems_of(place.source).add_at(
        f"{kept} at {limit.name} where {through.name} ({through.source}) is for tcp",
        place.source.line,
        place.source.column,
        key=place.name,
        fix=f"delete this entry or the other ({other.source}), or take the port out of one",
    )


class Coverage[T]:
    """Finds what is for all hosts of a pattern, without trying each."""

    def __init__(self, places: Iterable[tuple[HostPattern, Ports, T]]) -> None:
        self._named: dict[tuple[PatternKind, str], list[tuple[HostPattern, Ports, T]]] = {}
        self._networks: list[tuple[HostPattern, Ports, T]] = []
        for pattern, ports, what in places:
            if pattern.network is not None:
                self._networks.append((pattern, ports, what))
            else:
                place = (pattern.kind, pattern.host)
                self._named.setdefault(place, []).append((pattern, ports, what))

    def around(self, pattern: HostPattern, ports: Ports) -> Iterator[tuple[HostPattern, T]]:
        """Yield what covers all hosts of `pattern` on a port that both are for, with its own."""
        if pattern.network is not None:
            found: Iterable[tuple[HostPattern, Ports, T]] = (
                each for each in self._networks if each[0].includes(pattern)
            )
        else:
            found = (each for place in _wider(pattern) for each in self._named.get(place, ()))
        for wide, its_ports, what in found:
            if _share_a_port(its_ports, ports):
                yield wide, what

    def of(self, pattern: HostPattern, ports: Ports) -> T | None:
        """Return the first of `around`, if there is one."""
        return next((what for _, what in self.around(pattern, ports)), None)


def _wider(pattern: HostPattern) -> Iterable[tuple[PatternKind, str]]:
    """Yield every pattern that covers all that `pattern` covers, itself first."""
    yield (pattern.kind, pattern.host)
    if pattern.kind is not PatternKind.DOMAIN:
        yield (PatternKind.DOMAIN, pattern.host)
    _, dot, parent = pattern.host.partition(".")
    while dot:
        yield (PatternKind.DOMAIN, parent)
        yield (PatternKind.SUBDOMAINS, parent)
        _, dot, parent = parent.partition(".")


def _share_a_port(one: Ports, other: Ports) -> bool:
    return one is None or other is None or not one.isdisjoint(other)
