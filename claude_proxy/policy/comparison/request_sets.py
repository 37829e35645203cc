"""Requests that the rules for one host and port allow: a set of paths for each method. Pure."""

from collections.abc import Iterable

from claude_proxy.policy.comparison.path_sets import MorePaths, PathSet, more_paths
from claude_proxy.policy.comparison.values import MethodSet
from claude_proxy.policy.host_rules import HostRules
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import Rule

# A method that no rule names. Those that are always denied are in no set.
_OTHER = ""
_REFUSED = frozenset({"TRACE", "TRACK", "CONNECT", "trace", "track", "connect"})


class RequestSets:
    """The requests of one scheme to one host and port that some rules allow."""

    __slots__ = ("_allow", "_deny", "_known", "_limits")

    def __init__(
        self, rules: HostRules | None, scheme: Scheme, port: int, limits: ApiRestrictions | None
    ) -> None:
        self._allow = _for(() if rules is None else rules.allow, scheme, port)
        self._deny = _for(() if rules is None else rules.deny, scheme, port)
        self._limits = limits
        self._known: dict[str, PathSet] = {}

    @property
    def methods(self) -> frozenset[str]:
        """The methods that have a set of their own; one in lower case is any other spelling."""
        named = {name for rule in (*self._allow, *self._deny) for name in rule.methods or ()}
        spelled = {name.lower() for rule in self._deny for name in rule.methods or ()}
        return frozenset(named | spelled) - _REFUSED

    @property
    def is_empty(self) -> bool:
        """Whether no request is allowed."""
        return all(self.paths_of(name).is_empty for name in (*self.methods, _OTHER))

    def paths_of(self, method: str) -> PathSet:
        """Return the paths that are allowed for a method."""
        found = self._known.get(method)
        if found is None:
            found = self._known[method] = self._paths_of(method)
        return found

    def _paths_of(self, method: str) -> PathSet:
        upper = method.upper()
        denied: set[str] = set()
        for rule in self._deny:
            if rule.methods is not None and upper not in rule.methods:
                continue
            if rule.paths is None:
                return _NOTHING
            denied |= {glob.text for glob in rule.paths}
        whole, globs = False, set()
        for rule in self._allow:
            if rule.methods is not None and method not in rule.methods:
                continue
            whole = whole or rule.paths is None
            globs |= {glob.text for glob in rule.paths or ()}
        if not whole and not globs:
            return _NOTHING
        within, unambiguous = _limits_of(self._limits)
        return PathSet(
            whole, frozenset(() if whole else globs), frozenset(denied), within, unambiguous
        )


_NOTHING = PathSet()


def _limits_of(limits: ApiRestrictions | None) -> tuple[frozenset[str] | None, bool]:
    if limits is None:
        return None, False
    if limits.paths is None:
        return None, limits.judges_bodies
    return frozenset(glob.text for glob in limits.paths), True


def _for(rules: Iterable[Rule], scheme: Scheme, port: int) -> list[Rule]:
    return [
        rule
        for rule in rules
        if rule.scheme in {None, scheme} and (rule.ports is None or port in rule.ports)
    ]


def more_requests(old: RequestSets, new: RequestSets) -> list[tuple[MethodSet, MorePaths]]:
    """Return the requests that `new` has and `old` has not, by their paths."""
    names = old.methods | new.methods
    by_paths: dict[MorePaths, set[str]] = {}
    for name in (*sorted(names), _OTHER):
        more = more_paths(old.paths_of(name), new.paths_of(name))
        if more:
            by_paths.setdefault(more, set()).add(name)
    return [
        (MethodSet(names - methods, others=True), more)
        if _OTHER in methods
        else (MethodSet(frozenset(methods)), more)
        for more, methods in by_paths.items()
    ]
