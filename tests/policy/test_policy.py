"""Laws of the policy: what is allowed, what is denied, and why."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import FrozenInstanceError, fields, replace
from ipaddress import ip_address, ip_network
from threading import get_ident

import pytest

from claude_proxy.policy.decision import Decision, denied
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, PathGlob, PatternError, PatternKind
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import OVERRIDE_HEADERS, Rule, Tls
from claude_proxy.wire.authority import Authority

NOWHERE = Location("allowlist.yaml", 1, 1)


def rule(
    host: str,
    *,
    scheme: Scheme | None = Scheme.HTTPS,
    ports: Iterable[int] | None = (443,),
    methods: Iterable[str] | None = None,
    paths: Iterable[str] | None = None,
    tls: Tls = Tls.INTERCEPT,
    addresses: Iterable[str] = (),
) -> Rule:
    return Rule(
        HostPattern.parse(host),
        scheme,
        None if ports is None else frozenset(ports),
        None if methods is None else frozenset(methods),
        None if paths is None else tuple(map(PathGlob.parse, paths)),
        tls,
        tuple(map(ip_network, addresses)),
        "",
        NOWHERE,
    )


def deny(
    host: str,
    *,
    scheme: Scheme | None = None,
    ports: Iterable[int] | None = None,
    methods: Iterable[str] | None = None,
    paths: Iterable[str] | None = None,
) -> Rule:
    return rule(host, scheme=scheme, ports=ports, methods=methods, paths=paths)


def http(host: str) -> Rule:
    return rule(host, scheme=Scheme.HTTP, ports=(80,))


def request(
    target: str,
    method: str = "GET",
    path: str = "/",
    *,
    scheme: Scheme = Scheme.HTTPS,
    host: str | None = None,
) -> Request:
    where = Authority.parse(target, default_port=443)
    claimed = where if host is None else Authority.parse(host, default_port=443)
    return Request(scheme, where, claimed, method, path)


def at(target: str) -> Authority:
    return Authority.parse(target, default_port=443)


def denied_for(decision: Decision) -> Reason:
    assert not decision.allowed
    return decision.reason


# Host patterns


@pytest.mark.parametrize(
    ("text", "kind", "canonical"),
    [
        ("example.com", PatternKind.EXACT, "example.com"),
        ("Example.COM.", PatternKind.EXACT, "example.com"),
        ("*.Example.com", PatternKind.SUBDOMAINS, "*.example.com"),
        (".example.com", PatternKind.DOMAIN, ".example.com"),
        ("b\u00fccher.example", PatternKind.EXACT, "xn--bcher-kva.example"),
        ("*.b\u00fccher.example", PatternKind.SUBDOMAINS, "*.xn--bcher-kva.example"),
        ("localhost", PatternKind.EXACT, "localhost"),
        ("_srv.my_host.test", PatternKind.EXACT, "_srv.my_host.test"),
        ("s3.amazonaws.com", PatternKind.EXACT, "s3.amazonaws.com"),
        ("*.amazonaws.com", PatternKind.SUBDOMAINS, "*.amazonaws.com"),
        ("*.internal", PatternKind.SUBDOMAINS, "*.internal"),
        ("192.0.2.1", PatternKind.LITERAL, "192.0.2.1"),
        ("2606:4700::1111", PatternKind.LITERAL, "2606:4700::1111"),
        ("10.0.0.0/8", PatternKind.NETWORK, "10.0.0.0/8"),
        ("192.0.2.1/32", PatternKind.NETWORK, "192.0.2.1/32"),
        ("2606:4700::/32", PatternKind.NETWORK, "2606:4700::/32"),
    ],
)
def test_a_host_pattern_is_read_into_its_canonical_spelling(
    text: str, kind: PatternKind, canonical: str
) -> None:
    pattern = HostPattern.parse(text)

    assert pattern.kind is kind
    assert str(pattern) == canonical
    assert HostPattern.parse(canonical) == pattern


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("", "empty", "name the host"),
        (" ", "empty", "name the host"),
        ("*", "every host", "*.example.com"),
        ("**", "every host", "*.example.com"),
        ("*.*", "every host", "*.example.com"),
        (".", "every host", "*.example.com"),
        ("*.com", "public suffix", "*.example.com"),
        (".co.uk", "public suffix", "*.example.co.uk"),
        ("*.github.io", "public suffix", "*.example.github.io"),
        ("*.nonesuch", "public suffix", "*.example.nonesuch"),
        ("com", "public suffix", "example.com"),
        ("co.uk", "public suffix", "example.co.uk"),
        ("https://example.com", "a scheme", "host alone"),
        ("//example.com", "a path", "paths"),
        ("example.com/v1", "a path", "paths"),
        ("user@example.com", "user info", "host alone"),
        ("example.com:443", "a port", "ports"),
        ("example.com:", "a port", "ports"),
        ("[::1]:443", "a port", "ports"),
        ("[2606:4700::1111]", "in brackets", 'write "2606:4700::1111"'),
        ("^example\\.com$", "characters no name has", "regular expression"),
        (".*\\.example\\.com", "characters no name has", "regular expression"),
        ("(a|b).example.com", "characters no name has", "regular expression"),
        ("[denied.com]", "characters no name has", "regular expression"),
        ("a*.example.com", "a wildcard inside", "whole first label"),
        ("*a.example.com", "a wildcard inside", "whole first label"),
        ("a.*.example.com", "a wildcard inside", "whole first label"),
        ("*.*.example.com", "a wildcard inside", "whole first label"),
        ("**.example.com", "a wildcard inside", "whole first label"),
        ("*.192.0.2.1", "before an address", 'write "192.0.2.1"'),
        (".192.0.2.1", "before an address", 'write "192.0.2.1"'),
        ("..example.com", "an empty label", "URL"),
        ("*..example.com", "an empty label", "URL"),
        ("exa mple.com", "letters, digits", "URL"),
        ("B\u00dcCHER.example", "IDNA", "lower case"),
        ("127.1", "IPv4", "four numbers"),
        ("0x7f.1", "IPv4", "URL"),
        ("2606:4700:0::1111", "canonical", 'write "2606:4700::1111"'),
        ("::FFFF:192.0.2.1", "hexadecimal", 'write "192.0.2.1"'),
        ("::ffff:c000:201", "hides an IPv4 address", 'write "192.0.2.1"'),
        ("2002::/16", "hides an IPv4 address", "IPv4 network"),
        ("10.0.0.1/8", "canonical", 'write "10.0.0.0/8"'),
        ("10.0.0.0/255.0.0.0", "canonical", 'write "10.0.0.0/8"'),
        ("10.0.0.0/08", "canonical", 'write "10.0.0.0/8"'),
        ("10.0.0.0/33", "not a network", "192.0.2.0/24"),
        ("10.0.0/8", "not a network", "192.0.2.0/24"),
        ("0.0.0.0/0", "every address", "networks"),
        ("::/0", "every address", "networks"),
    ],
)
def test_a_host_that_is_no_pattern_is_refused_with_its_fix(text: str, what: str, fix: str) -> None:
    with pytest.raises(PatternError) as caught:
        HostPattern.parse(text)

    assert what in caught.value.what
    assert fix in caught.value.fix
    assert str(caught.value) == f"{caught.value.what}; {caught.value.fix}"


# Path globs


@pytest.mark.parametrize(
    ("glob", "path"),
    [
        ("/", "/"),
        ("/**", "/"),
        ("/**", "/a"),
        ("/**", "/a/b/"),
        ("/v1/messages", "/v1/messages"),
        ("/v1/", "/v1/"),
        ("/v1/**", "/v1"),
        ("/v1/**", "/v1/"),
        ("/v1/**", "/v1/messages/count_tokens"),
        ("/*", "/a"),
        ("/*/", "/a/"),
        ("/*/*", "/a/b"),
        ("/*/**", "/a"),
        ("/*/**", "/a/b/c"),
        ("/*/*.git/info/refs", "/owner/repo.git/info/refs"),
        ("/*/*.git/info/refs", "/owner/.git/info/refs"),
        ("/v*/x", "/v/x"),
        ("/v*/x", "/v12/x"),
        ("/a*b*c", "/abc"),
        ("/a*b*c", "/aXbbXcc"),
        ("/*-*", "/-"),
        ("/*ab*ab*", "/abab"),
        ("/%40scope/*", "/%40scope/x"),
        ("/@scope/*", "/@scope/x"),
        ("/a%20b", "/a%20b"),
    ],
)
def test_a_glob_covers_these_paths(glob: str, path: str) -> None:
    assert PathGlob.parse(glob).matches(path)


@pytest.mark.parametrize(
    ("glob", "path"),
    [
        ("/", ""),
        ("/**", ""),
        ("/**", "*"),
        ("/", "/a"),
        ("/v1/messages", "/v1/messages/"),
        ("/v1/messages", "/V1/messages"),
        ("/v1/messages", "/v1/messagesX"),
        ("/v1/**", "/v10"),
        ("/v1/**", "/v1x/y"),
        ("/*", "/"),
        ("/*", "/a/"),
        ("/*", "/a/b"),
        ("/*/*", "/a/"),
        ("/*/*", "//b"),
        ("/*/**", "/"),
        ("/a/*/**", "/a"),
        ("/*.git", "/a/b.git"),
        ("/*.git", "/a.gitx"),
        ("/a*a", "/a"),
        ("/a*b*c", "/acb"),
        ("/a*bc*c", "/abc"),
        ("/*ab*ab*", "/xabx"),
        ("/*aba*aba*", "/ababa"),
        ("/%40scope/*", "/@scope/x"),
        ("/@scope/*", "/%40scope/x"),
        ("/a%2bb", "/a%2Bb"),
    ],
)
def test_a_glob_does_not_cover_these_paths(glob: str, path: str) -> None:
    assert not PathGlob.parse(glob).matches(path)


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("", "slash", "/v1/*"),
        ("v1", "slash", "/v1/*"),
        ("*", "slash", "/v1/*"),
        ("/**/x", "**", "only at the end"),
        ("/a**", "**", "only at the end"),
        ("/***", "**", "only at the end"),
        ("/**/**", "**", "only at the end"),
        ("/a|b", '"|"', "regular expression"),
        ("/[0-9]", '"["', "regular expression"),
        ("/^x", '"^"', "regular expression"),
        ("//a", '"//"', "always denied"),
        ("/a/../b", '"/.."', "always denied"),
        ("/a/.", '"/."', "always denied"),
        ("/a;b", '";"', "always denied"),
        ("/a\\b", '"\\\\"', "always denied"),
        ("/a?b=c", '"?"', "always denied"),
        ("/a%2fb", '"%2f"', "always denied"),
        ("/%61", '"%61"', "always denied"),
        ("/%zz", '"%"', "always denied"),
        ("/a b", '" "', 'write "/a%20b"'),
        ("/b\u00fccher/*", '"\u00fc"', 'write "/b%C3%BCcher/*"'),
        ("/a\0", '"\\x00"', "always denied"),
    ],
)
def test_a_path_that_is_no_glob_is_refused_with_its_fix(text: str, what: str, fix: str) -> None:
    with pytest.raises(PatternError) as caught:
        PathGlob.parse(text)

    assert what in caught.value.what
    assert fix in caught.value.fix


def test_a_glob_prints_as_it_was_written() -> None:
    assert str(PathGlob.parse("/a/*.git/**")) == "/a/*.git/**"


# Rules


@pytest.mark.parametrize(
    "fault",
    [
        {"ports": frozenset()},
        {"methods": frozenset()},
        {"paths": ()},
        {"ports": frozenset({0})},
        {"ports": frozenset({443, 65536})},
        {"methods": frozenset({"GET", "get"})},
        {"methods": frozenset({"GET POST"})},
        {"tls": Tls.PASSTHROUGH, "methods": frozenset({"GET"})},
        {"tls": Tls.PASSTHROUGH, "paths": (PathGlob("/"),)},
        {"tls": Tls.PASSTHROUGH, "scheme": Scheme.HTTP},
        {"tls": Tls.PASSTHROUGH, "scheme": None},
    ],
)
def test_a_rule_that_cannot_be_kept_cannot_exist(fault: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"the rule for example\.com"):
        replace(rule("example.com"), **fault)  # type: ignore[arg-type]


def test_a_rule_tells_its_whole_content_in_one_line() -> None:
    full = rule(
        "*.example.com",
        ports=(8443, 443),
        methods=("GET", "HEAD"),
        paths=("/a/**",),
        addresses=("10.0.0.0/8",),
    )

    assert str(full) == (
        "https://*.example.com ports 443,8443 methods GET,HEAD paths /a/** addresses 10.0.0.0/8"
    )
    assert str(rule("a.test", tls=Tls.PASSTHROUGH)) == "https://a.test ports 443 passthrough"
    assert str(deny("a.test")) == "a.test"


def test_a_source_tells_file_or_preset_and_line() -> None:
    assert str(Location("allowlist.yaml", 12, 3)) == "allowlist.yaml:12"
    assert str(Location("github.yaml", 3, 1, preset="github")) == "preset github:3"


# Connections


def test_an_empty_policy_allows_nothing() -> None:
    policy = Policy()

    assert denied_for(policy.decide_connect(at("example.com"))) is Reason.NO_RULE
    assert denied_for(policy.decide_request(request("example.com"))) is Reason.NO_RULE
    assert (
        denied_for(policy.decide_hello(at("a.test"), "a.test", encrypted=False)) is Reason.NO_RULE
    )
    assert (
        denied_for(policy.decide_address(at("example.com"), ip_address("8.8.8.8")))
        is Reason.NO_RULE
    )
    assert denied_for(policy.decide_connect(at("192.0.2.1"))) is Reason.NO_RULE


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("anthropic.com", "anthropic.com"),
        ("anthropic.com", "Anthropic.COM."),
        ("*.anthropic.com", "api.anthropic.com"),
        ("*.anthropic.com", "a.b.c.anthropic.com"),
        (".anthropic.com", "anthropic.com"),
        (".anthropic.com", "a.b.anthropic.com"),
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.0/24", "192.0.2.77"),
        ("2606:4700::1111", "[2606:4700::1111]"),
        ("2606:4700::/32", "[2606:4700::1]"),
    ],
)
def test_a_pattern_covers_these_hosts(pattern: str, host: str) -> None:
    decision = Policy((rule(pattern),)).decide_connect(at(host))

    assert decision.allowed
    assert decision.rule is not None
    assert decision.rule.name == pattern


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("anthropic.com", "api.anthropic.com"),
        ("anthropic.com", "evilanthropic.com"),
        ("anthropic.com", "anthropic.com.evil.com"),
        ("anthropic.com", "anthropic.co"),
        ("anthropic.com", "com"),
        ("*.anthropic.com", "anthropic.com"),
        ("*.anthropic.com", "evilanthropic.com"),
        ("*.anthropic.com", "api.anthropic.com.evil.com"),
        (".anthropic.com", "evilanthropic.com"),
        (".anthropic.com", "anthropic.com.evil.com"),
        (".anthropic.com", "xn--anthropic-com.evil.com".removeprefix("xn--")),
        ("192.0.2.1", "192.0.2.10"),
        ("192.0.2.1", "[::ffff:c000:201]"),
        ("192.0.2.1", "[64:ff9b::c000:201]"),
        ("192.0.2.0/24", "192.0.3.1"),
        ("192.0.2.1", "192.0.2.1.evil.com"),
        ("2606:4700::/32", "[2606:4701::1]"),
        ("2000::/3", "[2002:808:808::1]"),
    ],
)
def test_a_pattern_does_not_cover_these_hosts(pattern: str, host: str) -> None:
    policy = Policy((rule(pattern),))

    assert denied_for(policy.decide_connect(at(host))) is Reason.NO_RULE


def test_only_the_ports_of_a_rule_are_allowed() -> None:
    policy = Policy((rule("example.com", ports=(443, 8443)),))

    assert policy.decide_connect(at("example.com:8443")).allowed
    for port in (22, 80, 444, 65535):
        target = at(f"example.com:{port}")
        assert denied_for(policy.decide_connect(target)) is Reason.PORT_NOT_ALLOWED
        assert denied_for(policy.decide_request(request(str(target)))) is Reason.PORT_NOT_ALLOWED


def test_a_port_that_no_rule_names_is_like_no_port_that_one_does() -> None:
    ends = Policy((rule("example.com", ports=(1, 65535)),), (deny("example.com", ports=(2,)),))

    assert denied_for(ends.decide_connect(at("example.com:3"))) is Reason.PORT_NOT_ALLOWED
    assert denied_for(ends.decide_connect(at("example.com:2"))) is Reason.DENY_RULE
    assert ends.decide_connect(at("example.com:1")).allowed


def test_a_tunnel_says_what_may_be_spoken_in_it() -> None:
    policy = Policy((rule("a.test"), http("a.test"), rule("b.test", scheme=Scheme.HTTP)))

    secure = policy.decide_connect(at("a.test:443"))
    plain = policy.decide_connect(at("a.test:80"))
    odd = policy.decide_connect(at("b.test:443"))

    assert (secure.secure, secure.plain, secure.tls) == (True, False, Tls.INTERCEPT)
    assert (plain.secure, plain.plain, plain.tls) == (False, True, None)
    assert (odd.secure, odd.plain, odd.tls) == (False, True, None)


def test_a_host_is_allowed_if_any_of_its_rules_allows() -> None:
    policy = Policy(
        (
            rule("api.example.com", ports=(8443,)),
            rule("*.example.com", methods=("GET",)),
            rule(".example.com", ports=(9443,)),
        )
    )

    for target in ("api.example.com:8443", "api.example.com:443", "api.example.com:9443"):
        assert policy.decide_connect(at(target)).allowed


def test_a_network_inherits_from_every_wider_one() -> None:
    policy = Policy(
        (
            rule("10.1.0.1", ports=(1001,)),
            rule("10.1.0.0/31", ports=(1002,)),
            rule("10.0.0.0/9", ports=(1003,)),
            rule("10.0.0.0/8", ports=(1004,)),
            rule("2606:4700::1", ports=(1001,)),
            rule("2606:4700::/127", ports=(1002,)),
            rule("2606:4700::/32", ports=(1003,)),
        )
    )

    for target in ("10.1.0.1", "[2606:4700::1]"):
        for port in (1001, 1002, 1003):
            assert policy.decide_connect(at(f"{target}:{port}")).allowed
    assert policy.decide_connect(at("10.1.0.1:1004")).allowed
    assert not policy.decide_connect(at("10.128.0.1:1003")).allowed
    assert not policy.decide_connect(at("10.1.0.0:1001")).allowed


def test_a_deny_rule_wins_over_every_allow_rule() -> None:
    policy = Policy((rule(".example.com"), rule("evil.example.com")), (deny("evil.example.com"),))

    decision = policy.decide_connect(at("evil.example.com"))

    assert denied_for(decision) is Reason.DENY_RULE
    assert decision.rule is policy.deny[0]
    assert denied_for(policy.decide_request(request("evil.example.com"))) is Reason.DENY_RULE
    assert policy.decide_connect(at("x.evil.example.com")).allowed


def test_a_deny_rule_covers_subdomains_networks_and_ports_as_an_allow_rule_does() -> None:
    policy = Policy(
        (rule(".example.com", ports=(443, 8443)), rule("10.0.0.0/8")),
        (deny("*.bad.example.com"), deny("example.com", ports=(8443,)), deny("10.1.0.0/16")),
    )

    assert policy.decide_connect(at("bad.example.com")).allowed
    assert policy.decide_connect(at("example.com")).allowed
    assert policy.decide_connect(at("10.2.0.1")).allowed
    for target in ("a.b.bad.example.com", "example.com:8443", "10.1.2.3"):
        assert denied_for(policy.decide_connect(at(target))) is Reason.DENY_RULE


def test_a_deny_rule_for_one_scheme_leaves_the_other() -> None:
    both = (rule("a.test"), rule("a.test", scheme=Scheme.HTTP))
    policy = Policy(both, (deny("a.test", scheme=Scheme.HTTP),))

    tunnel = policy.decide_connect(at("a.test"))

    assert (tunnel.allowed, tunnel.secure, tunnel.plain) == (True, True, False)
    assert policy.decide_request(request("a.test")).allowed
    plain = policy.decide_request(request("a.test", scheme=Scheme.HTTP))
    assert denied_for(plain) is Reason.DENY_RULE


def test_a_deny_rule_names_itself_even_where_nothing_was_allowed() -> None:
    policy = Policy((), (deny("evil.test"),))

    assert denied_for(policy.decide_connect(at("evil.test"))) is Reason.DENY_RULE
    assert denied_for(policy.decide_request(request("evil.test"))) is Reason.DENY_RULE


def test_a_deny_rule_on_requests_does_not_deny_the_tunnel() -> None:
    policy = Policy((rule("a.test"),), (deny("a.test", methods=("DELETE",)),))

    assert policy.decide_connect(at("a.test")).allowed


def test_passthrough_is_granted_by_any_rule_that_says_so() -> None:
    policy = Policy((rule(".a.test"), rule("x.a.test", tls=Tls.PASSTHROUGH)))

    decision = policy.decide_connect(at("x.a.test"))

    assert decision.tls is Tls.PASSTHROUGH
    assert decision.rule is policy.allow[1]
    assert policy.decide_connect(at("y.a.test")).tls is Tls.INTERCEPT


def test_passthrough_gives_way_to_a_deny_rule_that_must_see_requests() -> None:
    passing = (rule("a.test", tls=Tls.PASSTHROUGH),)

    seen = Policy(passing, (deny("a.test", paths=("/secret/**",)),))
    elsewhere = Policy(passing, (deny("a.test", methods=("PUT",), ports=(8443,)),))

    assert seen.decide_connect(at("a.test")).tls is Tls.INTERCEPT
    assert elsewhere.decide_connect(at("a.test")).tls is Tls.PASSTHROUGH


# Requests


def test_a_request_must_claim_the_host_that_it_goes_to() -> None:
    policy = Policy((rule("a.test", ports=(443, 8443)), rule("b.test")))

    for host in ("b.test", "a.test:8443", "evil.test", "sub.a.test", "192.0.2.1"):
        decision = policy.decide_request(request("a.test", host=host))
        assert denied_for(decision) is Reason.HOST_MISMATCH
    assert policy.decide_request(request("a.test", host="A.TEST.:443")).allowed


def test_a_scheme_that_no_rule_names_is_denied() -> None:
    policy = Policy((rule("a.test"), http("b.test")))

    plain = policy.decide_request(request("a.test:443", scheme=Scheme.HTTP))
    secure = policy.decide_request(request("b.test:80"))

    assert denied_for(plain) is Reason.SCHEME_NOT_ALLOWED
    assert denied_for(secure) is Reason.SCHEME_NOT_ALLOWED


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PROPFIND", "M-SEARCH", "QUERY"])
def test_a_rule_without_methods_allows_every_method(method: str) -> None:
    assert Policy((rule("a.test"),)).decide_request(request("a.test", method)).allowed


@pytest.mark.parametrize(
    "method", ["TRACE", "CONNECT", "TRACK", "trace", "Connect", "", "GET ", "G\u00cbT", "GET\r\nX"]
)
def test_some_methods_are_refused_whatever_the_rules(method: str) -> None:
    policy = Policy((rule("a.test"),))

    assert denied_for(policy.decide_request(request("a.test", method))) is Reason.METHOD_REFUSED


@pytest.mark.parametrize("method", ["POST", "get", "Get", "GETX"])
def test_methods_are_compared_as_sent(method: str) -> None:
    policy = Policy((rule("a.test", methods=("GET", "HEAD")),))

    decision = policy.decide_request(request("a.test", method))

    assert denied_for(decision) is Reason.METHOD_NOT_ALLOWED
    assert policy.decide_request(request("a.test", "HEAD")).allowed


def test_the_reason_is_that_of_the_rule_which_came_nearest() -> None:
    policy = Policy(
        (
            rule("a.test", methods=("GET",), paths=("/a/**",)),
            rule("a.test", methods=("POST",), paths=("/b",)),
            rule("a.test", methods=("PUT",)),
        )
    )

    def reason(method: str, path: str) -> Reason:
        return denied_for(policy.decide_request(request("a.test", method, path)))

    assert reason("GET", "/b") is Reason.PATH_NOT_ALLOWED
    assert reason("DELETE", "/a/x") is Reason.METHOD_NOT_ALLOWED
    assert reason("GET", "/a/../b") is Reason.AMBIGUOUS_PATH
    assert reason("OPTIONS", "*") is Reason.METHOD_NOT_ALLOWED
    assert policy.decide_request(request("a.test", "POST", "/b")).rule is policy.allow[1]


AMBIGUOUS = [
    "",
    "a",
    "http://evil/",
    "//",
    "/a//b",
    "/a/..",
    "/a/../b",
    "/a/./b",
    "/a/.",
    "/a/%2e%2e/b",
    "/a/%2E./b",
    "/a/.%2e/b",
    "/a/%252e%252e/b",
    "/a/%2fb",
    "/a/%2Fb",
    "/a/%5cb",
    "/a/%5C..%5Cb",
    "/a/\\..\\b",
    "/a/b;x=y",
    "/a/..;/b",
    "/a/%3bx",
    "/a/b?x",
    "/a/b#x",
    "/a/%3fx",
    "/a/%23x",
    "/a/%00",
    "/a/\0",
    "/a/%0d%0aX",
    "/a/\r\nX",
    "/a/%7f",
    "/a/ b",
    "/a/%",
    "/a/%2",
    "/a/%zz",
    "/a/%u002e%u002e/b",
    "/a/%c0%ae%c0%ae/b",
    "/a/%C0%AF",
    "/a/%e0%80%ae/b",
    "/a/%f0%80%80%ae/b",
    "/a/%ef%bc%8e%ef%bc%8e/b",
    "/a/\uff0e\uff0e/b",
    "/a/\u00e9",
    "/a/\udc80",
    "/%61/b",
    "/a/%41%7A",
    "/a/%2d%5f%7e%30",
]


@pytest.mark.parametrize("path", AMBIGUOUS)
def test_an_ambiguous_path_is_denied_where_paths_are_restricted(path: str) -> None:
    allowing = Policy((rule("a.test", paths=("/**", "/a/**")),))
    denying = Policy((rule("a.test"),), (deny("a.test", paths=("/secret",)),))

    for policy in (allowing, denying):
        decision = policy.decide_request(request("a.test", path=path))
        assert denied_for(decision) is Reason.AMBIGUOUS_PATH


@pytest.mark.parametrize("path", ["/@scope%2fname", *AMBIGUOUS])
def test_any_path_passes_where_none_is_restricted(path: str) -> None:
    policy = Policy((rule("a.test"), rule("a.test", methods=("GET",))))

    assert policy.decide_request(request("a.test", path=path)).allowed


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/a/",
        "/a/b.c/..d/e../...",
        "/.well-known/x",
        "/@scope/name",
        "/a%20b/%C3%A9",
        "/a+b,c=d&e:f(g)h'i!j$k*l~m",
        "/%40scope/%5Bx%5D/%E6%96%87%EF%BC%8C",
        "/a|b",
    ],
)
def test_an_ordinary_path_is_not_ambiguous(path: str) -> None:
    policy = Policy((rule("a.test", paths=("/**",)),))

    assert policy.decide_request(request("a.test", path=path)).allowed


def test_an_ambiguous_path_passes_under_a_rule_without_paths_for_its_method() -> None:
    policy = Policy((rule("a.test", methods=("GET",)), rule("a.test", paths=("/x",))))

    assert policy.decide_request(request("a.test", "GET", "/a/../b")).allowed
    decision = policy.decide_request(request("a.test", "POST", "/a/../b"))
    assert denied_for(decision) is Reason.AMBIGUOUS_PATH


def test_the_asterisk_of_options_is_a_path_of_its_own() -> None:
    restricted = Policy((rule("a.test", paths=("/**",)),))
    other = Policy((rule("a.test"),), (deny("a.test", paths=("/secret",)),))

    decision = restricted.decide_request(request("a.test", "OPTIONS", "*"))

    assert denied_for(decision) is Reason.PATH_NOT_ALLOWED
    assert other.decide_request(request("a.test", "OPTIONS", "*")).allowed


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/admin/users"),
        ("POST", "/admin"),
        ("post", "/admin/users"),
        ("POST", "/ADMIN/users"),
        ("POST", "/admin/%40x"),
        ("POST", "/%40scope/x"),
        ("POST", "/@Scope/x"),
        ("POST", "/x%2Ay"),
        ("POST", "/x*y"),
    ],
)
def test_a_deny_rule_cannot_be_outspelled(method: str, path: str) -> None:
    rules = ("/admin/**", "/@scope/*", "/x%2ay")
    policy = Policy((rule("a.test"),), (deny("a.test", methods=("POST",), paths=rules),))

    assert denied_for(policy.decide_request(request("a.test", method, path))) is Reason.DENY_RULE


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/admin"), ("POST", "/administrator"), ("POST", "/xzy"), ("POST", "/@scope/x/y")],
)
def test_a_deny_rule_denies_no_more_than_it_says(method: str, path: str) -> None:
    rules = ("/admin/**", "/@scope/*", "/x%2ay")
    policy = Policy((rule("a.test"),), (deny("a.test", methods=("POST",), paths=rules),))

    assert policy.decide_request(request("a.test", method, path)).allowed


def test_a_request_is_restricted_where_limits_are_in_force() -> None:
    limited = rule("a.test", methods=("GET",))
    policy = Policy(
        (limited, rule("b.test"), rule("b.test", methods=("GET",)), rule("c.test")),
        (deny("c.test", methods=("DELETE",)), deny("b.test", paths=("/x",), ports=(8443,))),
    )

    assert policy.decide_request(request("a.test")).restricted
    assert not policy.decide_request(request("b.test")).restricted
    assert policy.decide_request(request("c.test")).restricted


def test_override_headers_are_named_in_lower_case() -> None:
    assert {b"x-http-method-override", b"x-original-url", b"x-rewrite-url"} <= OVERRIDE_HEADERS
    assert all(name == name.lower() for name in OVERRIDE_HEADERS)


# TLS


def test_the_sni_must_be_the_target() -> None:
    policy = Policy((rule(".a.test"),))

    def hello(sni: str | None) -> Decision:
        return policy.decide_hello(at("a.test"), sni, encrypted=False)

    assert hello("a.test").allowed
    assert hello("A.Test").allowed
    for sni in ("b.a.test", "evil.test", "a.test.", "", "a.test:443", "a.test\0.evil", "192.0.2.1"):
        assert denied_for(hello(sni)) is Reason.SNI_MISMATCH
    assert denied_for(hello(None)) is Reason.SNI_MISSING


def test_a_letter_that_folds_to_ascii_is_no_match_for_it() -> None:
    policy = Policy((rule("kernel.test"),))

    decision = policy.decide_hello(at("kernel.test"), "\u212aernel.test", encrypted=False)

    assert denied_for(decision) is Reason.SNI_MISMATCH


def test_an_address_is_dialled_without_sni_or_not_at_all() -> None:
    policy = Policy((rule("192.0.2.1"),))

    assert policy.decide_hello(at("192.0.2.1"), None, encrypted=False).allowed
    for sni in ("192.0.2.1", "a.test"):
        decision = policy.decide_hello(at("192.0.2.1"), sni, encrypted=False)
        assert denied_for(decision) is Reason.SNI_MISMATCH


def test_an_encrypted_hello_is_denied() -> None:
    policy = Policy((rule("a.test"),))

    decision = policy.decide_hello(at("a.test"), "a.test", encrypted=True)

    assert denied_for(decision) is Reason.ENCRYPTED_HELLO


def test_tls_is_denied_where_only_plain_http_is_allowed() -> None:
    policy = Policy((http("a.test"),))

    decision = policy.decide_hello(at("a.test:80"), "a.test", encrypted=False)

    assert denied_for(decision) is Reason.SCHEME_NOT_ALLOWED


def test_an_accepted_hello_keeps_what_the_tunnel_was_granted() -> None:
    policy = Policy((rule("a.test", tls=Tls.PASSTHROUGH),))

    assert policy.decide_hello(at("a.test"), "a.test", encrypted=False).tls is Tls.PASSTHROUGH


# Addresses


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_a_name_may_lead_to_a_public_address(address: str) -> None:
    policy = Policy((rule("a.test"),))

    assert policy.decide_address(at("a.test"), ip_address(address)).allowed


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "0.0.0.0",
        "224.0.0.1",
        "192.0.2.1",
        "100.64.0.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_a_name_may_not_lead_to_an_address_that_is_not_public(address: str) -> None:
    policy = Policy((rule("a.test"),))

    decision = policy.decide_address(at("a.test"), ip_address(address))

    assert denied_for(decision) is Reason.ADDRESS_NOT_ALLOWED


def test_a_rule_may_name_the_addresses_of_its_host() -> None:
    policy = Policy(
        (
            rule("a.test", addresses=("10.0.0.0/8", "fd00::/8")),
            rule("a.test", ports=(8443,), addresses=("192.168.0.0/16",)),
            rule("b.test"),
        )
    )

    def decide(target: str, address: str) -> bool:
        return policy.decide_address(at(target), ip_address(address)).allowed

    assert decide("a.test", "10.1.2.3")
    assert decide("a.test", "::ffff:10.1.2.3")
    assert decide("a.test", "fd00::1")
    assert decide("a.test", "8.8.8.8")
    assert not decide("a.test", "192.168.0.1")
    assert not decide("a.test", "127.0.0.1")
    assert not decide("b.test", "10.1.2.3")
    assert not decide("a.test:22", "10.1.2.3")


def test_a_network_that_merely_holds_a_metadata_service_does_not_name_it() -> None:
    wide = rule("a.test", addresses=("169.254.0.0/16", "fd00::/8"))
    exact = rule("b.test", addresses=("169.254.169.254/32", "fd00:ec2::254/128"))
    policy = Policy((wide, exact, rule("169.254.0.0/16"), rule("168.63.129.16")))

    for text in ("169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254"):
        address = ip_address(text)
        assert not policy.decide_address(at("a.test"), address).allowed
        assert policy.decide_address(at("b.test"), address).allowed
    assert policy.decide_address(at("a.test"), ip_address("169.254.1.1")).allowed
    assert denied_for(policy.decide_connect(at("169.254.169.254"))) is Reason.NO_RULE
    assert policy.decide_connect(at("169.254.1.1")).allowed
    assert policy.decide_connect(at("168.63.129.16")).allowed


def test_a_literal_target_leads_to_itself_alone() -> None:
    policy = Policy((rule("127.0.0.1"), rule("10.0.0.0/8")))

    assert policy.decide_address(at("127.0.0.1"), ip_address("127.0.0.1")).allowed
    assert policy.decide_address(at("10.1.2.3"), ip_address("10.1.2.3")).allowed
    decision = policy.decide_address(at("127.0.0.1"), ip_address("8.8.8.8"))
    assert denied_for(decision) is Reason.ADDRESS_NOT_ALLOWED


def test_a_denied_network_may_not_be_reached_by_name_either() -> None:
    policy = Policy(
        (rule("a.test", ports=(443, 8443), addresses=("10.0.0.0/8",)), rule("8.0.0.0/8")),
        (deny("8.8.0.0/16"), deny("10.9.9.9", ports=(8443,)), deny("9.9.9.9", methods=("PUT",))),
    )

    def decide(target: str, address: str) -> Decision:
        return policy.decide_address(at(target), ip_address(address))

    for address in ("8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert denied_for(decide("a.test", address)) is Reason.DENY_RULE
    assert denied_for(decide("a.test:8443", "10.9.9.9")) is Reason.DENY_RULE
    assert decide("a.test", "10.9.9.9").allowed
    assert decide("a.test", "8.7.0.1").allowed
    assert decide("a.test", "9.9.9.9").allowed


@pytest.mark.parametrize("scheme", [None, *Scheme])
def test_a_network_denied_for_one_scheme_is_denied_to_names_for_both(scheme: Scheme | None) -> None:
    policy = Policy((rule("a.test"), http("b.test")), (deny("8.8.8.8", scheme=scheme),))

    for target in ("a.test:443", "b.test:80"):
        decision = policy.decide_address(at(target), ip_address("8.8.8.8"))
        assert denied_for(decision) is Reason.DENY_RULE


def test_an_ipv4_address_in_disguise_is_denied_with_the_rule_that_denies_it() -> None:
    policy = Policy((rule("10.0.0.0/8"),), (deny("10.0.0.1"),))

    assert denied_for(policy.decide_connect(at("[::ffff:a00:1]"))) is Reason.DENY_RULE
    assert denied_for(policy.decide_connect(at("[::ffff:a00:2]"))) is Reason.NO_RULE


# The policy as a whole


def test_a_decision_has_no_truth_value() -> None:
    with pytest.raises(TypeError, match="allowed"):
        bool(denied(Reason.NO_RULE))


def test_what_was_decided_on_cannot_be_changed_afterwards() -> None:
    policy = Policy((rule("a.test", paths=("/a",)),))
    decision = policy.decide_connect(at("a.test"))
    rules = policy.allow[0]
    asked = request("a.test")

    for value in (policy, decision, rules, rules.pattern, rules.source, PathGlob("/a"), asked):
        name = fields(value)[0].name
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


def test_policies_compare_and_show_their_rules_alone() -> None:
    one, two = Policy((rule("a.test"),)), Policy((rule("a.test"),))
    one.decide_connect(at("a.test"))

    assert one == two
    assert one != Policy((rule("b.test"),))
    assert repr(one) == f"Policy(allow={one.allow!r}, deny=(), credentials=(), restrictions=())"
    assert repr(PathGlob("/a")) == "PathGlob(text='/a')"


def test_a_policy_counts_and_lists_what_it_holds() -> None:
    policy = Policy((rule("*.b.test"), rule("a.test"), http("a.test")), (deny("x.b.test"),))

    assert policy.rules_count == 4
    assert list(policy.hosts()) == ["*.b.test", "a.test"]


def test_a_diff_tells_what_a_new_policy_adds_and_removes() -> None:
    old = Policy((rule("a.test"), rule("b.test")), (deny("c.test"),))
    moved = replace(rule("a.test"), source=Location("other.yaml", 9, 9), note="new")
    new = Policy((moved, rule("b.test", methods=("GET",))), (deny("d.test"),))

    added, removed = old.diff(new)

    assert added == ("https://b.test ports 443 methods GET", "deny d.test")
    assert removed == ("https://b.test ports 443", "deny c.test")
    assert old.diff(old) == ((), ())


def lines_run(act: Callable[[], object]) -> int:
    """Count the lines of Python that `act` runs: work that does not depend on the machine."""
    monitoring = sys.monitoring
    tool = next(number for number in (3, 4) if monitoring.get_tool(number) is None)
    counted, here = [], get_ident()

    def count(*where: object) -> None:
        if get_ident() == here:  # other tests may have left a thread behind, which ends by itself
            counted.append(where)

    monitoring.use_tool_id(tool, "lines_run")
    try:
        monitoring.register_callback(tool, monitoring.events.LINE, count)
        monitoring.set_events(tool, monitoring.events.LINE)
        act()
        monitoring.set_events(tool, monitoring.events.NO_EVENTS)
    finally:
        monitoring.free_tool_id(tool)
    return len(counted)


def crowd(count: int) -> Policy:
    """Return a policy of `count` hosts and a fixed set of rules that the questions meet."""
    template = rule("template.test")
    exact = (HostPattern(PatternKind.EXACT, f"h{number}.crowd.test") for number in range(count))
    wide = (
        HostPattern(PatternKind.DOMAIN, f"w{number}.crowd.test") for number in range(count // 9)
    )
    nets = (f"11.{number // 250}.{number % 250}.0/24" for number in range(count // 99))
    fixed = (rule("a.met.test"), rule("*.met.test", methods=("GET",)), rule("10.0.0.0/8"))
    return Policy(
        (
            *fixed,
            *(replace(template, pattern=pattern) for pattern in exact),
            *(replace(template, pattern=pattern) for pattern in wide),
            *(replace(template, pattern=HostPattern.parse(net)) for net in nets),
        ),
        (deny("no.met.test"), deny("10.1.0.0/16")),
    )


def test_a_hundred_thousand_hosts_are_looked_up_with_the_work_of_a_hundred() -> None:
    few, many = crowd(100), crowd(100_000)
    assert many.decide_connect(at("h99999.crowd.test")).allowed
    assert many.decide_connect(at("deep.below.w11110.crowd.test")).allowed

    targets = (
        *("a.met.test", "x.y.met.test", "no.met.test", "h7.crowd.test", "x.y.w7.crowd.test"),
        *("a.b.c.d.e.evil.test", "hnone.crowd.test", "a.met.test:22"),
        *("10.2.3.4", "10.1.2.3", "11.0.0.1", "203.0.113.1", "[2606:4700::1]"),
    )
    for text in targets:
        target, address = at(text), ip_address("10.1.0.1")
        asked = Request(Scheme.HTTPS, target, target, "GET", "/a/b")
        work = []
        for policy in (few, many):
            policy.decide_connect(target)  # what is made once a host is made before counting
            policy.decide_address(target, address)
            work.append(
                (
                    lines_run(lambda: policy.decide_connect(target)),  # noqa: B023 - called at once
                    lines_run(lambda: policy.decide_request(asked)),  # noqa: B023
                    lines_run(lambda: policy.decide_address(target, address)),  # noqa: B023
                )
            )
        assert work[0] == work[1]
        assert max(work[0]) < 200


def test_a_client_that_tries_every_port_leaves_nothing_behind() -> None:
    policy = Policy((rule(".a.test"),))
    policy.decide_connect(at("a.test:1"))
    rules = policy._rules.find(at("a.test:1"))
    assert rules is not None

    for port in range(1, 2000):
        policy.decide_connect(at(f"a.test:{port}"))

    assert len(rules._by_port) == 2


def test_a_glob_with_many_stars_is_matched_without_trying_again() -> None:
    glob = PathGlob.parse("/" + "*a" * 30)
    path = "/" + "a" * 5000 + "b"

    work = lines_run(lambda: glob.matches(path))

    assert not glob.matches(path)
    assert work < 500
