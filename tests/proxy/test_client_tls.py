"""A client that does not trust the CA is told from one that has changed its mind."""

import pytest

from claude_proxy.proxy.client_tls import (
    FAILED,
    LEFT,
    REJECTED,
    failure_in_handshake,
    failure_without_request,
)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ("tlsv1 alert unknown ca", REJECTED, "it does not trust the CA (unknown CA)"),
        ("ssl/tls alert bad certificate", REJECTED, "it does not trust the CA (bad certificate)"),
        (
            "sslv3 alert certificate unknown",
            REJECTED,
            "it does not trust the CA (certificate unknown)",
        ),
        (
            "ssl/tls alert certificate expired",
            REJECTED,
            "it rejects the proxy's certificate (certificate expired)",
        ),
        (
            "no shared cipher",
            FAILED,
            "cannot speak TLS with the proxy for a.test (no shared cipher)",
        ),
        (
            "The remote server does not speak TLS.",
            FAILED,
            "(The remote server does not",
        ),
        ("connection closed", LEFT, "probably does not trust the CA"),
    ],
)
def test_a_failed_handshake_says_why(error: str, code: str, words: str) -> None:
    failure = failure_in_handshake(error, is_prompt=True)

    assert failure is not None
    assert failure.code == code
    sentence = failure.sentence("curl", "a.test")
    assert sentence.startswith("curl ")
    assert words in sentence
    assert sentence.endswith(
        "; `claude-proxy env` prints what clients need, and `claude-proxy doctor --trust` tests it"
    )


def test_a_client_that_leaves_later_has_changed_its_mind() -> None:
    assert failure_in_handshake("connection closed", is_prompt=False) is None
    assert failure_without_request(None, is_prompt=False) is None


def test_an_alert_after_the_handshake_counts_whenever_it_comes() -> None:
    failure = failure_without_request("alert unknown ca", is_prompt=False)

    assert failure is not None
    assert failure.code == REJECTED


def test_a_client_that_leaves_at_once_is_told_with_less_certainty() -> None:
    failure = failure_without_request(None, is_prompt=True)

    assert failure is not None
    assert failure.sentence("wget", "a.test").startswith(
        "wget closed the connection to a.test right after the proxy's certificate, so it probably"
    )
