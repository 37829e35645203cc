"""Decides what a client may reach; the one judge.

Laws kept: default-deny (1), one judge (2), agreement (4), judged is dialled (6). Allow rules are
a union and deny rules win: another allow rule never takes anything away, another deny rule never
gives anything. Pure: the same facts always get the same decision, so a test of a rule is a
function call. No method of `Policy` raises, whatever it is asked.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from claude_proxy.policy.credentials.decision import (
    NO_CREDENTIAL,
    AvailableSecrets,
    Binding,
    CredentialDecision,
    custody_of,
)
from claude_proxy.policy.location import Source
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.patterns import (
    HostPattern,
    PathGlob,
    PatternKind,
    Shape,
    folded,
    is_ambiguous,
)
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.summary import changed_unshown, credential_shown, narrowing_lines
from claude_proxy.wire.address import AddressKind, effective, kind_of
from claude_proxy.wire.authority import MAX_PORT, Authority

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

# Frameworks behind many hosts let these headers stand in for the method or the path, which
# would undo a rule on either; where such a rule is in force they are taken out.
OVERRIDE_HEADERS: frozenset[bytes] = frozenset(
    {
        b"x-http-method-override",
        b"x-http-method",
        b"x-method-override",
        b"x-method",
        b"x-http-override",
        b"x-original-method",
        b"x-forwarded-method",
        b"x-override-method",
        b"x-original-url",
        b"x-original-uri",
        b"x-rewrite-url",
        b"x-rewrite-uri",
        b"x-override-url",
        b"x-forwarded-uri",
        b"x-forwarded-path",
        b"x-forwarded-prefix",
        b"x-envoy-original-path",
        b"x-envoy-original-method",
        b"x-middleware-subrequest",
        b"x-middleware-rewrite",
    }
)


class Tls(StrEnum):
    """What becomes of TLS inside a tunnel: opened and judged, or left alone."""

    INTERCEPT = "intercept"
    PASSTHROUGH = "passthrough"


# TRACE sends credentials back, TRACK is its twin, CONNECT opens a tunnel in the tunnel.
_REFUSED_METHODS = frozenset({"TRACE", "TRACK", "CONNECT"})
_ORDINARY_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_is_token = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch


def _is_method(text: str) -> bool:
    return _is_token(text) is not None and text.upper() == text


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `allow` or `deny`; None stands for every value there is."""

    pattern: HostPattern
    scheme: Scheme | None
    ports: frozenset[int] | None
    methods: frozenset[str] | None
    paths: tuple[PathGlob, ...] | None
    tls: Tls
    addresses: tuple[Network, ...]  # where the host may resolve to although it is not public
    note: str
    source: Source

    def __post_init__(self) -> None:
        # An empty set is a mistake that would read as "nothing" here and as "all" elsewhere.
        if self.ports == frozenset() or self.methods == frozenset() or self.paths == ():
            raise ValueError(f"the rule for {self.name} has an empty list")
        if self.ports is not None and not all(1 <= port <= MAX_PORT for port in self.ports):
            raise ValueError(f"the rule for {self.name} has a port outside 1-{MAX_PORT}")
        if self.methods is not None and not all(map(_is_method, self.methods)):
            raise ValueError(f"the rule for {self.name} has a method that is not in capitals")
        if self.tls is Tls.PASSTHROUGH and (self.limited or self.scheme is not Scheme.HTTPS):
            raise ValueError(f"the rule for {self.name} limits what passthrough cannot see")

    @property
    def name(self) -> str:
        """The host pattern in its canonical spelling."""
        return str(self.pattern)

    @property
    def limited(self) -> bool:
        """Whether the rule speaks about single requests, not about the host as a whole."""
        return self.methods is not None or self.paths is not None

    def __str__(self) -> str:
        words = [f"{self.scheme}://{self.name}" if self.scheme else self.name]
        if self.ports is not None:
            words.append(f"ports {_listed(self.ports)}")
        if self.methods is not None:
            words.append(f"methods {_listed(self.methods)}")
        if self.paths is not None:
            words.append(f"paths {_listed(glob.text for glob in self.paths)}")
        if self.tls is Tls.PASSTHROUGH:
            words.append("passthrough")
        if self.addresses:
            words.append(f"addresses {_listed(map(str, self.addresses))}")
        return " ".join(words)


def _listed(values: Iterable[str | int]) -> str:
    return ",".join(map(str, sorted(values, key=lambda value: (isinstance(value, str), value))))


@dataclass(frozen=True, slots=True)
class Decision:
    """The policy's answer to one question."""

    allowed: bool
    reason: Reason
    rule: Rule | None = None
    tls: Tls | None = None  # of a tunnel
    plain: bool = False  # of a tunnel: plain HTTP may be spoken in it
    secure: bool = False  # of a tunnel: TLS may be spoken in it
    restricted: bool = False  # of a request: limits on method or path are in force for its host

    def __bool__(self) -> bool:
        raise TypeError("a Decision has no truth value; read `decision.allowed`")


_DENIED = {reason: Decision(allowed=False, reason=reason) for reason in Reason}


@dataclass(frozen=True, slots=True)
class _Clause:
    """One rule as requests meet it, with the decision it leads to made beforehand."""

    methods: frozenset[str] | None
    shapes: tuple[Shape, ...] | None
    decision: Decision

    def covers_path(self, path: str) -> bool:
        if self.shapes is None:
            return True
        # Not any(...): a generator would cost more than most matches.
        for shape in self.shapes:  # noqa: SIM110
            if shape.matches(path):
                return True
        return False


class _Lane:
    """The rules for one host, port and scheme."""

    __slots__ = ("_allow", "_deny", "_judges_paths", "denied", "limited", "rules")

    def __init__(self, allow: list[Rule], deny: list[Rule]) -> None:
        self.rules = allow
        # The deny rule that leaves nothing here, if there is one.
        whole = next((rule for rule in deny if not rule.limited), None)
        self.denied = None if whole is None else _deny_decision(whole)
        # Whether a deny rule speaks about single requests: then they must be seen.
        self.limited = any(rule.limited for rule in deny)
        restricted = self.limited or all(rule.limited for rule in allow)
        self._deny = tuple(map(_deny_clause, deny))
        self._allow = tuple(_allow_clause(rule, restricted=restricted) for rule in allow)
        self._judges_paths = any(rule.paths is not None for rule in (*allow, *deny))

    @property
    def open(self) -> bool:
        """Whether any request at all may be allowed."""
        return bool(self.rules) and self.denied is None

    def decide(self, method: str, path: str) -> Decision:
        ambiguous = self._judges_paths and is_ambiguous(path)
        if self._deny and (denied := self._denied(method, path, ambiguous=ambiguous)) is not None:
            return denied
        reason = Reason.METHOD_NOT_ALLOWED
        for clause in self._allow:
            if clause.methods is not None and method not in clause.methods:
                continue
            if clause.shapes is None or (not ambiguous and clause.covers_path(path)):
                return clause.decision
            reason = Reason.AMBIGUOUS_PATH if ambiguous else Reason.PATH_NOT_ALLOWED
        return _DENIED[reason]

    def _denied(self, method: str, path: str, *, ambiguous: bool) -> Decision | None:
        # A deny rule must not be outspelled: "post", "/ADMIN" and "/%40x" are denied with
        # "POST", "/admin" and "/@x", which many servers take for the same.
        method = method.upper()
        path = folded(path)
        for clause in self._deny:
            if clause.methods is not None and method not in clause.methods:
                continue
            if clause.shapes is not None and ambiguous:
                return _DENIED[Reason.AMBIGUOUS_PATH]
            if clause.covers_path(path):
                return clause.decision
        return None


def _deny_decision(rule: Rule) -> Decision:
    return Decision(allowed=False, reason=Reason.DENY_RULE, rule=rule)


def _deny_clause(rule: Rule) -> _Clause:
    return _Clause(rule.methods, _shapes(rule, folded), _deny_decision(rule))


def _allow_clause(rule: Rule, *, restricted: bool) -> _Clause:
    decision = Decision(allowed=True, reason=Reason.RULE_MATCHED, rule=rule, restricted=restricted)
    return _Clause(rule.methods, _shapes(rule, str), decision)


def _shapes(rule: Rule, spell: Callable[[str], str]) -> tuple[Shape, ...] | None:
    return None if rule.paths is None else tuple(Shape(glob.text, spell) for glob in rule.paths)


class _Site:
    """The rules for one host and port, with the decision about a tunnel made beforehand."""

    __slots__ = ("_absent", "connect", "lanes")

    def __init__(self, group: "_Group", port: int) -> None:
        allow = [rule for rule in group.allow if rule.ports is None or port in rule.ports]
        deny = [rule for rule in group.deny if rule.ports is None or port in rule.ports]
        self.lanes = {
            scheme: _Lane(
                [rule for rule in allow if rule.scheme in {None, scheme}],
                [rule for rule in deny if rule.scheme in {None, scheme}],
            )
            for scheme in Scheme
        }
        # Why a lane without allow rules denies: the nearest miss says most.
        if allow:
            self._absent = _DENIED[Reason.SCHEME_NOT_ALLOWED]
        elif group.allow:
            self._absent = _DENIED[Reason.PORT_NOT_ALLOWED]
        else:
            self._absent = _DENIED[group.absent]
        self.connect = self._connect()

    def request(self, request: Request) -> Decision:
        lane = self.lanes[request.scheme]
        if lane.rules:
            return lane.decide(request.method, request.path)
        return self._absent if lane.denied is None else lane.denied

    def rules(self) -> Iterator[Rule]:
        """Yield the allow rules that a deny rule leaves standing."""
        for lane in self.lanes.values():
            if lane.open:
                yield from lane.rules

    def _connect(self) -> Decision:
        tls, plain = self.lanes[Scheme.HTTPS], self.lanes[Scheme.HTTP]
        rule = next(self.rules(), None)
        if rule is None:
            denials = (lane.denied for lane in (tls, plain) if lane.denied is not None)
            return next(denials, self._absent)
        mode = Tls.INTERCEPT if tls.open else None
        if tls.open and not tls.limited:
            unseen = (other for other in tls.rules if other.tls is Tls.PASSTHROUGH)
            if (passing := next(unseen, None)) is not None:
                rule, mode = passing, Tls.PASSTHROUGH
        return Decision(
            allowed=True,
            reason=Reason.RULE_MATCHED,
            rule=rule,
            tls=mode,
            plain=plain.open,
            secure=tls.open,
        )


class _Group:
    """The rules for one host, the most specific pattern's first; sites are made when asked for."""

    __slots__ = ("_sites", "absent", "allow", "deny")

    def __init__(
        self,
        allow: Iterable[Rule] = (),
        deny: Iterable[Rule] = (),
        absent: Reason = Reason.NO_RULE,
    ) -> None:
        self.allow = list(allow)
        self.deny = list(deny)
        self.absent = absent  # why no rule allows it, where none does
        self._sites: dict[int, _Site] = {}

    def inherit(self, wider: "_Group | None") -> None:
        if wider is not None:
            self.allow += wider.allow
            self.deny += wider.deny

    def site(self, port: int) -> _Site:
        site = self._sites.get(port)
        if site is None:
            # A port that no rule names is like every other such port; there is no port 0, so
            # it stands for them all, and the client cannot make this grow.
            named = any(rule.ports and port in rule.ports for rule in (*self.allow, *self.deny))
            key = port if named else 0
            site = self._sites.get(key) or _Site(self, key)
            self._sites[key] = site
        return site


class _Names:
    """The groups by name: one look-up for the name itself, then one for each suffix of it."""

    __slots__ = ("_below", "_named")

    def __init__(self) -> None:
        self._named: dict[str, _Group] = {}
        self._below: dict[str, _Group] = {}

    def groups(self, pattern: HostPattern) -> Iterator[_Group]:
        """Yield the group or groups that a rule with this pattern belongs to."""
        if pattern.kind in {PatternKind.EXACT, PatternKind.DOMAIN}:
            yield self._named.setdefault(pattern.host, _Group())
        if pattern.kind is not PatternKind.EXACT:
            yield self._below.setdefault(pattern.host, _Group())

    def finish(self) -> None:
        # The widest first, so that each need only inherit from the next wider one. What covers
        # every name is below "", the root, and inherits from none.
        for name in sorted(filter(None, self._below), key=lambda name: name.count(".")):
            self._below[name].inherit(self._wider(name))
        for name, group in self._named.items():
            group.inherit(self._wider(name))

    def find(self, name: str) -> _Group | None:
        return self._named.get(name) or self._wider(name)

    def _wider(self, name: str) -> _Group | None:
        at = name.find(".")
        while at >= 0:
            name = name[at + 1 :]
            group = self._below.get(name)
            if group is not None:
                return group
            at = name.find(".")
        return self._below.get("")


class _Networks:
    """The groups by network: one look-up for each prefix length that any rule has."""

    __slots__ = ("_tables",)

    def __init__(self) -> None:
        self._tables: dict[int, dict[int, dict[int, _Group]]] = {4: {}, 6: {}}

    def group(self, network: Network) -> _Group:
        tables = self._tables[network.version]
        shift = network.max_prefixlen - network.prefixlen
        prefix = int(network.network_address) >> shift
        return tables.setdefault(shift, {}).setdefault(prefix, _Group())

    def finish(self) -> None:
        for version, tables in self._tables.items():
            self._tables[version] = ordered = dict(sorted(tables.items()))
            for shift in reversed(ordered):
                for prefix, group in ordered[shift].items():
                    group.inherit(self._find(version, prefix << shift, shift + 1))

    def find(self, address: Address) -> _Group | None:
        return self._find(address.version, int(address), 0)

    def _find(self, version: int, number: int, least_shift: int) -> _Group | None:
        for shift, table in self._tables[version].items():
            if shift >= least_shift and (group := table.get(number >> shift)) is not None:
                return group
        return None


@dataclass(frozen=True, slots=True)
class Policy:
    """An allowlist: what no rule allows is denied."""

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    credentials: tuple[Binding, ...] = ()
    narrowings: tuple[
        ApiRestrictions, ...
    ] = ()  # the first that covers a target is the one in force
    _names: _Names = field(init=False, repr=False, compare=False, default_factory=_Names)
    _networks: _Networks = field(init=False, repr=False, compare=False, default_factory=_Networks)

    def __post_init__(self) -> None:
        for rule in self.allow:
            for group in self._groups(rule.pattern):
                group.allow.append(rule)
        for rule in self.deny:
            for group in self._groups(rule.pattern):
                group.deny.append(rule)
        self._names.finish()
        self._networks.finish()

    @property
    def allows_by_default(self) -> bool:
        """Whether a host that no rule names is allowed."""
        return any(rule.pattern.kind is PatternKind.EVERY for rule in self.allow)

    @property
    def rules_count(self) -> int:
        """How many rules there are, of both sorts."""
        return len(self.allow) + len(self.deny)

    def hosts(self) -> Iterator[str]:
        """Yield each allow rule's pattern once, in its canonical spelling and the file's order."""
        yield from dict.fromkeys(rule.name for rule in self.allow)

    def narrowed(self, deny: Iterable[Rule]) -> "Policy":
        """Return this policy with deny rules on top of it."""
        return replace(self, deny=(*self.deny, *deny))

    def opened(self, source: Source, note: str = "") -> "Policy":
        """Return this policy with all allowed that no deny rule covers.

        An address that is not public is still for a rule that names it to allow, and all that is
        sent must still agree with where it goes.
        """
        everything = Rule(
            pattern=HostPattern.every(),
            scheme=None,
            ports=None,
            methods=None,
            paths=None,
            tls=Tls.INTERCEPT,
            addresses=(),
            note=note,
            source=source,
        )
        return replace(self, allow=(*self.allow, everything))

    def diff(self, other: "Policy") -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return what `other` has and this one lacks, and the reverse; "deny" marks deny rules."""
        here, there = dict.fromkeys(_shown(self)), dict.fromkeys(_shown(other))
        added = tuple(shown for shown in there if shown not in here)
        added += tuple(changed_unshown(self.credentials, other.credentials))
        removed = tuple(shown for shown in here if shown not in there)
        return added, removed

    def decide_connect(self, target: Authority) -> Decision:
        """Decide whether a tunnel or connection to `target` may be opened at all."""
        group = self._group(target)
        return _DENIED[Reason.NO_RULE] if group is None else group.site(target.port).connect

    def decide_request(self, request: Request) -> Decision:
        """Decide whether `request` may be forwarded."""
        method, target = request.method, request.target
        if method not in _ORDINARY_METHODS and not _may_be_a_request(method):
            return _DENIED[Reason.METHOD_REFUSED]
        if request.host != target:
            return _DENIED[Reason.HOST_MISMATCH]
        group = self._group(target)
        return (
            _DENIED[Reason.NO_RULE] if group is None else group.site(target.port).request(request)
        )

    def decide_narrowed(self, request: Request) -> Decision:
        """Decide about an allowed request by what its head asks the Messages API for."""
        decision = self.decide_request(request)
        narrowing = self.narrowing_of(request.target)
        if not decision.allowed or narrowing is None:
            return decision
        reason = narrowing.judge_head(request)
        # What is narrowed is restricted: no header may stand in for the path that was judged.
        return replace(decision, restricted=True) if reason is None else _DENIED[reason]

    def decide_content(self, request: Request, body: bytes) -> Decision:
        """Decide about an allowed request by what its body asks the Messages API for."""
        decision = self.decide_narrowed(request)
        narrowing = self.narrowing_of(request.target)
        if not decision.allowed or narrowing is None:
            return decision
        reason = narrowing.judge_body(request, body, self.reaches)
        return decision if reason is None else _DENIED[reason]

    def narrowing_of(self, target: Authority) -> ApiRestrictions | None:
        """Return what narrows the Messages API at `target`, if anything does."""
        for narrowing in self.narrowings:
            here = narrowing.ports is None or target.port in narrowing.ports
            if here and covered(narrowing.patterns, target):
                return narrowing
        return None

    def custody_of(self, request: Request, holdings: AvailableSecrets) -> CredentialDecision:
        """Decide which credential an allowed request may carry, and which is put in."""
        return (
            custody_of(self.credentials, request, holdings) if self.credentials else NO_CREDENTIAL
        )

    def reaches(self, url: str, method: str = "GET") -> bool:
        """Tell whether a client itself may ask for `url`: then the API may do so for it."""
        request = _request_for(url, method)
        # On a bound host the login counts, and whose the API shows there is not seen here.
        return (
            request is not None
            and not self.binds(request.target)
            and self.decide_narrowed(request).allowed
        )

    def binds(self, target: Authority) -> bool:
        """Tell whether a credential is bound to the host of `target`."""
        return bool(bound_to(target, self.credentials))

    def decide_hello(self, target: Authority, sni: str | None, *, encrypted: bool) -> Decision:
        """Decide whether TLS that begins so may go on in a tunnel to `target`."""
        connect = self.decide_connect(target)
        if not connect.allowed:
            return connect
        if not connect.secure:
            return _DENIED[Reason.SCHEME_NOT_ALLOWED]
        # The outer name of an encrypted hello says nothing about the inner one.
        if encrypted:
            return _DENIED[Reason.ENCRYPTED_HELLO]
        if target.address is not None:
            # RFC 6066, 3: literal addresses are not permitted as SNI.
            return connect if sni is None else _DENIED[Reason.SNI_MISMATCH]
        if sni is None:
            return _DENIED[Reason.SNI_MISSING]
        # Folded only where it is ASCII: the Kelvin sign folds to "k". No trailing dot (RFC 6066).
        same = sni.isascii() and sni.lower() == target.host
        return connect if same else _DENIED[Reason.SNI_MISMATCH]

    def decide_address(self, target: Authority, address: Address) -> Decision:
        """Decide whether `address`, which `target` resolved to, may be dialled.

        A deny rule for a network denies the names that lead into it, too; one with methods or
        paths is about requests to the addresses themselves.
        """
        connect = self.decide_connect(target)
        if not connect.allowed:
            return connect
        if (denied := self._denied_address(target, address)) is not None:
            return denied
        if target.address is not None:
            # A rule names the literal, or it would have been denied as a target.
            same = target.address == address
            return connect if same else _DENIED[Reason.ADDRESS_NOT_ALLOWED]
        kind = kind_of(address)
        if kind is AddressKind.PUBLIC:
            return connect
        group = self._names.find(target.host) or _Group()
        for rule in group.site(target.port).rules():
            if any(_is_named(network, effective(address), kind) for network in rule.addresses):
                return Decision(allowed=True, reason=Reason.RULE_MATCHED, rule=rule)
        return _DENIED[Reason.ADDRESS_NOT_ALLOWED]

    def _groups(self, pattern: HostPattern) -> Iterator[_Group]:
        if pattern.network is None:
            yield from self._names.groups(pattern)
        else:
            yield self._networks.group(pattern.network)
        if pattern.kind is PatternKind.EVERY:
            yield from map(self._networks.group, _ALL_ADDRESSES)

    def _group(self, target: Authority) -> _Group | None:
        if target.address is None:
            return self._names.find(target.host)
        return self._literal_group(target.address)

    def _literal_group(self, address: Address) -> _Group | None:
        group = self._networks.find(address) or _Group()
        inner = effective(address)
        if inner != address:
            # Not the canonical spelling of the host it leads to: never allowed, though a deny
            # rule on either may be the reason.
            return _Group((), group.deny + (self._networks.find(inner) or _Group()).deny)
        kind = kind_of(address)
        every = any(rule.pattern.kind is PatternKind.EVERY for rule in group.allow)
        if kind is AddressKind.METADATA or (every and kind is not AddressKind.PUBLIC):
            named = (rule for rule in group.allow if _is_named(rule.pattern.network, address, kind))
            absent = Reason.ADDRESS_NOT_ALLOWED if every else Reason.NO_RULE
            return _Group(named, group.deny, absent)
        return group

    def _denied_address(self, target: Authority, address: Address) -> Decision | None:
        # Which scheme the dial is for is not known here, so a network that is denied for one is
        # denied for both. To look at what the target allows would let an allow rule take away.
        for reading in {address, effective(address)}:
            if (group := self._networks.find(reading)) is not None:
                for lane in group.site(target.port).lanes.values():
                    if lane.denied is not None:
                        return lane.denied
        return None


_ALL_ADDRESSES: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


_URL = re.compile(r"(https?)://([^/?#@\\\s]+)(/[\x21-\x7e]*)?", re.ASCII)


def covered(patterns: Iterable[HostPattern], target: Authority) -> bool:
    """Tell whether one of the patterns covers `target`."""
    return any(pattern.covers(target) for pattern in patterns)


def bound_to(target: Authority, bindings: Iterable[Binding]) -> tuple[Binding, ...]:
    """Return those of some credentials that are bound to the host of `target`."""
    return tuple(binding for binding in bindings if covered(binding.patterns, target))


def _request_for(url: str, method: str) -> Request | None:
    """Return what a client would send to ask for `url`; None if that is not plain to see."""
    match = _URL.fullmatch(url)
    if match is None:
        return None
    scheme = Scheme(match[1])
    try:
        target = Authority.parse(match[2], default_port=443 if scheme is Scheme.HTTPS else 80)
    except ValueError:
        return None
    path, _, query = (match[3] or "/").partition("?")
    return Request(scheme, target, target, method, path, query)


def _shown(policy: Policy) -> list[str]:
    return [
        *map(str, policy.allow),
        *(f"deny {rule}" for rule in policy.deny),
        *map(credential_shown, policy.credentials),
        *(line for narrowing in policy.narrowings for line in narrowing_lines(narrowing)),
    ]


def _may_be_a_request(method: str) -> bool:
    return _is_token(method) is not None and method.upper() not in _REFUSED_METHODS


def _is_named(network: Network | None, address: Address, kind: AddressKind) -> bool:
    """Tell whether a rule with this network names `address`, not merely happens to hold it."""
    if network is None or address not in network:
        return False
    # "169.254.0.0/16" is written for a printer; a machine's credentials must be meant.
    return kind is not AddressKind.METADATA or network.prefixlen == network.max_prefixlen
