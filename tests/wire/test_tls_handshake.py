"""A server that asks for a certificate is recognized in TLS 1.2, and no other is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.wire.tls_handshake import asks_for_certificate


def message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3) + body


def record(fragment: bytes, kind: int = 22) -> bytes:
    return bytes([kind]) + b"\x03\x03" + len(fragment).to_bytes(2) + fragment


HELLO, CERTIFICATE = message(2, bytes(70)), message(11, b"\x0d" * 900)
REQUEST, DONE = message(13, b"\x01\x01\x00\x00"), message(14, b"")
ALERT = record(b"\x02\x28", kind=21)
ENCRYPTED = record(b"\x0d" * 40, kind=23)


@pytest.mark.parametrize(
    ("received", "asks"),
    [
        (record(HELLO + CERTIFICATE + REQUEST + DONE), True),
        (record(HELLO) + record(CERTIFICATE) + record(REQUEST) + record(DONE) + ALERT, True),
        (record((HELLO + CERTIFICATE)[:500]) + record((HELLO + CERTIFICATE)[500:] + REQUEST), True),
        (record(HELLO + CERTIFICATE + DONE) + ALERT, False),
        (record(HELLO) + ENCRYPTED + record(REQUEST), False),
        (ALERT, False),
        (b"", False),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
    ],
)
def test_a_request_for_a_certificate_is_recognized(received: bytes, *, asks: bool) -> None:
    assert asks_for_certificate(received) is asks


@given(st.binary(max_size=200))
def test_any_bytes_are_read(received: bytes) -> None:
    asks_for_certificate(b"\x16\x03\x03" + received)
