"""Builds ClientHellos, valid and invalid, byte by byte (RFC 8446 section 4.1.2)."""

import ssl
from contextlib import suppress

type Extension = tuple[int, bytes]

SERVER_NAME, ALPN, ENCRYPTED = 0, 16, 0xFE0D
HRR_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"


def sized(data: bytes, octets: int = 2) -> bytes:
    """Put the size of `data` before it."""
    return len(data).to_bytes(octets) + data


def sni(*names: bytes, kind: int = 0) -> Extension:
    return SERVER_NAME, sized(b"".join(bytes([kind]) + sized(name) for name in names))


def alpn(*protocols: bytes) -> Extension:
    return ALPN, sized(b"".join(sized(name, 1) for name in protocols))


def extensions_of(*extensions: Extension) -> bytes:
    return sized(b"".join(kind.to_bytes(2) + sized(data) for kind, data in extensions))


def hello(*extensions: Extension) -> bytes:
    """Return the handshake message of a hello with these extensions."""
    return message(extensions_of(*extensions))


def message(rest: bytes, kind: int = 1) -> bytes:
    """Return a handshake message that ends in `rest`, whatever that is."""
    suites, compressions = sized(b"\x13\x01"), sized(b"\x00", 1)
    body = b"\x03\x03" + bytes(32) + sized(bytes(32), 1) + suites + compressions + rest
    return bytes([kind]) + sized(body, 3)


def records(data: bytes, size: int = 1 << 14) -> bytes:
    """Cut a message into handshake records of at most `size` bytes."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"\x16\x03\x01" + sized(piece) for piece in pieces)


def retry_request() -> bytes:
    """Return a server's record that asks for a second hello."""
    body = b"\x03\x03" + HRR_RANDOM + sized(b"", 1) + b"\x13\x01\x00" + extensions_of()
    return records(b"\x02" + sized(body, 3))


def server_hello() -> bytes:
    body = b"\x03\x03" + bytes(32) + sized(b"", 1) + b"\x13\x01\x00" + extensions_of()
    return records(b"\x02" + sized(body, 3))


def real_hello(name: str | None, *protocols: str) -> bytes:
    """Return what OpenSSL sends first."""
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    if protocols:
        context.set_alpn_protocols(protocols)
    sent = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return sent.read()
