"""The alerts are what OpenSSL understands as a refusal."""

import ssl

import pytest

from claude_proxy.wire.tls_alerts import ACCESS_DENIED, DECODE_ERROR


@pytest.mark.parametrize(
    ("alert", "words"), [(ACCESS_DENIED, "access denied"), (DECODE_ERROR, "decode error")]
)
def test_a_client_reads_the_alert_by_its_name(alert: bytes, words: str) -> None:
    received = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(received, ssl.MemoryBIO(), server_hostname="a.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    received.write(alert)

    with pytest.raises(ssl.SSLError, match=words):
        tls.do_handshake()
