"""Rules as a person reads them: without the port that a scheme has anyway.

Not the canonical form: files, comparisons and digests use `str(rule)`. Pure.
"""

from claude_proxy.deferred.data_classes import replace
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import Rule

_USUAL = {Scheme.HTTPS: frozenset({443}), Scheme.HTTP: frozenset({80})}


def shown(rule: Rule) -> str:
    """Return what a rule covers: "https://example.com methods GET"."""
    scheme = rule.scheme
    if isinstance(scheme, Scheme) and rule.ports == _USUAL[scheme]:
        return str(replace(rule, ports=None))
    return str(rule)
