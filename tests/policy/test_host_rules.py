"""Laws of one host's rules: any allow rule allows, and a deny rule always wins."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import RawScheme, Rule, Tls
from tests.policy.cases import AMBIGUOUS, at, denied_for, deny, http, request, rule


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


def test_a_deny_rule_with_limits_replaces_passthrough_by_interception() -> None:
    passing = (rule("a.test", tls=Tls.PASSTHROUGH),)

    seen = Policy(passing, (deny("a.test", paths=("/secret/**",)),))
    elsewhere = Policy(passing, (deny("a.test", methods=("PUT",), ports=(8443,)),))

    assert seen.decide_connect(at("a.test")).tls is Tls.INTERCEPT
    assert elsewhere.decide_connect(at("a.test")).tls is Tls.PASSTHROUGH


def test_a_scheme_that_no_rule_names_is_denied() -> None:
    policy = Policy((rule("a.test"), http("b.test")))

    plain = policy.decide_request(request("a.test:443", scheme=Scheme.HTTP))
    secure = policy.decide_request(request("b.test:80"))

    assert denied_for(plain) is Reason.SCHEME_NOT_ALLOWED
    assert denied_for(secure) is Reason.SCHEME_NOT_ALLOWED


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PROPFIND", "M-SEARCH", "QUERY"])
def test_a_rule_without_methods_allows_every_method(method: str) -> None:
    assert Policy((rule("a.test"),)).decide_request(request("a.test", method)).allowed


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
def test_another_spelling_does_not_bypass_a_deny_rule(method: str, path: str) -> None:
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


PUSH = "service=git-receive-pack"


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (Policy((rule("git.test", methods=("GET", "HEAD")),)), Reason.METHOD_NOT_ALLOWED),
        (Policy((rule("git.test", paths=("/*/*/info/refs",)),)), Reason.PATH_NOT_ALLOWED),
        (
            Policy((rule("git.test"),), (deny("git.test", paths=("/*/*/git-receive-pack",)),)),
            Reason.DENY_RULE,
        ),
    ],
)
def test_a_push_that_would_be_denied_is_denied_where_it_begins(
    policy: Policy, reason: Reason
) -> None:
    first = request("git.test", path="/o/r.git/info/refs")

    assert denied_for(policy.decide_request(replace(first, query=PUSH))) is reason
    assert policy.decide_request(replace(first, query="service=git-upload-pack")).allowed


def test_a_push_begins_where_it_is_allowed() -> None:
    policy = Policy(
        (
            rule("git.test", methods=("GET",)),
            rule("git.test", methods=("POST",), paths=("/o/r.git/git-receive-pack",)),
        )
    )

    def first_of(repository: str) -> Request:
        return replace(request("git.test", path=f"{repository}/info/refs"), query=PUSH)

    assert policy.decide_request(first_of("/o/r.git")).allowed
    assert not policy.decide_request(first_of("/o/other.git")).allowed


def test_a_push_that_is_allowed_does_not_allow_its_first_request() -> None:
    policy = Policy((rule("git.test", methods=("POST",)),))
    first = replace(request("git.test", path="/o/r.git/info/refs"), query=PUSH)

    assert denied_for(policy.decide_request(first)) is Reason.METHOD_NOT_ALLOWED


def tcp(host: str, *ports: int, addresses: tuple[str, ...] = ()) -> Rule:
    return rule(host, scheme=RawScheme.TCP, ports=ports, addresses=addresses)


RAW = tcp("a.test", 22)
EVERYTHING = Policy().allowing_by_default(RAW.source).allow[0]


@pytest.mark.parametrize(
    ("allow", "deny_rules", "port", "raw"),
    [
        ([RAW], [], 22, True),
        ([rule("a.test", ports=(22,)), RAW], [], 22, True),
        ([EVERYTHING, RAW], [], 22, True),
        ([RAW], [deny("a.test", scheme=RawScheme.TCP, ports=(23,))], 22, True),
        ([RAW], [deny("a.test", scheme=Scheme.HTTP)], 22, True),
        ([RAW], [deny("b.test")], 22, True),
        # Nothing else implies it.
        ([rule("a.test", ports=(22,))], [], 22, False),
        ([rule("a.test", ports=(22,), tls=Tls.PASSTHROUGH)], [], 22, False),
        ([rule("a.test", ports=None, tls=Tls.PASSTHROUGH)], [], 22, False),
        ([rule("a.test", scheme=None, ports=None)], [], 22, False),
        ([EVERYTHING], [], 22, False),
        ([EVERYTHING, RAW], [], 23, False),
        # It undoes no limit, and no port of the web becomes one of anything.
        ([rule("a.test", ports=(22,), methods=("GET",)), RAW], [], 22, False),
        ([rule("a.test", scheme=Scheme.HTTP, ports=(22,)), RAW], [], 22, False),
        ([EVERYTHING, RAW], [deny("a.test", methods=("POST",))], 22, False),
        ([EVERYTHING, RAW], [deny("a.test", scheme=RawScheme.TCP)], 22, False),
        ([EVERYTHING, tcp("a.test", 80, 443)], [], 443, False),
        ([EVERYTHING, tcp("a.test", 80, 443)], [], 80, False),
    ],
)
def test_other_protocols_pass_where_a_rule_for_tcp_lists_the_port(
    allow: list[Rule], deny_rules: list[Rule], port: int, *, raw: bool
) -> None:
    decision = Policy(tuple(allow), tuple(deny_rules)).decide_connect(at(f"a.test:{port}"))

    assert decision.allowed
    assert decision.raw == raw


@pytest.mark.parametrize("denial", [deny("a.test"), deny("a.test", scheme=RawScheme.TCP)])
def test_a_denial_of_the_host_or_of_tcp_wins_over_a_rule_for_tcp(denial: Rule) -> None:
    decision = Policy((RAW,), (denial,)).decide_connect(at("a.test:22"))

    assert decision.reason is Reason.DENY_RULE


def test_a_denial_of_tcp_says_nothing_about_requests() -> None:
    policy = Policy((rule("a.test"),), (deny("a.test", scheme=RawScheme.TCP),))

    assert policy.decide_connect(at("a.test:443")).allowed
    assert policy.decide_connect(at("b.test:443")).reason is Reason.NO_RULE


def test_no_request_is_allowed_by_a_rule_for_tcp() -> None:
    policy = Policy((tcp("a.test", 8080),))

    for scheme in Scheme:
        asked = Request(scheme, at("a.test:8080"), at("a.test:8080"), "GET", "/")
        assert policy.decide_request(asked).reason is Reason.SCHEME_NOT_ALLOWED


def test_a_denial_of_https_is_one_of_tls_in_a_tunnel_of_tcp() -> None:
    policy = Policy((RAW,), (deny("a.test", scheme=Scheme.HTTPS),))

    assert policy.decide_connect(at("a.test:22")).raw
    hello = policy.decide_hello(at("a.test:22"), "a.test", encrypted=False, tls=Tls.PASSTHROUGH)
    assert hello.reason is Reason.SCHEME_NOT_ALLOWED


def test_an_address_that_is_not_public_needs_the_addresses_of_the_rule_for_tcp() -> None:
    named = Policy((tcp("a.test", 22, addresses=("10.1.2.3/32",)),))
    elsewhere = Policy((RAW, rule("a.test", addresses=("10.1.2.3/32",))))
    for_requests = Policy((RAW, rule("a.test", ports=(22,), addresses=("10.1.2.3/32",))))

    address = ip_address("10.1.2.3")
    assert named.decide_address(at("a.test:22"), address).allowed
    for unnamed in (elsewhere, for_requests):
        assert unnamed.decide_address(at("a.test:22"), address).reason is Reason.ADDRESS_NOT_ALLOWED


def test_a_network_that_is_denied_for_tcp_is_denied_to_tunnels_of_tcp_alone() -> None:
    there = ("10.0.0.0/8",)
    policy = Policy(
        (tcp("a.test", 22, addresses=there), rule("a.test", addresses=there)),
        (deny("10.1.0.0/16", scheme=RawScheme.TCP),),
    )

    address = ip_address("10.1.2.3")
    assert policy.decide_address(at("a.test:22"), address).reason is Reason.DENY_RULE
    assert policy.decide_address(at("a.test:443"), address).allowed
