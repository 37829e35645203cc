"""Laws of questions: an answer opens what was asked about, and no more than the rule that asks."""

from dataclasses import replace

import pytest

from claude_proxy.policy.decision import Decision
from claude_proxy.policy.location import Location
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.questions import (
    MOST_SHOWN,
    Access,
    Facts,
    Subject,
    rule_of_answer,
    subject_of_request,
    subject_of_tunnel,
)
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme, Rule, Tls
from tests.policy.cases import at, request, rule

HERE = Location("answer", 1, 1)
EVERYTHING = Policy().asking_by_default(HERE).ask[0]


def rule_for(subject: Subject, asking: Rule = EVERYTHING) -> Rule:
    found = rule_of_answer(subject, asking, HERE)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("method", "access"),
    [
        ("GET", Access.READ),
        ("HEAD", Access.READ),
        ("OPTIONS", Access.READ),
        ("POST", Access.WRITE),
        ("DELETE", Access.WRITE),
        ("get", Access.WRITE),
        ("FROBNICATE", Access.WRITE),
    ],
)
def test_a_request_reads_or_writes(method: str, access: Access) -> None:
    found = subject_of_request("r", request("a.test", method))

    assert found == Subject("r", Scheme.HTTPS, at("a.test"), access)


def test_the_beginning_of_a_push_writes() -> None:
    begins = replace(request("a.test", path="/r/info/refs"), query="service=git-receive-pack")

    assert subject_of_request(None, begins).access is Access.WRITE


def test_a_websocket_writes_and_says_so() -> None:
    opens = replace(request("a.test"), fields=((b"Upgrade", b"websocket"),))
    subject = subject_of_request("r", opens)

    assert subject.access is Access.WRITE
    assert Facts(subject, "GET", "/", "", None, websocket=True).what.endswith("/ (WebSocket)")


def test_a_tunnel_is_asked_about_as_what_is_inside() -> None:
    policy = Policy(ask=(rule("a.test", scheme=RawScheme.TCP, ports=(22,)),))
    raw = subject_of_tunnel("r", at("a.test:22"), policy.decide_tunnel(at("a.test:22")))
    unseen = subject_of_tunnel("r", at("a.test"), _passed_through())

    assert (raw.scheme, raw.access) == (RawScheme.TCP, Access.TUNNEL)
    assert (unseen.scheme, unseen.access) == (Scheme.HTTPS, Access.TUNNEL)


def _passed_through() -> Decision:
    policy = Policy(ask=(rule("a.test", tls=Tls.PASSTHROUGH),))
    return policy.decide_tunnel(at("a.test"))


def test_a_yes_to_reading_opens_one_host_port_and_scheme_for_reading() -> None:
    policy = Policy((rule_for(subject_of_request("r", request("a.test"))),))

    assert policy.decide_request(request("a.test", "HEAD", "/any")).allowed
    for other in (
        request("a.test", "POST"),
        request("b.a.test"),
        request("a.test:8443", host="a.test:8443"),
        request("a.test:443", scheme=Scheme.HTTP),
    ):
        assert not policy.decide_request(other).allowed


def test_a_yes_to_writing_opens_every_method() -> None:
    policy = Policy((rule_for(subject_of_request("r", request("a.test", "POST"))),))

    assert policy.decide_request(request("a.test", "GET")).allowed
    assert policy.decide_request(request("a.test", "FROBNICATE")).allowed


def test_a_yes_stays_within_the_rule_that_asks() -> None:
    asking = rule("*.a.test", ports=(443, 8443), methods=["GET", "POST"], paths=["/v1/**"])
    read = rule_for(subject_of_request("r", request("x.a.test")), asking)
    write = rule_for(subject_of_request("r", request("x.a.test", "POST")), asking)

    assert str(read) == "https://x.a.test ports 443 methods GET paths /v1/**"
    assert str(write) == "https://x.a.test ports 443 methods GET,POST paths /v1/**"


def test_a_yes_that_could_allow_nothing_is_no_rule() -> None:
    asking = rule("a.test", methods=["POST"])

    assert rule_of_answer(subject_of_request("r", request("a.test")), asking, HERE) is None


def test_a_yes_to_an_address_opens_that_address() -> None:
    found = rule_for(subject_of_request("r", request("192.0.2.1")))

    assert found.name == "192.0.2.1"


def test_a_yes_to_a_name_below_which_anybody_may_register_opens_that_name() -> None:
    found = rule_for(subject_of_request("r", request("github.io")))

    assert (found.name, found.asks) == ("github.io", False)


def test_a_yes_to_a_tunnel_keeps_what_is_not_judged() -> None:
    raw = rule("a.test", scheme=RawScheme.TCP, ports=(22, 23))
    unseen = rule("a.test", tls=Tls.PASSTHROUGH)

    tcp = rule_for(Subject("r", RawScheme.TCP, at("a.test:22"), Access.TUNNEL), raw)
    tls = rule_for(Subject("r", Scheme.HTTPS, at("a.test"), Access.TUNNEL), unseen)

    assert (tcp.scheme, tcp.ports) == (RawScheme.TCP, frozenset({22}))
    assert tls.tls is Tls.PASSTHROUGH


def test_a_yes_to_a_request_exempts_no_tls() -> None:
    unseen = rule("a.test", tls=Tls.PASSTHROUGH)

    assert rule_for(subject_of_request("r", request("a.test")), unseen).tls is Tls.INTERCEPT


def test_a_long_path_is_cut_and_counted() -> None:
    subject = subject_of_request("r", request("a.test"))
    facts = Facts(subject, "GET", "/" + "x" * (MOST_SHOWN + 9), "", None)

    assert facts.short().path.endswith("x... (10 more characters)")
    assert facts.short().short().what.startswith("GET https://a.test:443/xx")
    assert str(subject) == "read https://a.test:443"
