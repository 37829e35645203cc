"""Where any protocol may be spoken, TLS is read whole before it passes, and HTTP never passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.wire.client_hello import ClientHello, HelloUnreadableError
from claude_proxy.wire.first_bytes import MAX_LINE, FirstBytes, HttpFoundError, begins_http
from tests.wire.hellos import real_hello

HTTP = [
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/1.1\n",
    b"get / http/1.0\r\n",
    b"GET /\x80 HTTP/1.1\r\n",
    b"\r\n\r\n\nGET / HTTP/1.1\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n",
    b"G\tT\t/\tHTTP/1.1",
    b"GET / HTTP/1.1\x00\r\n",
    b"GET /" + b"a" * MAX_LINE,
]
OTHER = [
    b"SSH-2.0-OpenSSH_9.2\r\nGET / HTTP/1.1\r\n",
    b"\x00\x00\x00\x08\x04\xd2\x16\x2f",  # PostgreSQL's SSLRequest
    b"EHLO a.test\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"AMQP\x00\x00\x09\x01",
    b"0032git-upload-pack /a\x00host=b\x00",
    b"GET /\r\n",
    b"\x00GET / HTTP/1.1\r\n",
]


@pytest.mark.parametrize("data", HTTP)
def test_http_is_recognized(data: bytes) -> None:
    assert begins_http(data) is True


@pytest.mark.parametrize("data", OTHER)
def test_another_protocol_is_not_taken_for_http(data: bytes) -> None:
    assert begins_http(data) is False


@pytest.mark.parametrize("data", [b"", b"\r\n", b"GET", b"GET / HTTP/", b"hello"])
def test_a_line_that_is_not_complete_is_not_known(data: bytes) -> None:
    assert begins_http(data) is None


@pytest.mark.parametrize("data", HTTP)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_request_line_never_passes_whole(data: bytes, size: int) -> None:
    first, passed, found = FirstBytes(), b"", False

    for at in range(0, len(data), size):
        try:
            ready = first.feed(data[at : at + size])
        except HttpFoundError:
            found = True
            break
        assert isinstance(ready, bytes)
        passed += ready

    assert found
    assert begins_http(passed) is None


@pytest.mark.parametrize("data", [*OTHER, b"hello"])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_another_protocol_passes_as_it_comes(data: bytes, size: int) -> None:
    first, passed = FirstBytes(), b""

    for at in range(0, len(data), size):
        piece = data[at : at + size]
        ready = piece if first.is_over else first.feed(piece)
        assert isinstance(ready, bytes)
        passed += ready

    assert passed == data
    assert first.is_over or data == b"hello"


@pytest.mark.parametrize("size", [1, 50, 1 << 20])
def test_a_hello_is_released_only_whole(size: int) -> None:
    first, sent = FirstBytes(), real_hello("a.test")
    found: bytes | ClientHello = b""

    for at in range(0, len(sent), size):
        assert found == b""
        found = first.feed(sent[at : at + size])

    assert isinstance(found, ClientHello)
    assert found.sni == "a.test"
    assert first.release() == sent
    assert first.is_over


def test_a_malformed_hello_is_refused() -> None:
    with pytest.raises(HelloUnreadableError):
        FirstBytes().feed(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00")


@given(st.lists(st.sampled_from([b"GET", b" / ", b"HTTP/1.1", b"\r\n", b"\x16\x03"]) | st.binary()))
def test_what_passes_is_never_a_whole_request_line(pieces: list[bytes]) -> None:
    first, passed = FirstBytes(), b""
    for piece in pieces:
        if first.is_over:
            break
        try:
            ready = first.feed(piece)
        except ValueError:
            break
        if isinstance(ready, ClientHello):
            break
        passed += ready

    assert begins_http(passed) is not True
