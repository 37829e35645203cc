"""Makes ClientHellos that no polite client sends: cut up, encrypted, without a name."""

import ssl
import struct

_HANDSHAKE = 22
_RECORD_HEAD = 5
_ENCRYPTED_CLIENT_HELLO = 0xFE0D


def client_hello(server_name: str | None) -> bytes:
    """Return the bytes of an ordinary ClientHello, in one record."""
    context = ssl.create_default_context()
    if server_name is None:
        context.check_hostname = False
    wanted, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    handshake = context.wrap_bio(wanted, sent, server_hostname=server_name)
    try:
        handshake.do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()
    raise AssertionError("a handshake cannot be over already")


def in_records(hello: bytes, size: int) -> bytes:
    """Cut the handshake message into records of `size` bytes each."""
    version, message = hello[1:3], hello[_RECORD_HEAD:]
    return b"".join(
        _record(version, message[start : start + size]) for start in range(0, len(message), size)
    )


def with_encrypted_hello(hello: bytes) -> bytes:
    """Add an extension that claims to hold the real, encrypted ClientHello."""
    # An outer ClientHello of draft-ietf-tls-esni: type, suite, config, key and payload.
    outer = b"\x00" + b"\x00\x01\x00\x01" + b"\x07" + _vector(b"k" * 32) + _vector(b"p" * 144)
    return _with_extensions(hello, struct.pack("!H", _ENCRYPTED_CLIENT_HELLO) + _vector(outer))


def with_two_names(hello: bytes, second: str) -> bytes:
    """Add a second server_name extension."""
    name = b"\x00" + _vector(second.encode())
    return _with_extensions(hello, struct.pack("!H", 0) + _vector(_vector(name)))


def _with_extensions(hello: bytes, added: bytes) -> bytes:
    version, message = hello[1:3], hello[_RECORD_HEAD:]
    body = message[4:]
    position = 2 + 32
    position += 1 + body[position]  # the id of an earlier connection
    position += 2 + int.from_bytes(body[position : position + 2])  # cipher suites
    position += 1 + body[position]  # compression methods
    extensions = body[position + 2 :] + added
    body = body[:position] + _vector(extensions)
    return _record(version, message[:1] + struct.pack("!I", len(body))[1:] + body)


def _record(version: bytes, message: bytes) -> bytes:
    return bytes([_HANDSHAKE]) + version + _vector(message)


def _vector(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data
