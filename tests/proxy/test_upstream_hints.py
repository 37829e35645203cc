"""Laws of hints: what may be the cause of an error is named, and to clients by its option alone."""

import pytest

from claude_proxy.policy.request import Request, Scheme
from claude_proxy.proxy.dialer import Failure
from claude_proxy.proxy.openssl_words import VERIFY_FAILED
from claude_proxy.proxy.tls_failures import failed_handshake
from claude_proxy.proxy.upstream_errors import refusal_for
from claude_proxy.proxy.upstream_hints import NO_HINTS, UpstreamHints
from claude_proxy.wire.authority import Authority

TARGET = Authority.of("a.test", 443)
REQUEST = Request(Scheme.HTTPS, TARGET, TARGET, "GET", "/")
HINTS = UpstreamHints("HTTPS_PROXY", lambda: ["Corp CA (/corp.crt)", "B", "C", "D"])


@pytest.mark.parametrize(
    "failure", [Failure.UNRESOLVED, Failure.REFUSED, Failure.UNREACHABLE, Failure.TIMEOUT]
)
def test_a_proxy_of_the_shell_is_named_where_an_upstream_is_not_reached(failure: Failure) -> None:
    hint = HINTS.about(failure.value, "The name a.test cannot be resolved.")

    assert hint is not None
    assert "HTTPS_PROXY" in hint.for_client
    assert "--upstream-proxy" in hint.for_client
    assert hint.for_owner.startswith("the name a.test cannot be resolved; HTTPS_PROXY")


@pytest.mark.parametrize(
    "words",
    ["unable to get local issuer certificate", "self-signed certificate in certificate chain"],
)
def test_a_ca_that_was_added_to_this_machine_is_named_where_an_unknown_one_has_signed(
    words: str,
) -> None:
    error = failed_handshake(VERIFY_FAILED + words, TARGET, asked=False)
    refusal = refusal_for(error, REQUEST, "asked")

    hint = HINTS.about(refusal.reason, refusal.explanation)

    assert hint is not None
    assert "--upstream-ca FILE" in hint.for_client
    assert "Corp" not in hint.for_client
    assert hint.for_owner.endswith("on this machine it may be Corp CA (/corp.crt), B, C and 1 more")


def test_another_failure_has_another_cause() -> None:
    error = failed_handshake(VERIFY_FAILED + "certificate has expired", TARGET, asked=False)
    refusal = refusal_for(error, REQUEST, "asked")

    assert HINTS.about(refusal.reason, refusal.explanation) is None
    assert HINTS.about(Failure.PROXY.value, "The upstream proxy refused.") is None


def test_nothing_is_said_where_nothing_is_known() -> None:
    unknown = failed_handshake(
        VERIFY_FAILED + "unable to get local issuer certificate", TARGET, asked=False
    )
    refusal = refusal_for(unknown, REQUEST, "asked")

    assert NO_HINTS.about(Failure.UNRESOLVED.value, "The name cannot be resolved.") is None
    assert NO_HINTS.about(refusal.reason, refusal.explanation) is None
