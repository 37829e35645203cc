"""Each way in which TLS with an upstream fails has words of its own, and a fix where one helps."""

import pytest

from claude_proxy.proxy.openssl_words import BROKEN_RECORD, VERIFY_FAILED
from claude_proxy.proxy.tls_failures import broken_off, failed_handshake
from claude_proxy.wire.authority import Authority

TARGET = Authority.of("example.com", 8443)
INVALID, FAILED = "upstream-certificate-invalid", "upstream-tls-failed"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("certificate has expired", "its certificate has expired"),
        (
            "certificate is not yet valid or the system clock is incorrect",
            "its certificate is not valid yet; if it should be, look at the clock of this machine",
        ),
        (
            "self-signed certificate",
            "its certificate is self-signed; if it is your own, name it with --upstream-ca",
        ),
        ("unable to get local issuer certificate", "signed by a CA that is not trusted"),
        ("self-signed certificate in certificate chain", "signed by a CA that is not trusted"),
        ("Hostname mismatch", "its certificate is not valid for the name example.com"),
        ("hostname mismatch", "its certificate is not valid for the name example.com"),
        ("certificate revoked", "its certificate is revoked"),
        ("path length constraint exceeded", "its certificate is not valid (path length"),
    ],
)
def test_a_certificate_that_is_not_valid_says_why(words: str, says: str) -> None:
    error = failed_handshake(f"{VERIFY_FAILED}{words}", TARGET, asked=False)

    assert error.reason == INVALID
    assert error.text.startswith("no TLS connection to example.com:8443: ")
    assert says in error.text


@pytest.mark.parametrize(
    ("error", "asked", "says"),
    [
        ("tls alert handshake failure", False, "none of the ciphers"),
        ("sslv3 alert handshake failure", True, "demands a client certificate"),
        ("tls alert access denied", True, "demands a client certificate"),
        ("tls alert access denied", False, "refused the connection"),
        ("tlsv13 alert certificate required", False, "demands a client certificate"),
        ("ssl/tls alert bad certificate", False, "demands a client certificate"),
        ("tlsv1 alert unknown ca", False, "demands a client certificate"),
        ("tlsv1 alert protocol version", False, "only versions of TLS before 1.2"),
        ("unsupported protocol", False, "only versions of TLS before 1.2"),
        ("tlsv1 unrecognized name", False, "does not know the name example.com"),
        ("tls alert no application protocol", False, "none of the protocols"),
        ("tls alert number 99 something", False, "TLS alert: something"),
        ("unexpected eof while reading", False, "closed the connection during"),
        ("connection closed", False, "closed the connection during the handshake"),
        ("wrong version number", False, "does not speak TLS there"),
        ("bad signature", False, "OpenSSL says: bad signature"),
        ("another text", False, "OpenSSL says: another text"),
    ],
)
def test_a_handshake_that_fails_says_why(error: str, says: str, *, asked: bool) -> None:
    failure = failed_handshake(error, TARGET, asked=asked)

    assert failure.reason == FAILED
    assert says in failure.text
    assert "mitmproxy" not in failure.text


@pytest.mark.parametrize("name", ["certificate required", "bad certificate", "handshake failure"])
def test_an_alert_in_place_of_a_response_is_a_demand_for_a_client_certificate(name: str) -> None:
    error = broken_off(f"alert {name}", TARGET)

    assert error.reason == FAILED
    assert "demands a client certificate" in error.text


def test_a_broken_record_in_place_of_a_response_is_said_to_be_one() -> None:
    error = broken_off(BROKEN_RECORD, TARGET)

    assert error.reason == FAILED
    assert "a record that is damaged or not TLS" in error.text
    assert str(TARGET) in error.text


@pytest.mark.parametrize("error", [None, "ConnectionResetError", "Error"])
def test_an_end_that_is_no_alert_is_a_closed_connection(error: str | None) -> None:
    assert broken_off(error, TARGET).reason == "upstream-closed"
    assert broken_off(error, TARGET, "the stream was reset").text == "the stream was reset"
