"""Rules for one host, grouped by port and scheme, with precomputed decisions.

Default-deny: a port or scheme without an allow rule is denied, and deny rules always win over
allow rules. Pure.
"""

from collections.abc import Callable, Iterable, Iterator

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.decision import (
    Decision,
    allowed_by,
    denied,
    denied_by,
    tunnel_allowed_by,
)
from claude_proxy.policy.git_push import push_path
from claude_proxy.policy.patterns import GlobMatcher, PatternKind, folded, is_ambiguous
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import WEB_PORTS, RawScheme, Rule, Tls


@dataclass(frozen=True, slots=True)
class _Clause:
    """The methods and paths of one rule, and the decision if they match."""

    methods: frozenset[str] | None
    paths: tuple[GlobMatcher, ...] | None
    decision: Decision

    def covers_path(self, path: str) -> bool:
        if self.paths is None:
            return True
        # Not any(...): a generator would cost more than most matches.
        for glob in self.paths:  # noqa: SIM110
            if glob.matches(path):
                return True
        return False


class SchemeRules:
    """The rules for one host, port and scheme."""

    __slots__ = ("_allow", "_deny", "_judges_paths", "denied", "limited", "rules")

    def __init__(self, allow: list[Rule], deny: list[Rule]) -> None:
        self.rules = allow
        # The decision of a deny rule without methods and paths, if there is one.
        whole = next((rule for rule in deny if not rule.limited), None)
        self.denied = None if whole is None else denied_by(whole)
        # Whether a deny rule has methods or paths: then TLS must be intercepted.
        self.limited = any(rule.limited for rule in deny)
        restricted = self.limited or all(rule.limited for rule in allow)
        self._deny = tuple(
            _Clause(rule.methods, _paths(rule, folded), denied_by(rule)) for rule in deny
        )
        self._allow = tuple(
            _Clause(rule.methods, _paths(rule, str), allowed_by(rule, restricted=restricted))
            for rule in allow
        )
        self._judges_paths = any(rule.paths is not None for rule in (*allow, *deny))

    @property
    def judges_paths(self) -> bool:
        """Whether a decision depends on the path of the request."""
        return self._judges_paths

    @property
    def open(self) -> bool:
        """Whether any request can be allowed."""
        return bool(self.rules) and self.denied is None

    def decide(self, method: str, path: str) -> Decision:
        """Decide about one request."""
        ambiguous = self._judges_paths and is_ambiguous(path)
        if self._deny and (denial := self._denial(method, path, ambiguous=ambiguous)) is not None:
            return denial
        reason = Reason.METHOD_NOT_ALLOWED
        for clause in self._allow:
            if clause.methods is not None and method not in clause.methods:
                continue
            if clause.paths is None or (not ambiguous and clause.covers_path(path)):
                return clause.decision
            reason = Reason.AMBIGUOUS_PATH if ambiguous else Reason.PATH_NOT_ALLOWED
        return denied(reason)

    def _denial(self, method: str, path: str, *, ambiguous: bool) -> Decision | None:
        # Another spelling must not bypass a deny rule: "post", "/ADMIN" and "/%40x" are denied like
        # "POST", "/admin" and "/@x", as many servers treat them as equal.
        method = method.upper()
        path = folded(path)
        for clause in self._deny:
            if clause.methods is not None and method not in clause.methods:
                continue
            if clause.paths is not None and ambiguous:
                return denied(Reason.AMBIGUOUS_PATH)
            if clause.covers_path(path):
                return clause.decision
        return None


def _paths(rule: Rule, spell: Callable[[str], str]) -> tuple[GlobMatcher, ...] | None:
    if rule.paths is None:
        return None
    return tuple(GlobMatcher(glob.text, spell) for glob in rule.paths)


class PortRules:
    """The rules for one host and port, with the decision about a tunnel."""

    __slots__ = ("_by_scheme", "_no_rule", "_port", "_tcp", "connect")

    def __init__(self, host: "HostRules", port: int) -> None:
        self._port = port  # 0: one that no rule names
        allow = [rule for rule in host.allow if rule.ports is None or port in rule.ports]
        deny = [rule for rule in host.deny if rule.ports is None or port in rule.ports]
        self._by_scheme = {
            scheme: SchemeRules(
                [rule for rule in allow if rule.scheme in {None, scheme}],
                [rule for rule in deny if rule.scheme in {None, scheme}],
            )
            for scheme in Scheme
        }
        # Never implied: a rule for every scheme or every port does not allow it.
        self._tcp = SchemeRules(
            [rule for rule in allow if rule.scheme is RawScheme.TCP and rule.ports is not None],
            [rule for rule in deny if rule.scheme in {None, RawScheme.TCP}],
        )
        # The reason to deny a scheme without allow rules: the closest rule determines it.
        if allow:
            self._no_rule = denied(Reason.SCHEME_NOT_ALLOWED)
        elif host.allow:
            self._no_rule = denied(Reason.PORT_NOT_ALLOWED)
        else:
            self._no_rule = denied(host.no_rule)
        self.connect = self._decide_connect()

    def decide(self, request: Request) -> Decision:
        """Decide about one request to this host and port."""
        rules = self._by_scheme[request.scheme]
        if rules.rules:
            if request.query and (push := push_path(request.path, request.query)) is not None:
                whole = rules.decide("POST", push)
                if not whole.allowed:
                    return whole
            return rules.decide(request.method, request.path)
        return self._no_rule if rules.denied is None else rules.denied

    @property
    def judges_paths(self) -> bool:
        """Whether a decision depends on the path of the request."""
        return any(rules.judges_paths for rules in self._by_scheme.values())

    def open_rules(self) -> Iterator[Rule]:
        """Yield the allow rules of the schemes that are not denied completely.

        Where bytes of any protocol pass, those for tcp alone: no other names an address for them.
        """
        for rules in (self._tcp,) if self._is_raw else self._by_scheme.values():
            if rules.open:
                yield from rules.rules

    def whole_denials(self, *, raw: bool) -> Iterator[Decision]:
        """Yield the denial of each scheme that is denied completely; of tcp only where `raw`."""
        denials = [rules.denied for rules in self._by_scheme.values()]
        if raw:
            denials.append(self._tcp.denied)
        return (denial for denial in denials if denial is not None)

    def _decide_connect(self) -> Decision:
        tls, plain = self._by_scheme[Scheme.HTTPS], self._by_scheme[Scheme.HTTP]
        rule = next(self.open_rules(), None)
        if rule is None:
            return next(self.whole_denials(raw=bool(self._tcp.rules)), self._no_rule)
        if self._is_raw:
            opaque = self._opaque
            return tunnel_allowed_by(
                opaque or rule,
                tls=Tls.PASSTHROUGH,
                plain=False,
                secure=tls.denied is None,  # a denial of https is one of TLS, wherever it is spoken
                raw=True,
                opaque=opaque is not None,
            )
        mode = Tls.INTERCEPT if tls.open else None
        if tls.open and not tls.limited:
            unseen = [each for each in tls.rules if each.tls is Tls.PASSTHROUGH]
            if unseen:
                rule, mode = unseen[0], Tls.PASSTHROUGH
        return tunnel_allowed_by(rule, tls=mode, plain=plain.open, secure=tls.open)

    @property
    def _opaque(self) -> Rule | None:
        """The rule by which not even the first bytes are looked at, if there is one.

        A denial of http or https is kept by looking at them.
        """
        if any(rules.denied is not None for rules in self._by_scheme.values()):
            return None
        return next((rule for rule in self._tcp.rules if rule.opaque), None)

    @property
    def _is_raw(self) -> bool:
        """Whether bytes of any protocol pass: not where they could undo a limit on requests."""
        tcp, tls, plain = self._tcp, self._by_scheme[Scheme.HTTPS], self._by_scheme[Scheme.HTTP]
        denied = tcp.limited or tls.limited or plain.limited
        if not tcp.open or denied or (self._port in WEB_PORTS and self._opaque is None):
            return False
        limits = bool(tls.rules) and all(rule.limited for rule in tls.rules)
        named = any(rule.pattern.kind is not PatternKind.EVERY for rule in plain.rules)
        return not limits and not named


class HostRules:
    """The rules for one host, the most specific pattern first; grouped by port on demand."""

    __slots__ = ("_by_port", "allow", "deny", "no_rule")

    def __init__(
        self,
        allow: Iterable[Rule] = (),
        deny: Iterable[Rule] = (),
        no_rule: Reason = Reason.NO_RULE,
    ) -> None:
        self.allow = list(allow)
        self.deny = list(deny)
        self.no_rule = no_rule  # the reason to deny where no rule allows the host
        self._by_port: dict[int, PortRules] = {}

    def inherit(self, wider: "HostRules | None") -> None:
        """Append the rules of a wider pattern."""
        if wider is not None:
            self.allow += wider.allow
            self.deny += wider.deny

    def at(self, port: int) -> PortRules:
        """Return the rules at `port`."""
        found = self._by_port.get(port)
        if found is None:
            # All ports that no rule names share the entry of port 0, which is not a real port, so
            # a client cannot make this table grow.
            named = any(rule.ports and port in rule.ports for rule in (*self.allow, *self.deny))
            key = port if named else 0
            found = self._by_port.get(key) or PortRules(self, key)
            self._by_port[key] = found
        return found
