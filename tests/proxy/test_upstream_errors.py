"""Each error of an upstream becomes one refusal, on HTTP/1.1 and HTTP/2 alike."""

from ipaddress import ip_address

import pytest

from claude_proxy.policy.decision import denied
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.upstream_errors import (
    CUT_SHORT,
    TIMED_OUT,
    UpstreamError,
    bad_response,
    closed,
    cut_off,
    proxy_refused,
    refusal_for,
)
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import policy_of

TARGET = Authority.of("example.com", 443)
REQUEST = Request(Scheme.HTTPS, TARGET, TARGET, "GET", "/a", "secret=1", [])
LABEL = "GET https://example.com/a"
DENIED = policy_of("deny: [example.com]").decide_connect(TARGET)
UNREACHED = [failure for failure in Failure if failure is not Failure.DENIED]


@pytest.mark.parametrize("failure", UNREACHED)
def test_a_failed_dial_is_a_gateway_error_by_its_own_reason(failure: Failure) -> None:
    refusal = refusal_for(DialError(failure, "the dial failed"), REQUEST, LABEL)

    assert refusal.status == {Failure.TIMEOUT: 504, Failure.NO_ROOM: 503}.get(failure, 502)
    assert (refusal.reason, refusal.explanation) == (failure.value, "The dial failed.")
    assert (refusal.label, refusal.retry) == (LABEL, True)


def test_a_dial_that_the_policy_denies_is_a_denial() -> None:
    error = DialError(Failure.DENIED, "denied", DENIED)

    refusal = refusal_for(error, REQUEST, LABEL)

    assert (refusal.status, refusal.reason) == (403, Reason.DENY_RULE.value)
    assert (refusal.label, refusal.retry) == (LABEL, False)


def test_a_denied_address_is_advised_as_an_address_unless_it_is_this_machine() -> None:
    decision = denied(Reason.ADDRESS_NOT_ALLOWED)
    other = DialError(Failure.DENIED, "denied", decision, address=ip_address("10.1.2.3"))
    own = DialError(
        Failure.DENIED, "denied", decision, address=ip_address("10.9.9.9"), is_own_address=True
    )

    command = refusal_for(other, REQUEST, LABEL).command
    assert command == "claude-proxy allow example.com --address 10.1.2.3"
    assert refusal_for(own, REQUEST, LABEL).command is None


def test_a_plain_text_is_an_error_of_tls() -> None:
    refusal = refusal_for("the handshake failed", REQUEST, LABEL)

    assert (refusal.status, refusal.reason) == (502, "upstream-tls-failed")


@pytest.mark.parametrize("offered", [True, False])
def test_a_407_of_an_upstream_proxy_is_a_gateway_error(*, offered: bool) -> None:
    refusal = refusal_for(proxy_refused([b"NTLM"], offered=offered), REQUEST, LABEL)

    assert (refusal.status, refusal.reason) == (502, "upstream-proxy-failed")
    assert "refused the request with 407 (it asks for NTLM)" in refusal.explanation


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (closed(), 502, "upstream-closed"),
        (closed("the stream was reset"), 502, "upstream-closed"),
        (CUT_SHORT, 502, "upstream-cut-short"),
        (TIMED_OUT, 504, "upstream-timeout"),
        (bad_response("there is a bare CR"), 502, "upstream-bad-answer"),
        (cut_off("credential-echoed"), 502, "credential-echoed"),
    ],
)
def test_a_response_that_does_not_come_whole_is_a_gateway_error(
    error: UpstreamError, status: int, reason: str
) -> None:
    refusal = refusal_for(error, REQUEST, LABEL)

    assert (refusal.status, refusal.reason) == (status, reason)
    assert refusal.explanation.lower() == f"{error.text}.".lower()


@pytest.mark.parametrize(
    "error", ["verify failed", closed(), TIMED_OUT, DialError(Failure.REFUSED, "it refuses")]
)
def test_no_refusal_repeats_the_query(error: str | UpstreamError | DialError) -> None:
    for as_json in (True, False):
        assert b"secret" not in refusal_for(error, REQUEST, LABEL).body(as_json=as_json)
