"""The laws of HTTP/2 header sections: as strict as HTTP/1.1, and the same in both protocols."""

from contextlib import suppress

import pytest
from hpack import NeverIndexedHeaderTuple
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.request import RawField
from claude_proxy.proxy.layers.http2_fields import (
    Http2Request,
    for_client,
    for_http1_origin,
    for_http2_origin,
    for_trailers,
    read_request,
    read_response,
    read_trailers,
    reset_text,
    shown_pseudo,
)
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.head import BadMessage, ResponseHead

type Field = tuple[bytes, bytes]

PSEUDO: list[Field] = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"example.com"),
    (b":path", b"/a?b=c"),
]


def request(*fields: Field, end: bool = True) -> Http2Request:
    return read_request([*PSEUDO, *fields], limit=1000, end=end)


def test_a_request_is_read_for_the_policy() -> None:
    judged = request((b"x", b"y")).judged(Authority.of("example.com", 443))

    assert (judged.method, judged.path, judged.query) == ("GET", "/a", "b=c")
    assert judged.host == Authority.of("example.com", 443)
    assert (b"x", b"y") in judged.fields


@pytest.mark.parametrize("value", [b"y ", b" y", b"\ty\t "])
def test_blanks_around_a_value_are_taken_off(value: bytes) -> None:
    head = read_response([(b":status", b"200"), (b"x", value)], method="GET")

    assert request((b"x", value)).fields == [(b"x", b"y")]
    assert head.fields == [(b"x", b"y")]


@pytest.mark.parametrize(
    "fields",
    [
        [(b"x y", b"1")],
        [(b"X", b"1")],
        [(b"", b"1")],
        [(b"x", b"a\nb")],
        [(b"x", b"a\x00b")],
        [(b"connection", b"x")],
        [(b"keep-alive", b"x")],
        [(b"transfer-encoding", b"chunked")],
        [(b"upgrade", b"h2c")],
        [(b"te", b"gzip")],
        [(b"content-length", b"5, 5")],
        [(b"content-length", b"5"), (b"content-length", b"5")],
        [(b"content-length", b"-1")],
        [(b"host", b"evil.example")],
        [(b"host", b"example.com"), (b"host", b"example.com")],
        [(b":path", b"/again")],
        [(b"x%d" % number, b"1") for number in range(201)],
        [(b"x", b"y" * 1000)],
    ],
)
def test_a_request_that_could_be_read_in_two_ways_is_refused(fields: list[Field]) -> None:
    with pytest.raises(BadMessage):
        request(*fields, end=False)


@pytest.mark.parametrize(
    "pseudo",
    [
        PSEUDO[1:],
        [*PSEUDO, (b":protocol", b"websocket")],
        [(b"x", b"y"), *PSEUDO],
        [(b":method", b"CONNECT"), *PSEUDO[1:]],
        [*PSEUDO[:1], (b":scheme", b"http"), *PSEUDO[2:]],
        [*PSEUDO[:2], *PSEUDO[3:]],
        [*PSEUDO[:2], (b":authority", b"user@example.com"), PSEUDO[3]],
        [*PSEUDO[:3], (b":path", b"a")],
    ],
)
def test_pseudo_headers_are_complete_known_and_at_the_front(pseudo: list[Field]) -> None:
    with pytest.raises(BadMessage):
        read_request(pseudo, limit=1000, end=True)


@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8))))
def test_any_header_section_is_read_or_refused(raw: list[RawField]) -> None:
    with suppress(BadMessage):
        read_request([*PSEUDO, *raw], limit=1000, end=True)
    with suppress(BadMessage):
        read_response([(b":status", b"200"), *raw], method="GET")
    with suppress(BadMessage):
        read_trailers(raw, 502)


def test_an_unreadable_pseudo_header_is_shown_as_sent() -> None:
    assert shown_pseudo([(b":path", b"/\xff")], b":path") == "/\u00ff"
    assert shown_pseudo([], b":method") == ""


# --- for origins


def test_a_credential_for_an_origin_stays_out_of_compression_tables() -> None:
    fields = for_http2_origin(request((b"x", b"y")), frozenset(), [(b"X-Api-Key", b"secret")])

    assert fields[-1] == (b"x-api-key", b"secret")
    assert isinstance(fields[-1], NeverIndexedHeaderTuple)


def test_what_was_to_be_dropped_is_dropped_under_every_spelling() -> None:
    sent = request(
        (b"x-a", b"1"),
        (b"x_a", b"1"),
        (b"proxy-authorization", b"1"),
        (b"content_length", b"1"),
        (b"x-b", b"2"),
    )

    fields = for_http2_origin(sent, frozenset({b"x-a"}), ())

    assert fields[4:] == [(b"x-b", b"2")]


def test_a_request_for_an_origin_of_http_1_has_one_cookie_field_and_our_framing() -> None:
    sent = request((b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"content-length", b"3"), end=False)

    head = for_http1_origin(sent, frozenset(), (), body=True)

    assert head.fields == [(b"cookie", b"a=1; b=2")]
    assert (head.length, head.chunked, head.host) == (3, False, b"example.com")


# --- responses


@pytest.mark.parametrize(
    "raw",
    [
        [],
        [(b":status", b"20")],
        [(b":status", b"200"), (b":status", b"200")],
        [(b":status", b"101")],
        [(b":status", b"200"), (b"connection", b"close")],
        [(b":status", b"200"), (b"x", b"a\rb")],
        [(b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"2")],
        [(b":status", b"200"), (b"content-length", b"x")],
    ],
)
def test_a_malformed_response_is_refused(raw: list[Field]) -> None:
    with pytest.raises(BadMessage) as caught:
        read_response(raw, method="GET")

    assert caught.value.status == 502


def test_the_same_length_twice_is_one_length() -> None:
    head = read_response(
        [(b":status", b"200"), (b"content-length", b"5"), (b"content-length", b"5")], method="GET"
    )

    assert for_client(head) == [(b":status", b"200"), (b"content-length", b"5")]


def test_names_of_an_origin_come_down_in_lower_case() -> None:
    head = read_response([(b":status", b"200"), (b"X-Y", b"z")], method="GET")

    assert for_client(head) == [(b":status", b"200"), (b"x-y", b"z")]
    assert read_trailers([(b"X-Sum", b"1")], 502) == [(b"x-sum", b"1")]


def test_fields_of_a_hop_and_other_routes_do_not_come_down() -> None:
    head = ResponseHead(
        status=200,
        minor=1,
        fields=[(b"Connection", b"X-Hop"), (b"X-Hop", b"1"), (b"Alt-Svc", b"h3"), (b"X", b"y")],
        options=frozenset({b"x-hop"}),
    )

    assert for_client(head) == [(b":status", b"200"), (b"x", b"y")]


@pytest.mark.parametrize("name", [b"Authorization", b"host", b"content_length", b"Set-Cookie"])
def test_trailers_hold_nothing_that_belongs_in_the_head(name: bytes) -> None:
    assert for_trailers([(name, b"1"), (b"X-Sum", b"2")]) == [(b"x-sum", b"2")]


def test_an_error_code_is_shown_by_its_name() -> None:
    assert (reset_text(7), reset_text(99)) == ("REFUSED_STREAM", "99")
