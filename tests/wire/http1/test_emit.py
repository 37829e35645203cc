"""Upstream gets the head that was judged, without the fields that are only for this hop."""

import pytest

from claude_proxy.wire.http1.emit import (
    Framing,
    emit_request_head,
    emit_response_head,
    end_to_end_fields,
    framing_of,
)
from claude_proxy.wire.http1.head import RequestHead, ResponseHead, TargetForm


def request(*fields: tuple[bytes, bytes], **more: object) -> RequestHead:
    return RequestHead(
        minor=1,
        fields=list(fields),
        method="GET",
        target="/",
        form=TargetForm.ORIGIN,
        host=b"a.test",
        **more,  # type: ignore[arg-type]
    )


def response(status: int, *fields: tuple[bytes, bytes], length: int | None = None) -> ResponseHead:
    return ResponseHead(minor=1, fields=list(fields), status=status, phrase=b"X", length=length)


def test_the_judged_host_is_written_where_the_sent_one_was() -> None:
    head = request((b"A", b"1"), (b"hOST", b"sent.test"), (b"B", b"2"))

    emitted = emit_request_head(head, "/path", host=b"judged.test")

    assert emitted == b"GET /path HTTP/1.1\r\nA: 1\r\nhOST: judged.test\r\nB: 2\r\n\r\n"


def test_a_second_host_is_not_written() -> None:
    head = request((b"Host", b"one.test"), (b"Host", b"two.test"))

    assert emit_request_head(head, "/").count(b"ost:") == 1


@pytest.mark.parametrize("name", [b"Connection", b"Keep-Alive", b"TE", b"Proxy-Authorization"])
def test_a_field_of_this_hop_stays_here(name: bytes) -> None:
    assert name not in emit_request_head(request((name, b"x")), "/")


def test_what_is_dropped_does_not_come_through_with_an_underscore() -> None:
    head = request((b"X_Api_Key", b"secret"), (b"X-Api-Key", b"secret"))

    assert b"secret" not in emit_request_head(head, "/", drop=frozenset({b"x-api-key"}))


@pytest.mark.parametrize(
    ("name", "value"), [(b"X", b"a\r\nInjected: b"), (b"X: y", b"a"), (b"Host", b"other.test")]
)
def test_a_value_from_the_configuration_cannot_add_a_field_or_reroute(
    name: bytes, value: bytes
) -> None:
    with pytest.raises(ValueError, match="an extra field"):
        emit_request_head(request(), "/", extra=[(name, value)])


@pytest.mark.parametrize(("target", "host"), [("/a b", b"a.test"), ("", b"a.test"), ("/", b"a b")])
def test_a_head_without_a_target_or_host_is_not_written(target: str, host: bytes) -> None:
    with pytest.raises(ValueError, match="needs a target and a Host"):
        emit_request_head(request(), target, host=host)


@pytest.mark.parametrize(
    ("length", "minor", "framing"),
    [
        (5, 1, Framing.LENGTH),
        (5, 0, Framing.LENGTH),
        (None, 1, Framing.CHUNKED),
        (None, 0, Framing.CLOSE),
    ],
)
def test_the_end_of_an_answer_is_marked_as_its_client_understands(
    length: int | None, minor: int, framing: Framing
) -> None:
    assert framing_of(response(200, length=length), method="GET", minor=minor) is framing


@pytest.mark.parametrize(("status", "method"), [(200, "HEAD"), (204, "GET"), (304, "GET")])
def test_an_answer_without_body_has_no_framing(status: int, method: str) -> None:
    assert framing_of(response(status), method=method, minor=1) is Framing.NONE


def test_a_chunked_answer_is_not_given_a_length() -> None:
    head = response(200, (b"Content-Length", b"5"), length=5)

    emitted = emit_response_head(head, framing=Framing.CHUNKED, keep_alive=True)

    assert emitted == b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_connection_that_ends_says_so() -> None:
    emitted = emit_response_head(response(200), framing=Framing.CLOSE, keep_alive=False)

    assert emitted == b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n"


def test_a_next_hop_gets_the_length_that_was_read_and_no_field_of_this_hop() -> None:
    hop = [(b"Connection", b"x"), (b"Transfer-Encoding", b"chunked"), (b"X", b"1")]
    head = response(200, *hop, (b"Content-Length", b"05"), (b"A", b"b"), length=5)
    head.options = frozenset({b"x"})

    assert end_to_end_fields(head) == [(b"Content-Length", b"5"), (b"A", b"b")]


def test_a_length_of_no_content_does_not_reach_the_next_hop() -> None:
    assert end_to_end_fields(response(204, (b"Content-Length", b"5"))) == []
