"""The laws of the index: the rules that cover a target, found in one look-up."""

from dataclasses import replace
from ipaddress import ip_address

from claude_proxy.policy.patterns import HostPattern, PatternKind
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Request, Scheme
from tests.policy.cases import at, deny, lines_run, rule


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
