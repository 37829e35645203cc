"""What a grant or an answer opens beyond the policy of a running proxy, as a difference.

For a person to read before and after: it decides nothing. Bounded, so that no answer waits for it;
where it cannot be told, nothing is said.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from claude_proxy.cli.difference_lines import opened_lines
from claude_proxy.control import stored_rules
from claude_proxy.control.client import Proxy
from claude_proxy.control.running_policy import policy_in_force
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.policy.difference import Difference, opened
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import PatternKind
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.rules import Rule

# With more, the comparison takes as long as a person notices.
_MOST_RULES = 1_000
_MOST_RULES_OF_WILDCARDS = 200  # each of the list's is then compared with it
_ONE_HOST = frozenset({PatternKind.EXACT, PatternKind.LITERAL})
_MOST_LINES = 5
_MOST_PROXIES = 5
_FRESH_S = 2.0


def lines_beyond(policy: Policy, rules: Sequence[Rule]) -> list[str]:
    """Return what rules open beyond a policy; [] if that takes too long to tell."""
    is_exact = all(rule.pattern.kind in _ONE_HOST for rule in rules)
    most = _MOST_RULES if is_exact else _MOST_RULES_OF_WILDCARDS
    if policy.rules_count + len(rules) > most:
        return []
    found = opened(policy, replace(policy, allow=(*policy.allow, *rules)))
    return list(opened_lines(Difference(found), most=_MOST_LINES))


def lines_for_proxies(proxies: Iterable[Proxy], rules: Sequence[Rule]) -> Iterator[str]:
    """Yield what rules open for running proxies, once for those of which the same is true."""
    said: dict[tuple[str, ...], list[str]] = {}
    for proxy in list(proxies)[:_MOST_PROXIES]:
        try:
            lines = lines_beyond(policy_in_force(proxy), rules)
        except ClaudeProxyError:
            continue  # it is not known what its list says
        if lines:
            said.setdefault(tuple(lines), []).append(proxy.name)
    for several, names in said.items():
        first, *rest = several
        yield f"  for {', '.join(names)}: {first}"
        yield from (f"  {line}" for line in rest)


_read: dict[tuple[str, int], tuple[float, Policy]] = {}


def _policy_of(proxy: Proxy) -> Policy:
    """Return what a proxy judges by, read once for the questions of one moment."""
    key, now = (proxy.name, proxy.facts.pid), time.monotonic()
    until, policy = _read.get(key, (0.0, None))
    if policy is None or now > until:
        policy = policy_in_force(proxy)
        _read[key] = now + _FRESH_S, policy
    return policy


def lines_of_question(proxy: Proxy, question: Mapping[str, Any]) -> list[str]:
    """Return what a lasting yes to a question opens; [] if that cannot be told."""
    try:
        text = json.dumps(question["opens_rules"])
        rules = stored_rules.decode(text, Location("answer", 1, 1))
        return lines_beyond(_policy_of(proxy), rules)
    except (ClaudeProxyError, KeyError, TypeError, ValueError):
        return []
