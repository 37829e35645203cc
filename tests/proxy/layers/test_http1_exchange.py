"""An exchange emits what was judged, and shows the response to its inspector."""

import pytest

from claude_proxy.policy.request import Request, Scheme
from claude_proxy.proxy.gate import Gate
from claude_proxy.proxy.inspection.base import ResponseCutOff
from claude_proxy.proxy.inspection.leak_guard import LeakGuard
from claude_proxy.proxy.layers.admission import Admission, admit
from claude_proxy.proxy.layers.http1_exchange import Exchange
from claude_proxy.proxy.layers.http1_response_writer import StreamingWriter
from claude_proxy.proxy.layers.session import Session
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.head import RequestHead, ResponseHead
from claude_proxy.wire.http1.request import read_request_head
from tests.proxy.layers.stage import ORIGIN, Ledger, policy_of

VALUE = b"sk-ant-api03-REAL-VALUE"
TARGET = Authority.of("example.com", 443)
POST = (
    b"POST /a HTTP/1.1\r\nHost: example.com\r\nX-Api-Key: of-the-client\r\n"
    b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def head_of(text: bytes) -> RequestHead:
    head = read_request_head(bytearray(text), 4096)
    assert head is not None
    return head


@pytest.fixture
def exchange(ledger: Ledger) -> Exchange:
    """An exchange whose credential replaces the client's."""
    gate = Gate(policy_of("allow: [example.com]"), ledger.events.append)
    head = head_of(POST)
    request = Request(Scheme.HTTPS, TARGET, TARGET, "POST", "/a", "", head.fields)
    admission = admit(Session(gate, ORIGIN, 65536), request, "/a")
    assert isinstance(admission, Admission)
    admission.drop, admission.extra = frozenset({b"x-api-key"}), ((b"X-Api-Key", VALUE),)
    admission.inspector = LeakGuard((VALUE,))
    return Exchange(head, admission, StreamingWriter(1), "/a", None)


def test_the_head_is_emitted_with_the_credential_for_the_clients_own(exchange: Exchange) -> None:
    assert exchange.emit_head() == (
        b"POST /a HTTP/1.1\r\nHost: example.com\r\nExpect: 100-continue\r\n"
        b"Transfer-Encoding: chunked\r\nX-Api-Key: " + VALUE + b"\r\n\r\n"
    )


def test_a_judged_body_goes_with_its_length_and_is_not_waited_for(exchange: Exchange) -> None:
    exchange.content = b"judged"

    head = exchange.emit_head()

    assert b"Content-Length: 6\r\n" in head
    assert b"chunked" not in head
    assert b"Expect" not in head


def test_no_repr_shows_the_credential(exchange: Exchange) -> None:
    assert VALUE.decode() not in repr(exchange) + repr(exchange.admission)


def test_the_body_is_what_the_head_announces(exchange: Exchange) -> None:
    get = head_of(b"GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n")

    assert exchange.body is not None
    assert Exchange(get, exchange.admission, StreamingWriter(1), "/a", None).body is None


@pytest.mark.parametrize("place", ["field", "phrase"])
def test_a_head_with_the_credential_ends_the_response(exchange: Exchange, place: str) -> None:
    head = ResponseHead(
        minor=1,
        fields=[(b"X", VALUE)] if place == "field" else [],
        status=200,
        phrase=VALUE if place == "phrase" else b"OK",
    )

    with pytest.raises(ResponseCutOff):
        exchange.inspect_head(head)


def test_content_with_the_credential_ends_the_response(exchange: Exchange) -> None:
    assert exchange.inspect(b"harmless", done=False) + exchange.inspect(b"", done=True)
    with pytest.raises(ResponseCutOff):
        exchange.inspect(VALUE)


def test_without_an_inspector_content_passes_as_it_is(exchange: Exchange) -> None:
    exchange.admission.inspector = None

    assert exchange.inspect(VALUE, done=True) == VALUE
    exchange.inspect_fields([(b"X", VALUE)])
