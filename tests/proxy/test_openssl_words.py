"""Errors of the standard library are told in OpenSSL's own words."""

import ssl

import pytest

from claude_proxy.proxy.openssl_words import alert_in, alert_words, words_of


def invalid(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, f"[SSL: CERTIFICATE_VERIFY_FAILED] {message}")
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca (_ssl.c:1020)"),
            "tlsv1 alert unknown ca",
        ),
        (ssl.SSLError(1, "[SSL] a (nested) text (_ssl.c:2633)"), "a (nested) text"),
        (ssl.SSLError(1, "unknown error (_ssl.c:2633)"), "unknown error"),
        (ssl.SSLError(1, ""), "SSLError"),
        (ssl.SSLError(), "SSLError"),
        (ssl.SSLEOFError(8, "EOF occurred (_ssl.c:1)"), "unexpected eof while reading"),
        (ssl.SSLZeroReturnError(6, "TLS connection has been closed"), "connection closed"),
        (
            invalid(10, "certificate has expired"),
            "certificate verify failed: certificate has expired",
        ),
        (
            invalid(62, "Hostname mismatch, certificate is not valid for 'a'."),
            "certificate verify failed: hostname mismatch",
        ),
        (
            invalid(64, "IP address mismatch, certificate is not valid for '::1'."),
            "certificate verify failed: IP address mismatch",
        ),
    ],
)
def test_an_error_is_told_by_its_reason(error: ssl.SSLError, words: str) -> None:
    assert words_of(error) == words


@pytest.mark.parametrize(
    ("words", "alert"),
    [
        ("sslv3 alert handshake failure", "handshake failure"),
        ("ssl/tls alert handshake failure", "handshake failure"),
        ("tlsv13 alert certificate required", "certificate required"),
        ("alert number 200 unknown", "unknown"),
        ("no shared cipher", None),
    ],
)
def test_an_alert_is_known_by_its_name(words: str, alert: str | None) -> None:
    assert alert_in(words) == alert


def test_what_is_no_alert_is_named_by_its_type() -> None:
    alert = ssl.SSLError(1, "[SSL: X] sslv3 alert bad record mac (_ssl.c:1)")

    assert alert_words(alert) == "alert bad record mac"
    assert alert_words(ssl.SSLError(1, "[SSL: X] bad record type (_ssl.c:1)")) == "SSLError"
