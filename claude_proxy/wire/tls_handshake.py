"""TLS handshake messages of a server that are not encrypted (RFC 5246 section 7.4); sans-io.

Only for error messages: nothing is decided by what is read here.
"""

_HANDSHAKE = 0x16
_RECORD_HEADER = 5
_MESSAGE_HEADER = 4
_CERTIFICATE_REQUEST = 13


def asks_for_certificate(received: bytes | bytearray) -> bool:
    """Return whether a TLS 1.2 server asked for a client certificate; `received` is what it sent.

    In TLS 1.3 the request is encrypted (RFC 8446 section 4.3.2), and the answer is False.
    """
    messages = _plain_messages(received)
    at = 0
    while at + _MESSAGE_HEADER <= len(messages):
        if messages[at] == _CERTIFICATE_REQUEST:
            return True
        at += _MESSAGE_HEADER + int.from_bytes(messages[at + 1 : at + _MESSAGE_HEADER])
    return False


def _plain_messages(received: bytes | bytearray) -> bytes:
    """Return the joined fragments of the handshake records at the front of `received`."""
    fragments: list[bytes] = []
    at = 0
    while at + _RECORD_HEADER <= len(received) and received[at] == _HANDSHAKE:
        end = at + _RECORD_HEADER + int.from_bytes(received[at + 3 : at + _RECORD_HEADER])
        fragments.append(bytes(received[at + _RECORD_HEADER : end]))
        at = end
    return b"".join(fragments)
