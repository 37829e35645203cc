"""Laws of the policy for every input: checked against a slow model of it, and for what must hold.

The model looks at every rule, one by one, and knows no index; where the two disagree, one is
wrong.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claude_proxy.policy.decision import Decision
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, PathGlob, PatternError, PatternKind
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import WEB_PORTS, RawScheme, Rule, Tls
from claude_proxy.wire.address import Address, AddressKind, effective, kind_of
from claude_proxy.wire.authority import Authority, text_of

# Small alphabets: rules and questions must meet often, and nearly meet oftener.

HOSTS = ("a.test", "b.a.test", "c.b.a.test", "xa.test", "a.test.evil.test", "b.test")
LITERALS = ("10.0.0.1", "10.1.0.1", "127.0.0.1", "8.8.8.8", "169.254.169.254", "168.63.129.16")
LITERALS_V6 = ("fd00::1", "::ffff:a00:1", "64:ff9b::808:808", "2606:4700::1", "fd00:ec2::254")
PATTERNS = (
    *("a.test", "b.a.test", "*.a.test", ".a.test", "*.b.a.test", ".test", "*.evil.test"),
    *("10.0.0.1", "8.8.8.8", "169.254.169.254", "2606:4700::1", "127.0.0.1", "168.63.129.16"),
    *("10.0.0.0/8", "10.0.0.0/16", "8.0.0.0/7", "169.254.0.0/16", "fd00::/8", "2606:4700::/32"),
)
PORTS = (80, 443, 8443)
METHODS = ("GET", "POST", "PUT")
PATHS = (
    *(
        "/",
        "/a",
        "/a/",
        "/a/b",
        "/a/b.git/x",
        "/A/B",
        "/%41",
        "/a%40b",
        "/a@b",
        "/a%2fb",
        "/a/../b",
    ),
    *("//a", "/a;b", "*", "", "a", "/a/b/c/d", "/b%C3%A9", "/b\u00e9", "/a%252fb", "/a.b", "/..."),
)
GLOBS = ("/", "/**", "/a", "/a/**", "/*", "/*/*", "/a/*.git/**", "/a*b", "/a%40b", "/A/**", "/*/**")

# What is repeated is drawn oftener: most questions must find a rule, and most rules a question.
patterns = st.sampled_from((*PATTERNS, *(".test", ".a.test", "a.test") * 7)).map(HostPattern.parse)
ports = st.frozensets(st.sampled_from(PORTS), min_size=1) | st.just(frozenset(PORTS))
schemes = st.sampled_from((Scheme.HTTPS, Scheme.HTTPS, Scheme.HTTP))
methods = st.none() | st.frozensets(st.sampled_from(METHODS), min_size=1)
some_globs = st.lists(st.sampled_from(GLOBS).map(PathGlob.parse), min_size=1, max_size=2)
globs = st.none() | some_globs.map(tuple)
some_networks = st.sampled_from(("10.0.0.0/8", "169.254.0.0/16", "169.254.169.254/32", "fd00::/8"))
networks = st.lists(some_networks.map(ip_network), max_size=2).map(tuple)
sources = st.builds(Location, st.just("allowlist.yaml"), st.integers(1, 99), st.just(1))


def rule(
    host: str, *, paths: tuple[str, ...] | None = None, scheme: Scheme | None = Scheme.HTTPS
) -> Rule:
    globs = None if paths is None else tuple(map(PathGlob.parse, paths))
    ports = frozenset({443})
    source = Location("allowlist.yaml", 1, 1)
    pattern = HostPattern.parse(host)
    return Rule(pattern, scheme, ports, None, globs, Tls.INTERCEPT, (), "", source)


EVERYTHING = Rule(
    HostPattern.every(), None, None, None, None, Tls.INTERCEPT, (), "", Location("g.toml", 1, 1)
)


@st.composite
def allow_rules(draw: st.DrawFn) -> Rule:
    if draw(st.integers(0, 15)) == 0:
        return EVERYTHING
    passing = draw(st.integers(0, 3)) == 0
    return Rule(
        draw(patterns),
        Scheme.HTTPS if passing else draw(schemes),
        draw(ports),
        None if passing else draw(methods),
        None if passing else draw(globs),
        Tls.PASSTHROUGH if passing else Tls.INTERCEPT,
        draw(networks),
        "",
        draw(sources),
    )


deny_rules = st.builds(
    Rule,
    patterns,
    st.none() | schemes,
    st.none() | ports,
    methods,
    globs,
    st.just(Tls.INTERCEPT),
    st.just(()),
    st.just(""),
    sources,
)
tcp_rules = st.builds(
    Rule,
    patterns,
    st.just(RawScheme.TCP),
    ports,
    st.none(),
    st.none(),
    st.just(Tls.INTERCEPT),
    networks,
    st.just(""),
    sources,
)
tcp_denials = st.builds(
    Rule,
    patterns,
    st.just(RawScheme.TCP),
    st.none() | ports,
    st.none(),
    st.none(),
    st.just(Tls.INTERCEPT),
    st.just(()),
    st.just(""),
    sources,
)
policies = st.builds(
    Policy,
    st.lists(allow_rules(), min_size=1, max_size=6).map(tuple),
    st.lists(deny_rules, max_size=2).map(tuple),
)
targets = st.builds(
    Authority.of,
    st.sampled_from((*HOSTS * 4, *LITERALS, *LITERALS_V6)),
    st.sampled_from((*PORTS * 2, 443, 443, 22)),
)
addresses = st.sampled_from(LITERALS + LITERALS_V6).map(ip_address) | st.ip_addresses()
paths = st.sampled_from(PATHS) | st.text(alphabet="/ab.*%2fFeE40;\\", max_size=12)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    target = draw(targets)
    host = draw(targets) if draw(st.integers(0, 7)) == 0 else target
    odd = ("post", "TRACE", "connect", "QUERY", "", "G T")
    method = draw(st.sampled_from((*METHODS * 5, *odd)))
    return Request(draw(schemes), target, host, method, draw(paths))


# The model


def covers(pattern: HostPattern, target: Authority) -> bool:
    if pattern.kind is PatternKind.EVERY:
        return target.address is None or kind_of(target.address) is AddressKind.PUBLIC
    if target.address is not None:
        network = pattern.network
        single = kind_of(target.address) is AddressKind.METADATA
        held = network is not None and target.address in network
        return held and (not single or network is None or network.num_addresses == 1)
    itself = pattern.kind in {PatternKind.EXACT, PatternKind.DOMAIN} and target.host == pattern.host
    wide = pattern.kind in {PatternKind.SUBDOMAINS, PatternKind.DOMAIN}
    return itself or (wide and target.host.endswith(f".{pattern.host}"))


def denies(pattern: HostPattern, target: Authority) -> bool:
    if target.address is None:
        return covers(pattern, target)
    readings = (target.address, effective(target.address))
    return pattern.network is not None and any(reading in pattern.network for reading in readings)


def allow_rules_for(policy: Policy, target: Authority) -> list[Rule]:
    if target.address is not None and effective(target.address) != target.address:
        return []
    return [rule for rule in policy.allow if covers(rule.pattern, target)]


def deny_rules_for(policy: Policy, target: Authority) -> list[Rule]:
    return [
        rule
        for rule in policy.deny
        if denies(rule.pattern, target) and (rule.ports is None or target.port in rule.ports)
    ]


def fits(rule: Rule, scheme: Scheme, port: int) -> bool:
    return rule.scheme in {None, scheme} and (rule.ports is None or port in rule.ports)


def open_schemes(policy: Policy, target: Authority) -> set[Scheme]:
    allow, deny = allow_rules_for(policy, target), deny_rules_for(policy, target)
    return {
        scheme
        for scheme in Scheme
        if any(fits(rule, scheme, target.port) for rule in allow)
        and not any(fits(rule, scheme, target.port) and not rule.limited for rule in deny)
    }


def is_ambiguous(path: str) -> bool:
    escapes = [chr(int(found, 16)) for found in re.findall(r"%([0-9a-fA-F]{2})", path)]
    segments = path.removeprefix("/").split("/")
    faults = (
        not path.startswith("/"),
        "" in segments[:-1],
        not {".", ".."}.isdisjoint(segments),
        any(not "!" <= char <= "~" or char in ";\\?#" for char in path),
        path.count("%") != len(escapes),
        any(char < " " or char in "#%/;?\\\x7f" for char in escapes),
        any(char.isascii() and (char.isalnum() or char in "-._~") for char in escapes),
        re.search(
            rb"[\xc0\xc1]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]|\xef\xbc[\x8e\x8f\xbc]",
            unquote_to_bytes(path.encode(errors="replace")),
        ),
    )
    return path != "*" and any(faults)


def as_regex(glob: str) -> re.Pattern[str]:
    body, open_end = glob.removesuffix("/**"), glob.endswith("/**")
    parts = (
        "[^/]+" if segment == "*" else "[^/]*".join(map(re.escape, segment.split("*")))
        for segment in body.split("/")
    )
    return re.compile("/".join(parts) + ("(?:/.*)?" if open_end else ""), re.DOTALL)


def glob_matches(rule: Rule, path: str) -> bool:
    return path != "" and any(as_regex(glob.text).fullmatch(path) for glob in rule.paths or ())


def glob_matches_any_spelling(rule: Rule, path: str) -> bool:
    spelled = unquote_to_bytes(path.encode()).decode("latin-1").lower()
    return any(
        as_regex(unquote_to_bytes(glob.text).decode("latin-1").lower()).fullmatch(spelled)
        for glob in rule.paths or ()
    )


def denies_request(rule: Rule, request: Request) -> bool:
    path = request.path
    return (
        rule.scheme in {None, request.scheme}
        and (rule.methods is None or request.method.upper() in rule.methods)
        and (rule.paths is None or is_ambiguous(path) or glob_matches_any_spelling(rule, path))
    )


def allows_request(rule: Rule, request: Request) -> bool:
    path = request.path
    return (
        fits(rule, request.scheme, request.target.port)
        and (rule.methods is None or request.method in rule.methods)
        and (rule.paths is None or (not is_ambiguous(path) and glob_matches(rule, path)))
    )


def model_request(policy: Policy, request: Request) -> bool:
    denials = deny_rules_for(policy, request.target)
    matching = [
        rule for rule in allow_rules_for(policy, request.target) if allows_request(rule, request)
    ]
    return (
        re.fullmatch(r"[A-Za-z]+", request.method) is not None
        and request.method.upper() not in {"TRACE", "CONNECT"}
        and request.host == request.target
        and matching != []
        and not any(denies_request(denial, request) for denial in denials)
    )


def denies_address(rule: Rule, target: Authority, address: Address) -> bool:
    network = rule.pattern.network
    return (
        network is not None
        and (address in network or effective(address) in network)
        and (rule.ports is None or target.port in rule.ports)
        and not rule.limited
    )


def names_address(rule: Rule, address: Address) -> bool:
    single = kind_of(address) is AddressKind.METADATA
    return any(
        effective(address) in network and (network.num_addresses == 1 or not single)
        for network in rule.addresses
    )


def model_address(policy: Policy, target: Authority, address: Address) -> bool:
    schemes = open_schemes(policy, target)
    rules = [
        rule
        for rule in allow_rules_for(policy, target)
        if any(fits(rule, scheme, target.port) for scheme in schemes)
    ]
    if not rules or any(denies_address(rule, target, address) for rule in policy.deny):
        return False
    public = kind_of(address) is AddressKind.PUBLIC
    by_name = public or any(names_address(rule, address) for rule in rules)
    return by_name if target.address is None else target.address == address


@given(policies, targets)
def test_connections_are_decided_as_by_looking_at_every_rule(
    policy: Policy, target: Authority
) -> None:
    decision = policy.decide_connect(target)
    schemes = open_schemes(policy, target)

    assert decision.allowed == bool(schemes)
    assert decision.secure == (Scheme.HTTPS in schemes)
    assert decision.plain == (Scheme.HTTP in schemes)
    assert (decision.tls is not None) == decision.secure
    if decision.allowed:
        assert decision.rule in allow_rules_for(policy, target)
    elif decision.reason is Reason.DENY_RULE:
        assert decision.rule in deny_rules_for(policy, target)
    else:
        anywhere = bool(allow_rules_for(policy, target))
        absent = {Reason.ADDRESS_NOT_ALLOWED, Reason.NO_RULE}
        assert decision.reason in ({Reason.PORT_NOT_ALLOWED} if anywhere else absent)
        if decision.reason is Reason.ADDRESS_NOT_ALLOWED:
            assert target.address is not None
            assert kind_of(target.address) is not AddressKind.PUBLIC
            assert EVERYTHING in policy.allow


@given(policies, requests())
@example(
    Policy((rule("a.test"),), (rule("a.test", paths=("/a%40b",), scheme=None),)),
    Request(Scheme.HTTPS, Authority("a.test", 443), Authority("a.test", 443), "GET", "/A@B"),
)
def test_requests_are_decided_as_by_looking_at_every_rule(policy: Policy, request: Request) -> None:
    assert policy.decide_request(request).allowed == model_request(policy, request)


@given(policies, targets, addresses)
def test_addresses_are_decided_as_by_looking_at_every_rule(
    policy: Policy, target: Authority, address: Address
) -> None:
    decision = policy.decide_address(target, address)

    assert decision.allowed == model_address(policy, target, address)


# What must hold whatever the rules


type Ask = Callable[[Policy], Decision]

TLS = st.sampled_from([None, *Tls])


@st.composite
def questions(draw: st.DrawFn) -> Ask:
    target, request, address = draw(targets), draw(requests()), draw(addresses)
    sni = draw(st.none() | st.sampled_from(HOSTS))
    encrypted, tls = draw(st.booleans()), draw(TLS)
    asks: tuple[Ask, ...] = (
        lambda policy: policy.decide_connect(target),
        lambda policy: policy.decide_request(request),
        lambda policy: policy.decide_hello(target, sni, encrypted=encrypted, tls=tls),
        lambda policy: policy.decide_address(target, address),
    )
    return draw(st.sampled_from(asks))


@given(policies, allow_rules(), questions(), st.booleans())
def test_another_allow_rule_never_denies_anything(
    policy: Policy,
    more: Rule,
    ask: Ask,
    first: bool,  # noqa: FBT001
) -> None:
    allow = (more, *policy.allow) if first else (*policy.allow, more)

    assert ask(Policy(allow, policy.deny)).allowed >= ask(policy).allowed


@given(policies, deny_rules, questions())
def test_another_deny_rule_never_allows_anything(policy: Policy, more: Rule, ask: Ask) -> None:
    denying = Policy(policy.allow, (*policy.deny, more))

    assert ask(denying).allowed <= ask(policy).allowed


@given(policies, questions())
def test_the_order_of_rules_decides_nothing(policy: Policy, ask: Ask) -> None:
    turned = Policy(policy.allow[::-1], policy.deny[::-1])

    assert ask(turned).allowed == ask(policy).allowed


@given(policies, requests())
def test_no_request_is_allowed_where_no_tunnel_is(policy: Policy, request: Request) -> None:
    tunnel = policy.decide_connect(request.target)

    fitting = tunnel.secure if request.scheme is Scheme.HTTPS else tunnel.plain
    assert policy.decide_request(request).allowed <= fitting <= tunnel.allowed


@given(policies, targets, st.sampled_from((*METHODS, "QUERY")), paths)
def test_passthrough_never_grants_what_interception_would_deny(
    policy: Policy, target: Authority, method: str, path: str
) -> None:
    request = Request(Scheme.HTTPS, target, target, method, path)

    passing = policy.decide_connect(target).tls is Tls.PASSTHROUGH

    assert passing <= policy.decide_request(request).allowed


@given(policies, requests(), st.sampled_from((*METHODS, "QUERY")), paths)
def test_where_nothing_is_restricted_method_and_path_decide_nothing(
    policy: Policy, request: Request, method: str, path: str
) -> None:
    decision = policy.decide_request(request)

    other = policy.decide_request(replace(request, method=method, path=path))

    assert (decision.allowed and not decision.restricted) <= other.allowed


@given(policies, targets, st.none() | st.sampled_from(HOSTS), st.booleans(), TLS)
def test_only_a_hello_for_the_target_goes_on(
    policy: Policy,
    target: Authority,
    sni: str | None,
    encrypted: bool,  # noqa: FBT001
    tls: Tls | None,
) -> None:
    decision = policy.decide_hello(target, sni, encrypted=encrypted, tls=tls)

    if decision.allowed:
        assert not encrypted or tls is Tls.INTERCEPT
        assert policy.decide_connect(target).secure
        assert sni == (target.host if target.address is None else None)


@given(policies, targets, addresses)
def test_no_name_leads_to_an_address_that_is_neither_public_nor_named(
    policy: Policy, target: Authority, address: Address
) -> None:
    decision = policy.decide_address(target, address)

    listed = (network for rule in policy.allow for network in rule.addresses)
    named = any(effective(address) in network for network in listed)
    if target.address is None:
        assert decision.allowed <= (named or kind_of(address) is AddressKind.PUBLIC)


anything = st.text(max_size=40) | st.text(alphabet="/.%;\\\0aA*2fe\udc80\u212a", max_size=20)


@given(
    policies,
    targets,
    st.sampled_from(Scheme),
    anything,
    anything,
    st.none() | anything,
    st.booleans(),
    st.ip_addresses(),
)
@example(Policy(), Authority("a.test", 1), Scheme.HTTP, "\udc80", "\udc80%", "\udc80", False,
         IPv6Address("fe80::1%x"))  # fmt: skip
def test_no_input_makes_a_decision_raise(
    policy: Policy,
    target: Authority,
    scheme: Scheme,
    method: str,
    path: str,
    sni: str | None,
    encrypted: bool,  # noqa: FBT001
    address: Address,
) -> None:
    decisions = (
        policy.decide_connect(target),
        policy.decide_request(Request(scheme, target, target, method, path)),
        policy.decide_hello(target, sni, encrypted=encrypted, tls=Tls.INTERCEPT),
        policy.decide_address(target, address),
    )

    for decision in decisions:
        assert decision.allowed == (decision.reason is Reason.RULE_MATCHED)


@given(st.sampled_from(HOSTS), st.sampled_from(HOSTS))
def test_a_suffix_is_cut_at_dots_alone(owned: str, asked: str) -> None:
    labels, owned_labels = asked.split("."), owned.split(".")

    allowed = Policy((rule(f".{owned}"),)).decide_connect(Authority.of(asked, 443)).allowed

    assert allowed == (labels[-len(owned_labels) :] == owned_labels)


# Patterns and globs


@given(anything | st.text(alphabet="*.a:/[]@%1-comx", max_size=20))
@example("*." * 40_000)
@example("[" * 40_000 + ":")
def test_a_host_pattern_parses_to_itself_or_raises_with_a_fix(text: str) -> None:
    try:
        pattern = HostPattern.parse(text)
    except PatternError:
        return

    assert HostPattern.parse(str(pattern)) == pattern


NESTED = (
    *("a.test", "b.a.test", "c.b.a.test", "*.a.test", ".a.test", "*.b.a.test", ".b.a.test"),
    *("z.test", "10.1.2.3", "10.1.0.0/16", "10.0.0.0/8", "2001:db8::1", "2001:db8::/32"),
)
INSIDE = (
    *("a.test", "b.a.test", "c.b.a.test", "d.c.b.a.test", "e.a.test", "z.test", "y.z.test"),
    *("10.1.2.3", "10.1.2.4", "10.2.0.1", "192.0.2.1", "[2001:db8::1]", "[2001:db8::2]"),
)


@pytest.mark.parametrize("one", NESTED)
@pytest.mark.parametrize("other", NESTED)
def test_a_pattern_includes_another_if_it_covers_all_its_hosts(one: str, other: str) -> None:
    wide, narrow = HostPattern.parse(one), HostPattern.parse(other)
    hosts = [Authority.parse(f"{host}:443") for host in INSIDE]

    assert wide.includes(narrow) == all(map(wide.covers, filter(narrow.covers, hosts)))
    assert HostPattern.every().includes(narrow)
    assert not narrow.includes(HostPattern.every())


@given(st.ip_addresses())
def test_an_address_is_a_pattern_unless_it_hides_another(
    address: IPv4Address | IPv6Address,
) -> None:
    if effective(address) == address:
        assert str(HostPattern.parse(text_of(address))) == text_of(address)
    else:
        with pytest.raises(PatternError):
            HostPattern.parse(text_of(address))


@given(anything | st.text(alphabet="/*ab.%", max_size=15), anything | paths)
@example("/*ab*ab*", "/xab")
def test_a_glob_matches_as_the_regular_expression_of_its_meaning(text: str, path: str) -> None:
    try:
        glob = PathGlob.parse(text)
    except PatternError:
        return

    assert glob.matches(path) == (path != "" and bool(as_regex(text).fullmatch(path)))


@given(st.sampled_from(GLOBS), paths)
def test_a_deny_rule_covers_every_path_that_an_allow_rule_of_its_words_covers(
    text: str, path: str
) -> None:
    target = Authority("a.test", 443)
    request = Request(Scheme.HTTPS, target, target, "GET", path)
    narrow = rule("a.test", paths=(text,))

    allowed = Policy((narrow,)).decide_request(request).allowed
    denied = not Policy((rule("a.test"),), (narrow,)).decide_request(request).allowed

    assert allowed <= denied


@given(paths)
def test_a_path_is_ambiguous_exactly_where_the_model_says_so(path: str) -> None:
    target = Authority("a.test", 443)
    policy = Policy((rule("a.test", paths=("/**",)),))

    decision = policy.decide_request(Request(Scheme.HTTPS, target, target, "GET", path))

    assert (decision.reason is Reason.AMBIGUOUS_PATH) == is_ambiguous(path)


# Bytes of any protocol

with_tcp = st.builds(
    Policy,
    st.lists(allow_rules() | tcp_rules, min_size=1, max_size=6).map(tuple),
    st.lists(deny_rules | tcp_denials, max_size=2).map(tuple),
)


@given(policies, targets)
def test_no_other_rule_implies_bytes_of_any_protocol(policy: Policy, target: Authority) -> None:
    assert not policy.decide_connect(target).raw
    assert not policy.decide_raw(target).allowed


@given(with_tcp, targets)
def test_bytes_of_any_protocol_need_a_rule_for_just_that_and_no_denial(
    policy: Policy, target: Authority
) -> None:
    if not policy.decide_raw(target).allowed:
        return

    naming = [
        rule
        for rule in allow_rules_for(policy, target)
        if rule.scheme is RawScheme.TCP and target.port in (rule.ports or ())
    ]
    assert policy.decide_connect(target).rule in naming
    assert target.port not in WEB_PORTS
    denials = deny_rules_for(policy, target)
    assert not any(rule.scheme in {None, RawScheme.TCP} for rule in denials)
    assert not any(rule.limited for rule in denials)


@given(with_tcp, requests())
def test_a_rule_for_tcp_decides_about_no_request(policy: Policy, request: Request) -> None:
    def without(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(rule for rule in rules if rule.scheme is not RawScheme.TCP)

    others = Policy(without(policy.allow), without(policy.deny))

    assert policy.decide_request(request).allowed == others.decide_request(request).allowed


@given(with_tcp, deny_rules | tcp_denials, questions(), targets)
def test_another_denial_never_lets_bytes_through(
    policy: Policy, more: Rule, ask: Ask, target: Authority
) -> None:
    denying = Policy(policy.allow, (*policy.deny, more))

    assert denying.decide_raw(target).allowed <= policy.decide_raw(target).allowed
    assert denying.decide_connect(target).allowed <= policy.decide_connect(target).allowed
    assert ask(denying).allowed <= ask(policy).allowed


@given(with_tcp, questions(), targets)
def test_the_order_of_rules_for_tcp_decides_nothing(
    policy: Policy, ask: Ask, target: Authority
) -> None:
    turned = Policy(policy.allow[::-1], policy.deny[::-1])

    assert ask(turned).allowed == ask(policy).allowed
    assert turned.decide_raw(target).allowed == policy.decide_raw(target).allowed
