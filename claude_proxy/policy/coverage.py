"""Coverage of rules: which rule already allows what another one would, and which one it widens.

Where two path globs cannot be compared exactly, neither is said to cover the other. Pure.
"""

from collections.abc import Iterable, Iterator

from claude_proxy.policy.patterns import PathGlob, PatternKind
from claude_proxy.policy.rules import RawScheme, Rule


def covers(rule: Rule, other: Rule) -> bool:
    """Return whether everything that `other` covers is covered by `rule`."""
    return (
        _same_place(rule, other)
        and _includes(rule.methods, other.methods)
        and _includes_paths(rule, other)
        and set(other.addresses) <= set(rule.addresses)
    )


def first_covering(rules: Iterable[Rule], wanted: Rule) -> Rule | None:
    """Return the first rule that covers all of `wanted`."""
    return next((rule for rule in rules if covers(rule, wanted)), None)


def widened(rules: Iterable[Rule], wanted: Rule) -> Iterator[Rule]:
    """Yield the rules with methods or paths for a host of `wanted`, which would allow more."""
    for rule in rules:
        if rule.limited and _meet(rule, wanted) and not covers(rule, wanted):
            yield rule


def denials(rules: Iterable[Rule], wanted: Rule) -> Iterator[Rule]:
    """Yield the deny rules that cover all of `wanted`: they win over it."""
    for rule in rules:
        anywhere = rule.scheme in {None, wanted.scheme}
        ports = _includes(rule.ports, wanted.ports)
        if (
            anywhere
            and ports
            and rule.pattern.includes(wanted.pattern)
            and _includes(rule.methods, wanted.methods)
            and _includes_paths(rule, wanted)
        ):
            yield rule


def _same_place(rule: Rule, other: Rule) -> bool:
    if rule.pattern.kind is PatternKind.EVERY and other.pattern.network is not None:
        return False  # an address that is not public needs a rule of its own
    return (
        rule.pattern.includes(other.pattern)
        and includes_scheme(rule, other)
        and _includes(rule.ports, other.ports)
    )


def includes_scheme(rule: Rule, other: Rule) -> bool:
    """Return whether an allow rule is for the scheme of another; nothing implies tcp."""
    if rule.scheme is None:
        return other.scheme is not RawScheme.TCP
    return rule.scheme is other.scheme


def _meet(rule: Rule, wanted: Rule) -> bool:
    ports = rule.ports is None or wanted.ports is None or bool(rule.ports & wanted.ports)
    return ports and includes_scheme(rule, wanted) and _meet_hosts(rule, wanted)


def _meet_hosts(rule: Rule, wanted: Rule) -> bool:
    return rule.pattern.includes(wanted.pattern) or wanted.pattern.includes(rule.pattern)


def _includes[T](values: frozenset[T] | None, others: frozenset[T] | None) -> bool:
    return values is None or (others is not None and others <= values)


def _includes_paths(rule: Rule, other: Rule) -> bool:
    if rule.paths is None:
        return True
    return other.paths is not None and all(
        any(_covers_glob(glob, each) for glob in rule.paths) for each in other.paths
    )


def _covers_glob(glob: PathGlob, other: PathGlob) -> bool:
    return glob.text == other.text or ("*" not in other.text and glob.matches(other.text))
