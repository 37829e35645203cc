"""Laws of rules that ask: they allow nothing by themselves, and an answer allows no more."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from claude_proxy.policy.answer import Answer
from claude_proxy.policy.granted_policy import with_grants
from claude_proxy.policy.grants import Grant, Moment
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme, Rule, Tls
from tests.policy.cases import NOWHERE, at, denied_for, deny, request, rule

ASKED = replace(rule("ask.test"), asks=True)
POLICY = Policy((rule("a.test"), rule("part.test", methods=["GET"])), ask=(ASKED,))
BY_DEFAULT = replace(POLICY, deny=(deny("evil.test"),)).asking_by_default(NOWHERE)


def asks(given: Rule) -> Policy:
    return Policy(ask=(given,))


def test_a_rule_that_asks_allows_nothing() -> None:
    assert denied_for(POLICY.decide_tunnel(at("ask.test"))) is Reason.ASK
    assert denied_for(POLICY.decide_connect(at("ask.test"))) is Reason.NO_RULE
    assert denied_for(POLICY.evaluate(request("ask.test")).decision) is Reason.ASK
    assert denied_for(POLICY.decide_request(request("ask.test"))) is Reason.NO_RULE
    public = ip_address("8.8.8.8")
    assert denied_for(POLICY.decide_address(at("ask.test"), public)) is Reason.NO_RULE
    assert not POLICY.allows_url("https://ask.test/")


def test_a_rule_that_asks_is_no_denial() -> None:
    both = replace(POLICY, ask=(*POLICY.ask, replace(rule("a.test"), asks=True)))

    assert both.decide_connect(at("a.test")).allowed
    assert both.evaluate(request("a.test")).decision.reason is Reason.RULE_MATCHED


def test_a_tunnel_whose_requests_are_judged_is_open_towards_its_client_alone() -> None:
    decision = POLICY.decide_tunnel(at("ask.test"))

    assert (decision.allowed, decision.asks, decision.opens_tunnel) == (False, True, True)
    assert (decision.tls, decision.secure) == (Tls.INTERCEPT, True)
    hello = POLICY.decide_hello(at("ask.test"), "ask.test", encrypted=False, tls=Tls.INTERCEPT)
    other = POLICY.decide_hello(at("ask.test"), "b.test", encrypted=False, tls=Tls.INTERCEPT)
    assert hello.asks
    assert (other.asks, other.reason) == (False, Reason.SNI_MISMATCH)


@pytest.mark.parametrize(
    "given",
    [rule("t.test", tls=Tls.PASSTHROUGH), rule("t.test", scheme=RawScheme.TCP, ports=(443, 22))],
)
def test_a_tunnel_that_is_not_judged_is_not_open_before_the_answer(given: Rule) -> None:
    port = 22 if given.scheme is RawScheme.TCP else 443
    decision = asks(given).decide_tunnel(at(f"t.test:{port}"))

    assert (decision.asks, decision.opens_tunnel) == (True, False)


def test_a_request_that_asks_opens_no_tunnel() -> None:
    assert not POLICY.evaluate(request("ask.test")).decision.opens_tunnel


def test_a_yes_allows_what_was_asked_for() -> None:
    verdict = POLICY.evaluate(request("ask.test"), answer=Answer.YES)

    assert (verdict.decision.allowed, verdict.decision.reason) == (True, Reason.ANSWERED)
    assert (verdict.decision.answered, verdict.decision.restricted) == (True, True)
    assert POLICY.decide_tunnel(at("ask.test"), Answer.YES).answered


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, Reason.ASK),
        (Answer.AGAIN, Reason.ASK),
        (Answer.NO, Reason.OWNER_REFUSED),
        (Answer.NONE, Reason.NOT_ANSWERED),
        (Answer.NO_ROOM, Reason.TOO_MANY_QUESTIONS),
    ],
)
def test_nothing_else_does(answer: Answer | None, reason: Reason) -> None:
    assert denied_for(POLICY.evaluate(request("ask.test"), answer=answer).decision) is reason
    assert denied_for(POLICY.decide_tunnel(at("ask.test"), answer)) is reason


def test_a_yes_allows_nothing_that_is_not_asked_about() -> None:
    for other in (
        request("other.test"),
        request("ask.test", host="a.test"),
        request("ask.test", "TRACE"),
        request("ask.test", scheme=Scheme.HTTP),
        request("part.test", "POST"),
    ):
        decision = POLICY.evaluate(other, answer=Answer.YES).decision
        assert not decision.allowed
        assert decision.reason not in {Reason.ASK, Reason.NOT_ANSWERED}


def test_an_answer_cannot_take_back_what_a_rule_allows() -> None:
    assert POLICY.evaluate(request("a.test"), answer=Answer.NO).decision.allowed


def test_a_denial_wins_over_an_answer() -> None:
    assert denied_for(BY_DEFAULT.decide_tunnel(at("evil.test"))) is Reason.DENY_RULE
    decision = BY_DEFAULT.evaluate(request("evil.test"), answer=Answer.YES).decision
    assert denied_for(decision) is Reason.DENY_RULE


def test_by_default_every_public_host_is_asked_about() -> None:
    for target in ("new.test", "new.test:8443", "8.8.8.8"):
        assert BY_DEFAULT.decide_tunnel(at(target)).asks
    assert BY_DEFAULT.evaluate(request("part.test", "POST")).decision.asks
    assert BY_DEFAULT.evaluate(request("part.test")).decision.allowed
    assert BY_DEFAULT.asks_by_default
    assert not BY_DEFAULT.allows_by_default


@pytest.mark.parametrize("target", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "[::1]"])
def test_an_address_that_is_not_public_is_not_asked_about(target: str) -> None:
    assert denied_for(BY_DEFAULT.decide_tunnel(at(target))) is Reason.ADDRESS_NOT_ALLOWED
    private = ip_address("10.0.0.1")
    decision = BY_DEFAULT.as_answered().decide_address(at("new.test"), private)
    assert denied_for(decision) is Reason.ADDRESS_NOT_ALLOWED


def test_bytes_of_any_protocol_are_asked_about_only_where_a_rule_says_so() -> None:
    assert not BY_DEFAULT.decide_tunnel(at("new.test:22")).raw


def test_a_changed_question_is_a_change_of_the_policy() -> None:
    added, removed = Policy().diff(POLICY)

    assert ("ask https://ask.test ports 443" in added, removed) == (True, ())


def test_a_policy_that_asks_nothing_is_its_own_answer() -> None:
    assert Policy().as_answered() == Policy()


def test_a_grant_answers_a_question_and_leaves_the_others_open() -> None:
    grant = Grant(1, (rule("ask.test"),), 0, Moment(0, 0, "boot"), "me", uses=1, uses_left=1)
    policy = with_grants(BY_DEFAULT, (grant,))

    assert policy.evaluate(request("ask.test")).decision.reason is Reason.RULE_MATCHED
    assert policy.evaluate(request("new.test")).decision.asks
    assert policy.evaluate(request("new.test"), answer=Answer.YES).decision.allowed
    assert policy.decide_tunnel(at("new.test")).asks
    assert denied_for(policy.decide_tunnel(at("evil.test"))) is Reason.DENY_RULE
