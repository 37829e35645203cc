"""The laws of the HTTP/1.1 lane: each request judged, both bodies streamed, no end made up."""

from collections.abc import Iterator
from itertools import cycle

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.connection import ConnectionState

from claude_proxy.errors import AuditError
from claude_proxy.events import DecisionMade, Event, Phase
from claude_proxy.policy.decision import denied
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.gate import Attempt, Gate
from claude_proxy.proxy.layers.http1_proxy import proxy_lane
from claude_proxy.proxy.layers.session import Waiting
from claude_proxy.proxy.layers.upstream import UpstreamConnection, UpstreamOpened
from claude_proxy.proxy.warm_keys import Route
from tests.proxy.layers.http1_peers import (
    ALLOWLIST,
    DENIED,
    EMPTY,
    EXAMPLE,
    GET,
    LAST_CHUNK,
    OK,
    OTHER,
    PlayForward,
    closes,
    post,
    reason_of,
    statuses,
)
from tests.proxy.layers.stage import (
    UPSTREAM_ADDRESS,
    BrokenPolicy,
    Ledger,
    Peer,
    Stage,
    a_dialer,
    gate_of,
    policy_of,
)


@pytest.fixture
def stage(forward: PlayForward) -> Stage:
    return forward()


# --- one request


def test_a_request_goes_up_in_origin_form_and_its_answer_comes_down(
    stage: Stage, ledger: Ledger
) -> None:
    stage.says(
        b"GET http://example.com/a/b?c=d HTTP/1.1\r\nHost: example.com\r\nX-Case: Kept\r\n\r\n"
    )
    answer = stage.answers(OK)

    assert stage.upstream.take() == (
        b"GET /a/b?c=d HTTP/1.1\r\nHost: example.com\r\nX-Case: Kept\r\n\r\n"
    )
    assert answer == OK
    assert stage.upstream.address == ("example.com", 80)
    assert not stage.client.closed
    assert (ledger.last.status, ledger.last.bytes_down, ledger.last.error) == (200, 2, None)
    assert ledger.last.upstream == "203.0.113.5:443"


def test_nothing_is_dialled_before_the_request_is_allowed(stage: Stage) -> None:
    stage.says(GET[:-1])

    assert stage.upstreams == []


def test_a_head_that_comes_byte_by_byte_is_read_all_the_same(stage: Stage) -> None:
    for byte in GET:
        stage.says(bytes([byte]))

    assert stage.upstream.take().startswith(b"GET / HTTP/1.1\r\n")


# --- denials


def test_a_denial_comes_at_the_head_and_does_not_wait_for_the_body(
    stage: Stage, ledger: Ledger
) -> None:
    answer = stage.says(
        b"POST http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 99\r\n\r\n"
    )

    assert statuses(answer) == [403]
    assert reason_of(answer) == "no-rule"
    assert closes(answer)
    assert stage.client.closed
    assert stage.upstreams == []
    assert ledger.last.status == 403


def test_a_denial_without_a_body_keeps_the_connection(stage: Stage) -> None:
    denied = stage.says(DENIED)
    stage.says(GET)

    assert statuses(denied) == [403]
    assert not closes(denied)
    assert statuses(stage.answers(OK)) == [200]


def test_a_denial_of_head_has_no_body(stage: Stage) -> None:
    answer = stage.says(b"HEAD http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n")

    assert answer.endswith(b"\r\n\r\n")
    assert reason_of(answer) == "no-rule"


def test_an_expectation_of_a_denied_request_is_not_continued(stage: Stage) -> None:
    answer = stage.says(
        b"POST http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n"
        b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    )

    assert statuses(answer) == [403]
    assert stage.client.closed


def test_every_request_on_a_kept_connection_is_judged(stage: Stage, ledger: Ledger) -> None:
    stage.says(GET)
    stage.answers(OK)
    answer = stage.says(DENIED)

    assert statuses(answer) == [403]
    assert ledger.reasons == ["rule-matched", "no-rule"]
    assert len(stage.upstreams) == 1


def test_pipelined_requests_are_answered_in_order(stage: Stage, ledger: Ledger) -> None:
    first = stage.says(GET + DENIED + OTHER)
    rest = stage.answers(OK)

    assert first == b""
    assert statuses(rest) == [200, 403]
    assert stage.upstreams[1].take().startswith(b"GET / HTTP/1.1\r\nHost: other.example\r\n")
    assert statuses(stage.answers(EMPTY)) == [200]
    assert ledger.reasons == ["rule-matched", "no-rule", "rule-matched"]


@pytest.mark.parametrize(
    "message",
    [
        b"\x05\x01\x00",
        b"GET / SPDY/3\r\n\r\n",
        b"GET http://example.com/ HTTP/1.1\r\n\r\n",
        b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\nHost: example.com\r\n\r\n",
        post(b"", b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        post(b"", b"Content-Length: +1"),
    ],
)
def test_an_ambiguous_message_is_refused_whole(
    stage: Stage, ledger: Ledger, message: bytes
) -> None:
    answer = stage.says(message)

    assert statuses(answer) == [400]
    assert reason_of(answer) == "bad-request"
    assert stage.client.closed
    assert (ledger.reasons, ledger.decisions[0].phase) == (["bad-request"], Phase.REQUEST)
    assert stage.upstreams == []


def test_a_head_past_the_limit_is_refused(forward: PlayForward) -> None:
    stage = forward(head_limit=100)

    answer = stage.says(GET[:-2] + b"X: " + b"x" * 100)

    assert statuses(answer) == [400]
    assert stage.client.closed


# --- upgrades


WEBSOCKET = (
    b"GET http://example.com/chat HTTP/1.1\r\nHost: example.com\r\n"
    b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_a_websocket_is_relayed_both_ways_and_early_bytes_are_kept(
    stage: Stage, ledger: Ledger
) -> None:
    stage.says(WEBSOCKET + b"early")
    asked = stage.upstream.take()
    down = stage.answers(SWITCHED + b"greeting")
    up = stage.upstream.take()
    stage.says(b"ping")

    assert asked == (
        b"GET /chat HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert down == SWITCHED + b"greeting"
    assert up == b"early"
    assert stage.upstream.take() == b"ping"
    assert stage.answers(b"pong") == b"pong"
    assert stage.session.waiting is Waiting.TUNNEL

    stage.upstream_ends()

    assert stage.client.closed
    assert (ledger.last.status, ledger.last.bytes_up, ledger.last.bytes_down) == (101, 9, 12)
    assert ledger.last.error is None


def test_many_early_bytes_do_not_stop_a_websocket(stage: Stage) -> None:
    stage.says(WEBSOCKET + b"x" * 70_000)
    held = stage.client.held
    stage.answers(SWITCHED)

    assert held
    assert not stage.client.held


def test_a_websocket_whose_client_leaves_is_closed(stage: Stage, ledger: Ledger) -> None:
    stage.says(WEBSOCKET)
    stage.answers(SWITCHED)

    stage.client_half_closes()

    assert stage.client.closed
    assert stage.upstream.closed
    assert ledger.last.error == "client-closed"


def test_a_websocket_that_was_not_granted_is_an_ordinary_answer(stage: Stage) -> None:
    stage.says(WEBSOCKET)

    answer = stage.answers(OK)

    assert answer == OK
    assert not stage.client.closed


@pytest.mark.parametrize(
    ("message", "switched"),
    [
        (GET, SWITCHED),
        (WEBSOCKET, SWITCHED.replace(b"websocket", b"h2c")),
        (WEBSOCKET, SWITCHED.replace(b"websocket", b"websocket, h2c")),
    ],
)
def test_a_switch_that_was_not_asked_for_is_a_bad_answer(
    stage: Stage, ledger: Ledger, message: bytes, switched: bytes
) -> None:
    stage.says(message)

    answer = stage.answers(switched)

    assert (statuses(answer), reason_of(answer)) == ([502], "upstream-bad-answer")
    assert stage.upstream.closed
    assert ledger.last.error == "upstream-bad-answer"


# --- hop-by-hop fields


def test_hop_by_hop_fields_do_not_go_up(stage: Stage) -> None:
    stage.says(
        b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\nConnection: X-Mine\r\n"
        b"X-Mine: 1\r\nProxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\n"
        b"Keep-Alive: timeout=5\r\nTE: trailers\r\nAccept: */*\r\n\r\n"
    )

    assert stage.upstream.take() == (b"GET / HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n")


def test_answers_lose_what_would_lead_past_the_proxy(stage: Stage) -> None:
    stage.says(GET)

    answer = stage.answers(
        b'HTTP/1.1 200 OK\r\nAlt-Svc: h3=":443"\r\nKeep-Alive: timeout=5\r\nX: y\r\n'
        b"Content-Length: 0\r\n\r\n"
    )

    assert answer == b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(("host", "kept"), [(b"read.example", False), (b"example.com", True)])
def test_override_fields_are_stripped_only_where_a_rule_limits_requests(
    stage: Stage, host: bytes, *, kept: bool
) -> None:
    stage.says(
        b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\nX-HTTP-Method-Override: DELETE\r\n"
        b"X_Original_URL: /no\r\n\r\n" % (host, host)
    )

    up = stage.upstream.take()
    assert (b"Override" in up) is kept
    assert (b"X_Original_URL" in up) is kept


# --- HTTP/1.0


def test_http_1_0_gets_no_interim_answer_and_no_chunks(stage: Stage) -> None:
    stage.says(b"GET http://example.com/ HTTP/1.0\r\n\r\n")

    interim = stage.answers(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    answer = stage.answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: y\r\n\r\n"
    )

    assert interim == b""
    assert answer == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi"
    assert stage.client.closed


def test_http_1_0_with_keep_alive_is_kept(stage: Stage) -> None:
    stage.says(b"GET http://example.com/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    answer = stage.answers(OK)

    assert b"\r\nConnection: keep-alive\r\n" in answer
    assert not stage.client.closed


# --- bodies


def test_a_body_with_a_length_streams_up_as_it_comes(stage: Stage, ledger: Ledger) -> None:
    stage.says(post(b"", b"Content-Length: 6"))
    head = stage.upstream.take()
    stage.says(b"one")
    first = stage.upstream.take()
    stage.says(b"two")

    assert head == b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 6\r\n\r\n"
    assert (first, stage.upstream.take()) == (b"one", b"two")
    assert stage.answers(EMPTY) == EMPTY
    assert ledger.last.bytes_up == 6


def test_chunks_and_trailers_go_both_ways(stage: Stage, ledger: Ledger) -> None:
    stage.says(post(b"", b"Transfer-Encoding: chunked"))
    stage.upstream.take()
    stage.says(b"3;ext=1\r\nab")
    stage.says(b"c\r\n0\r\nX-Sum: 1\r\n\r\n")
    up = stage.upstream.take()
    first = stage.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nh")
    last = stage.answers(b"i\r\n0\r\nX-Sum: 2\r\n\r\n")

    assert up == b"2\r\nab\r\n1\r\nc\r\n0\r\nX-Sum: 1\r\n\r\n"
    assert first == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n"
    assert last == b"1\r\ni\r\n0\r\nX-Sum: 2\r\n\r\n"
    assert not stage.client.closed
    assert (ledger.last.bytes_up, ledger.last.bytes_down) == (3, 2)


def test_chunks_without_trailers_end_with_the_last_chunk(stage: Stage) -> None:
    stage.says(post(b"1\r\na\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"))

    assert stage.upstream.take().endswith(b"\r\n\r\n1\r\na\r\n0\r\n\r\n")


def test_a_body_waits_until_the_upstream_is_there(forward: PlayForward) -> None:
    stage = forward(connects=False)

    stage.says(post(b"one", b"Content-Length: 6"))
    stage.says(b"two")
    stage.reached()

    assert stage.upstream.take().endswith(b"\r\n\r\nonetwo")


def test_the_next_request_may_come_in_the_same_segment_as_a_body(stage: Stage) -> None:
    stage.says(post(b"", b"Content-Length: 3"))
    stage.upstream.take()
    stage.says(b"abc" + OTHER)
    answer = stage.answers(OK)

    assert stage.upstreams[0].take() == b"abc"
    assert answer == OK
    assert len(stage.upstreams) == 2


@pytest.mark.parametrize(
    "bad", [b"zz\r\n", b"1\r\nabc", b"1\nA\n", b"0\r\nContent-Length: 5\r\n\r\n"]
)
def test_a_malformed_body_ends_both_sides(stage: Stage, ledger: Ledger, bad: bytes) -> None:
    stage.says(post(b"", b"Transfer-Encoding: chunked"))
    stage.upstream.take()

    answer = stage.says(bad)

    assert statuses(answer) == [400]
    assert stage.client.closed
    assert stage.upstream.closed
    assert LAST_CHUNK not in stage.upstream.take()
    assert ledger.last.error == "bad-request-body"


def test_a_malformed_body_after_the_answer_began_just_ends(stage: Stage, ledger: Ledger) -> None:
    stage.says(post(b"", b"Transfer-Encoding: chunked"))
    stage.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")

    answer = stage.says(b"zz\r\n")

    assert answer == b""
    assert stage.client.closed
    assert ledger.last.error == "bad-request-body"


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
    ],
)
def test_an_answer_without_a_body_ends_with_its_head(
    stage: Stage, ledger: Ledger, method: bytes, answer: bytes
) -> None:
    stage.says(method + GET.removeprefix(b"GET"))

    assert stage.answers(answer) == answer
    assert len(ledger.outcomes) == 1
    assert stage.session.waiting is Waiting.IDLE


def test_interim_answers_go_down_before_the_final_one(stage: Stage) -> None:
    stage.says(post(b"", b"Content-Length: 2", b"Expect: 100-continue"))
    up = stage.upstream.take()

    continued = stage.answers(b"HTTP/1.1 100 Continue\r\n\r\n")
    stage.says(b"hi")
    rest = stage.answers(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)

    assert b"Expect: 100-continue\r\n" in up
    assert continued == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert stage.upstream.take() == b"hi"
    assert rest == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK


def test_interim_answers_without_end_are_a_bad_answer(stage: Stage, ledger: Ledger) -> None:
    stage.says(GET)

    got = stage.answers(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 33)

    assert statuses(got)[-1] == 502
    assert stage.upstream.closed
    assert ledger.last.error == "upstream-bad-answer"


def test_each_event_of_a_stream_comes_down_at_once(stage: Stage) -> None:
    stage.says(GET)
    stage.answers(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )

    assert stage.answers(b"9\r\ndata: 1\n\n\r\n") == b"9\r\ndata: 1\n\n\r\n"


def test_an_answer_head_that_comes_in_pieces_is_read_all_the_same(stage: Stage) -> None:
    stage.says(GET)

    got = b"".join(stage.answers(bytes([byte])) for byte in OK)

    assert got == OK


# --- ends


def test_an_answer_before_the_requests_end_ends_the_connection_when_it_is_whole(
    stage: Stage, ledger: Ledger
) -> None:
    stage.says(post(b"abc", b"Content-Length: 1000"))

    answer = stage.answers(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    assert statuses(answer) == [413]
    assert closes(answer)
    assert answer.endswith(b"no")
    assert stage.client.closed
    assert stage.upstream.closed
    assert (ledger.last.status, ledger.last.error) == (413, None)


def test_a_body_goes_on_while_an_early_answer_streams(stage: Stage) -> None:
    stage.says(post(b"", b"Content-Length: 4"))
    stage.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    stage.upstream.take()

    stage.says(b"1234")
    rest = stage.answers(b"cd")

    assert stage.upstream.take() == b"1234"
    assert rest == b"cd"
    assert stage.client.closed


def test_a_client_that_half_closes_still_gets_its_answer(stage: Stage, ledger: Ledger) -> None:
    stage.says(GET)
    stage.client_half_closes()

    answer = stage.answers(OK)

    assert answer == OK
    assert stage.client.closed
    assert ledger.last.error is None


def test_pipelined_requests_before_a_half_close_are_all_answered(stage: Stage) -> None:
    stage.says(GET + GET)
    stage.client_half_closes()

    first, second = stage.answers(OK), stage.answers(OK)

    assert (first, second) == (OK, OK)
    assert stage.client.closed


def test_a_client_that_half_closes_within_its_body_is_let_go(stage: Stage, ledger: Ledger) -> None:
    stage.says(post(b"ab", b"Content-Length: 5"))

    stage.client_half_closes()

    assert stage.client.closed
    assert stage.upstream.closed
    assert ledger.last.error == "client-closed"


def test_a_client_that_half_closes_without_a_request_is_let_go(stage: Stage) -> None:
    stage.client_half_closes()

    assert stage.client.closed


def test_a_client_that_leaves_is_recorded(stage: Stage, ledger: Ledger) -> None:
    stage.says(GET)

    stage.client_goes()
    stage.answers(OK)

    assert (ledger.last.error, ledger.last.status) == ("client-closed", None)
    assert len(ledger.outcomes) == 1


def test_a_client_may_leave_between_requests(stage: Stage, ledger: Ledger) -> None:
    stage.client_goes()

    assert ledger.events == []


def test_a_body_that_ends_with_the_connection_is_whole_at_its_end(
    stage: Stage, ledger: Ledger
) -> None:
    stage.says(GET)
    first = stage.answers(b"HTTP/1.1 200 OK\r\n\r\nhi")

    last = stage.upstream_ends()

    assert first == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
    assert last == LAST_CHUNK
    assert not stage.client.closed
    assert ledger.last.error is None


def test_a_body_that_ends_with_the_connection_stays_so_for_http_1_0(stage: Stage) -> None:
    stage.says(b"GET http://example.com/ HTTP/1.0\r\n\r\n")
    stage.answers(b"HTTP/1.1 200 OK\r\n\r\nhi")

    last = stage.upstream_ends()

    assert last == b""
    assert stage.client.closed


@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
    ],
)
def test_an_answer_that_is_cut_short_never_looks_whole(
    stage: Stage, ledger: Ledger, begun: bytes
) -> None:
    stage.says(GET)
    stage.answers(begun)

    last = stage.upstream_ends()

    assert last == b""
    assert stage.client.closed
    assert ledger.last.error == "upstream-cut-short"


def test_an_answer_that_breaks_off_never_looks_whole(stage: Stage, ledger: Ledger) -> None:
    """A reset, or a TLS record that was tampered with, is no rightful end of anything."""
    stage.says(GET)
    stage.answers(b"HTTP/1.1 200 OK\r\n\r\nhi")

    last = stage.upstream_ends(error="ConnectionResetError")

    assert last == b""
    assert stage.client.closed
    assert ledger.last.error == "upstream-cut-short"


def test_an_upstream_that_closes_without_an_answer_is_a_bad_gateway(
    stage: Stage, ledger: Ledger
) -> None:
    stage.says(GET)

    answer = stage.upstream_ends()

    assert (statuses(answer), reason_of(answer)) == ([502], "upstream-closed")
    assert not closes(answer)
    assert (ledger.last.status, ledger.last.error) == (502, "upstream-closed")
    assert len(stage.upstreams) == 1


def test_an_upstream_that_closes_within_its_head_is_a_bad_gateway(stage: Stage) -> None:
    stage.says(GET)
    stage.answers(b"HTTP/1.1 200 O")

    answer = stage.upstream_ends()

    assert reason_of(answer) == "upstream-closed"


def test_an_upstream_that_closes_between_requests_is_dialled_again(stage: Stage) -> None:
    stage.says(GET)
    stage.answers(OK)
    stage.upstream_ends()
    stage.says(GET)

    assert len(stage.upstreams) == 2
    assert statuses(stage.answers(OK)) == [200]


def test_an_upstream_that_says_close_is_not_used_again(stage: Stage) -> None:
    stage.says(GET)
    answer = stage.answers(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
    stage.says(GET)

    assert answer == OK
    assert stage.upstreams[0].closed
    assert len(stage.upstreams) == 2


def test_a_kept_upstream_serves_only_its_own_target(stage: Stage) -> None:
    stage.says(GET)
    stage.answers(OK)
    stage.says(OTHER)

    assert stage.upstreams[0].closed
    assert stage.upstreams[1].address == ("other.example", 80)


def test_a_kept_upstream_is_used_again(stage: Stage) -> None:
    for _ in range(3):
        stage.says(GET)
        stage.answers(OK)

    assert len(stage.upstreams) == 1


def test_a_client_that_says_close_is_closed_after_the_answer(stage: Stage) -> None:
    stage.says(
        b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"
    )

    answer = stage.answers(OK)

    assert closes(answer)
    assert stage.client.closed


# --- a kept connection that turns out to be dead


def kept(stage: Stage) -> None:
    """Have one exchange, so that the next one finds its upstream open."""
    stage.says(GET)
    stage.answers(OK)
    stage.upstream.take()


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
def test_an_idempotent_request_is_sent_once_more_if_its_upstream_was_dead(
    stage: Stage, method: bytes
) -> None:
    kept(stage)
    stage.says(method + GET.removeprefix(b"GET"))
    again = stage.upstream_ends()
    sent = stage.upstream.take()
    last = stage.upstream_ends()

    assert again == b""
    assert len(stage.upstreams) == 2
    assert sent.startswith(method + b" / HTTP/1.1\r\n")
    assert reason_of(last) == "upstream-closed"
    assert len(stage.upstreams) == 2


def test_a_request_is_never_sent_twice_if_it_changes_something(stage: Stage) -> None:
    kept(stage)
    stage.says(post(b"pay", b"Content-Length: 3"))

    answer = stage.upstream_ends()

    assert reason_of(answer) == "upstream-closed"
    assert len(stage.upstreams) == 1


def test_a_body_that_has_begun_to_leave_is_never_sent_again(stage: Stage) -> None:
    kept(stage)
    stage.says(b"PUT" + post(b"ab", b"Content-Length: 5").removeprefix(b"POST"))

    answer = stage.upstream_ends()

    assert reason_of(answer) == "upstream-closed"
    assert closes(answer)
    assert len(stage.upstreams) == 1


def test_a_body_that_has_not_begun_to_leave_goes_to_the_new_upstream(stage: Stage) -> None:
    kept(stage)
    stage.says(b"PUT" + post(b"", b"Content-Length: 2").removeprefix(b"POST"))
    stage.upstream_ends()
    stage.says(b"ab")

    assert len(stage.upstreams) == 2
    assert stage.upstream.take().endswith(b"\r\n\r\nab")


def test_an_answer_that_has_begun_is_not_asked_for_again(stage: Stage) -> None:
    kept(stage)
    stage.says(GET)
    stage.answers(b"HTTP/1.1 2")

    answer = stage.upstream_ends()

    assert reason_of(answer) == "upstream-closed"
    assert len(stage.upstreams) == 1


# --- bad answers


def test_bytes_after_an_answer_close_the_upstream(stage: Stage) -> None:
    """They could be made to answer the next request (response splitting)."""
    stage.says(GET)
    answer = stage.answers(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    stage.says(GET)

    assert answer == OK
    assert stage.upstreams[0].closed
    assert len(stage.upstreams) == 2
    assert stage.answers(OK) == OK


def test_bytes_that_answer_nothing_close_the_upstream(stage: Stage) -> None:
    kept(stage)

    stage.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    assert stage.upstream.closed
    assert not stage.client.closed


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_an_answer_that_is_not_http_is_a_bad_gateway(
    stage: Stage, ledger: Ledger, answer: bytes
) -> None:
    stage.says(GET)

    got = stage.answers(answer)

    assert (statuses(got), reason_of(got)) == ([502], "upstream-bad-answer")
    assert stage.upstream.closed
    assert ledger.last.status == 502


def test_a_bad_chunk_within_an_answer_just_ends_it(stage: Stage, ledger: Ledger) -> None:
    stage.says(GET)
    stage.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")

    got = stage.answers(b"zz\r\n")

    assert got == b""
    assert stage.client.closed
    assert ledger.last.error == "upstream-bad-answer"


# --- unreachable upstreams


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (DialError(Failure.REFUSED, "it refuses"), 502, "connect-refused"),
        (DialError(Failure.UNRESOLVED, "no such name"), 502, "dns-failed"),
        (DialError(Failure.UNREACHABLE, "no route"), 502, "connect-unreachable"),
        (DialError(Failure.TIMEOUT, "too slow"), 504, "connect-timeout"),
        (DialError(Failure.PROXY, "it says no"), 502, "upstream-proxy-failed"),
        (
            DialError(Failure.DENIED, "no", denied(Reason.ADDRESS_NOT_ALLOWED)),
            403,
            "address-not-allowed",
        ),
    ],
)
def test_denied_and_unreachable_are_told_apart(
    forward: PlayForward, ledger: Ledger, error: DialError, status: int, reason: str
) -> None:
    stage = forward(connects=False)
    stage.says(GET)

    answer = stage.reached(error)

    assert (statuses(answer), reason_of(answer)) == ([status], reason)
    assert (ledger.last.status, ledger.last.error) == (status, reason)
    assert not stage.client.closed


def test_requests_behind_one_that_cannot_be_forwarded_are_answered_too(
    forward: PlayForward,
) -> None:
    stage = forward(connects=False)
    stage.says(GET + GET)

    first = stage.reached(DialError(Failure.REFUSED, "it refuses"))
    second = stage.reached(DialError(Failure.REFUSED, "it refuses"))

    assert (statuses(first), statuses(second)) == ([502], [502])


@pytest.mark.parametrize(
    "error",
    [
        DialError(Failure.REFUSED, "it refuses"),
        DialError(Failure.DENIED, "no", denied(Reason.PROXY_LOOP)),
    ],
)
def test_a_body_for_an_unreachable_upstream_is_not_awaited(
    forward: PlayForward, error: DialError
) -> None:
    stage = forward(connects=False)
    stage.says(post(b"ab", b"Content-Length: 5"))

    answer = stage.reached(error)

    assert closes(answer)
    assert stage.client.closed


def test_the_next_request_may_reach_an_upstream_that_the_last_could_not(
    forward: PlayForward,
) -> None:
    stage = forward(connects=False)
    stage.says(GET)
    stage.reached(DialError(Failure.REFUSED, "it refuses"))
    stage.says(GET)
    stage.reached()

    assert stage.answers(OK) == OK


def test_an_upstream_that_opens_after_its_client_left_is_harmless(forward: PlayForward) -> None:
    """The client's body was malformed while the dial was under way."""
    stage = forward(connects=False)
    stage.says(GET)
    stage.client_goes()

    assert stage.reached() == b""


# --- backpressure


def test_a_client_that_sends_more_than_can_be_used_is_no_longer_read(forward: PlayForward) -> None:
    stage = forward(connects=False)

    stage.says(post(b"x" * 70_000, b"Content-Length: 70000"))
    held = stage.client.held
    stage.reached()

    assert held
    assert not stage.client.held
    assert len(stage.upstream.take()) > 70_000


def test_pipelined_requests_past_the_limit_are_not_read(stage: Stage) -> None:
    count = 70_000 // len(GET) + 1

    stage.says(GET * count)
    held = stage.client.held
    for _ in range(count):
        stage.answers(EMPTY)

    assert held
    assert not stage.client.held
    assert stage.session.waiting is Waiting.IDLE


def test_a_long_head_is_read_up_to_its_own_limit(forward: PlayForward) -> None:
    stage = forward(head_limit=256 * 1024)

    stage.says(GET[:-2] + b"X: " + b"x" * 100_000)
    held = stage.client.held
    stage.says(b"\r\n\r\n")

    assert not held
    assert stage.answers(OK) == OK


# --- time


def test_the_lane_says_what_it_waits_for(forward: PlayForward) -> None:
    stage = forward(connects=False)
    waits = [stage.session.waiting]
    stage.says(GET[:10])
    waits.append(stage.session.waiting)
    stage.says(GET[10:])
    waits.append(stage.session.waiting)
    stage.reached()
    waits.append(stage.session.waiting)
    stage.answers(OK)
    waits.append(stage.session.waiting)

    assert waits == [
        Waiting.IDLE,
        Waiting.HEAD,
        Waiting.UPSTREAM,
        Waiting.EXCHANGE,
        Waiting.IDLE,
    ]


def test_a_trickling_head_does_not_gain_time_with_each_byte(stage: Stage) -> None:
    stage.says(GET[:10])
    turn = stage.session.wait_id
    stage.says(GET[10:20])

    assert stage.session.wait_id == turn


def test_a_head_that_does_not_come_in_time_is_a_408(stage: Stage) -> None:
    stage.says(GET[:10])

    answer = stage.expires()

    assert statuses(answer) == [408]
    assert stage.client.closed


def test_an_idle_connection_is_closed_without_a_response(stage: Stage) -> None:
    stage.says(GET)
    stage.answers(OK)

    assert stage.expires() == b""
    assert stage.client.closed


@pytest.mark.parametrize("connects", [True, False])
def test_an_upstream_that_does_not_answer_in_time_is_a_504(
    forward: PlayForward, ledger: Ledger, *, connects: bool
) -> None:
    stage = forward(connects=connects)
    stage.says(GET)

    answer = stage.expires()

    assert (statuses(answer), reason_of(answer)) == ([504], "upstream-timeout")
    assert closes(answer)
    assert stage.client.closed
    assert stage.upstream.closed
    assert (ledger.last.status, ledger.last.error) == (504, "upstream-timeout")


def test_a_response_that_stalls_is_cut(stage: Stage, ledger: Ledger) -> None:
    stage.says(GET)
    stage.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")

    assert stage.expires() == b""
    assert stage.client.closed
    assert ledger.last.error == "idle-timeout"


def test_a_withdrawn_rule_ends_what_runs_under_it(stage: Stage, ledger: Ledger) -> None:
    stage.says(GET)
    stage.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")

    assert stage.is_withdrawn() == b""
    assert stage.client.closed
    assert stage.upstream.closed
    assert ledger.last.error == "rule-withdrawn"


def test_a_proxy_that_stops_lets_a_running_exchange_end_and_takes_no_other(stage: Stage) -> None:
    stage.says(GET)
    stage.session.closing = True

    answer = stage.answers(OK)

    assert closes(answer)
    assert stage.client.closed


def test_a_proxy_that_stops_within_an_answer_closes_when_it_is_whole(stage: Stage) -> None:
    stage.says(GET)
    stage.answers(OK[:-1])
    stage.session.closing = True

    stage.answers(OK[-1:])

    assert stage.client.closed


def test_a_proxy_that_stops_closes_after_a_denial(stage: Stage) -> None:
    stage.session.closing = True

    answer = stage.says(DENIED)

    assert closes(answer)
    assert stage.client.closed


# --- faults


def test_a_fault_in_the_policy_denies(forward: PlayForward, ledger: Ledger) -> None:
    stage = forward(gate=Gate(BrokenPolicy(), ledger.events.append))

    answer = stage.says(GET)

    assert (statuses(answer), reason_of(answer)) == ([403], "internal-error")
    assert stage.upstreams == []


def test_what_cannot_be_recorded_is_denied(forward: PlayForward) -> None:
    def record(event: Event) -> None:
        if isinstance(event, DecisionMade):
            raise AuditError("the disk is full")

    stage = forward(gate=Gate(policy_of(ALLOWLIST), record))

    answer = stage.says(GET)

    assert (statuses(answer), reason_of(answer)) == ([403], "audit-failed")
    assert stage.upstreams == []


# --- through an upstream proxy


def test_bytes_of_a_discarded_upstream_are_ignored(stage: Stage) -> None:
    stage.says(GET)
    stage.answers(OK)
    discarded: Peer = stage.upstream
    stage.says(OTHER)

    assert stage.answers(OK, discarded) == b""
    assert stage.answers(EMPTY) == EMPTY


# --- any segmentation


class Echo:
    """An origin that answers each request with its method, target and body, read by h11."""

    def __init__(self, stage: Stage, cuts: Iterator[int]) -> None:
        self._stage = stage
        self._cuts = cuts
        self._ends: dict[Peer, h11.Connection] = {}
        self._told: dict[Peer, bytes] = {}

    def works(self) -> bytes:
        """Read what came, answer what is complete; return what the client gets."""
        got = b""
        for peer in self._stage.upstreams:
            end = self._ends.setdefault(peer, h11.Connection(h11.SERVER))
            while data := peer.take():
                end.receive_data(data)
                got += self._read(peer, end)
        return got

    def _read(self, peer: Peer, end: h11.Connection) -> bytes:
        got = b""
        while not isinstance(event := end.next_event(), type(h11.NEED_DATA)):
            if isinstance(event, h11.Request):
                self._told[peer] = event.method + b" " + event.target + b" "
            elif isinstance(event, h11.Data):
                self._told[peer] += event.data
            else:
                assert isinstance(event, h11.EndOfMessage)
                got += self._answer(peer, end)
        return got

    def _answer(self, peer: Peer, end: h11.Connection) -> bytes:
        body = self._told[peer]
        framing = (
            ("Transfer-Encoding", "chunked")
            if len(body) % 2
            else ("Content-Length", str(len(body)))
        )
        answer = end.send(h11.Response(status_code=200, headers=[framing])) or b""
        answer += (end.send(h11.Data(data=body)) or b"") + (end.send(h11.EndOfMessage()) or b"")
        end.start_next_cycle()
        return b"".join(self._stage.answers(piece, peer) for piece in cut(answer, self._cuts))


def cut(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    while data:
        size = next(sizes)
        yield data[:size]
        data = data[size:]


def answers_in(got: bytes, methods: list[str]) -> list[tuple[int, bytes]]:
    """Read a client's answers with h11."""
    client, read = h11.Connection(h11.CLIENT), list[tuple[int, bytes]]()
    client.receive_data(got)
    for method in methods:
        client.send(h11.Request(method=method, target="/", headers=[("Host", "example.com")]))
        client.send(h11.EndOfMessage())
        head = client.next_event()
        assert isinstance(head, h11.Response)
        body = b""
        while isinstance(event := client.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        client.start_next_cycle()
        read.append((head.status_code, body))
    assert client.trailing_data == (b"", False)
    return read


CONVERSATION = [
    ("GET", GET, (200, b"GET / ")),
    ("POST", post(b"abc"), (200, b"POST / abc")),
    ("GET", DENIED, (403, b"")),
    (
        "PUT",
        b"PUT"
        + post(b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: 1\r\n\r\n", b"Transfer-Encoding: chunked")[4:],
        (200, b"PUT / abc"),
    ),
    ("GET", OTHER, (200, b"GET / ")),
    ("POST", post(b"x" * 300, path=b"/long"), (200, b"POST /long " + b"x" * 300)),
    ("GET", GET, (200, b"GET / ")),
]


@given(
    parts=st.lists(st.sampled_from(CONVERSATION), min_size=1, max_size=6),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=30),
)
def test_no_segmentation_changes_a_request_or_its_response(
    parts: list[tuple[str, bytes, tuple[int, bytes]]], sizes: list[int]
) -> None:
    cuts = cycle(sizes)
    stage = Stage(
        lambda context, session: proxy_lane(
            context, session, scheme=Scheme.HTTP, target=None, dialer=a_dialer()
        ),
        gate_of(ALLOWLIST, Ledger()),
    )
    echo, got = Echo(stage, cuts), b""

    for piece in cut(b"".join(message for _, message, _ in parts), cuts):
        got += stage.says(piece) + echo.works()

    read = answers_in(got, [method for method, _, _ in parts])
    seen = [(status, b"" if status == 403 else body) for status, body in read]
    assert seen == [answer for _, _, answer in parts]


# --- turns


def test_a_pipeline_is_interrupted_when_its_turn_is_over(stage: Stage, ledger: Ledger) -> None:
    stage.session.is_turn_over = lambda: len(ledger.decisions) % 2 == 0

    first = stage.says(DENIED * 5)
    assert (statuses(first), len(ledger.decisions)) == ([403] * 2, 2)
    assert stage.says(b"") == b""
    second = stage.turn_comes()
    third = stage.turn_comes()

    assert statuses(second) + statuses(third) == [403] * 3
    assert not stage.awaits_turn


def test_a_client_need_not_read_while_it_uploads_but_between_requests(stage: Stage) -> None:
    stage.says(DENIED)
    between = stage.session.reads_while_sending
    stage.says(post(b"", b"Content-Length: 2"))

    assert (between, stage.session.reads_while_sending) == (True, False)


def test_a_request_that_comes_alone_is_never_interrupted(stage: Stage) -> None:
    stage.session.is_turn_over = lambda: True

    assert statuses(stage.says(DENIED)) == [403]
    assert not stage.awaits_turn


# --- on a connection that was open before the request


BOUND = """
allow: [{host: example.com, scheme: http}]
credentials:
  - {name: api, hosts: [example.com], pin: learn}
"""


def warm_peer(stage: Stage) -> Peer:
    """Have a connection ready for the next request, and return the upstream's end of it."""
    upstream = UpstreamConnection(EXAMPLE, tls=None, tunnel=False)
    upstream.server.state, upstream.server.peername = ConnectionState.OPEN, UPSTREAM_ADDRESS
    upstream.is_warm = True
    upstream.inbox.append(UpstreamOpened(None))
    peer = Peer(upstream.server)
    stage.upstreams.append(peer)
    ready = [upstream]
    stage.session.take_warm = lambda _route, _attempt: ready.pop() if ready else None
    return peer


def dies_untouched(stage: Stage, peer: Peer, *, untouched: bool = True) -> bytes:
    """Have the upstream turn out to have closed before anything of the request arrived."""
    peer.connection.is_untouched = untouched  # type: ignore[attr-defined]
    return stage.upstream_ends(peer)


def test_a_request_goes_on_a_connection_that_is_ready(stage: Stage, ledger: Ledger) -> None:
    peer = warm_peer(stage)
    stage.says(GET)

    assert peer.take() == b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
    assert statuses(stage.answers(OK, peer)) == [200]
    assert stage.upstreams == [peer]
    assert ledger.last.upstream == "203.0.113.5:443"


def test_the_policy_is_asked_again_before_it_goes(stage: Stage) -> None:
    peer = warm_peer(stage)
    take = stage.session.take_warm

    def take_late(route: Route, attempt: Attempt) -> UpstreamConnection | None:
        stage.session.gate.policy = policy_of(BOUND)
        return take(route, attempt)

    stage.session.take_warm = take_late

    assert statuses(stage.says(GET)) == [403]
    assert peer.got == b""
    assert peer.closed


@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
def test_what_never_arrived_is_sent_again_whatever_it_asks_for(
    stage: Stage, ledger: Ledger, method: bytes
) -> None:
    peer = warm_peer(stage)
    asked = post(b"hello", b"Content-Length: 10").replace(b"POST", method)
    stage.says(asked)
    first = peer.take()
    dies_untouched(stage, peer)
    stage.says(b"there")

    assert first.endswith(b"hello")
    assert stage.upstream is not peer
    assert stage.upstream.take() == first + b"there"
    assert statuses(stage.answers(OK)) == [200]
    assert ledger.last.bytes_up == 10


def test_chunks_that_never_arrived_are_sent_again(stage: Stage) -> None:
    peer = warm_peer(stage)
    stage.says(post(b"5\r\nhello\r\n", b"Transfer-Encoding: chunked"))
    first = peer.take()
    dies_untouched(stage, peer)
    stage.says(b"0\r\n\r\n")

    assert stage.upstream.take() == first + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("untouched", "size"), [(False, 5), (True, 300_000)], ids=["it arrived", "it is too long"]
)
def test_a_post_that_may_have_arrived_or_is_too_long_is_not_sent_again(
    stage: Stage, size: int, *, untouched: bool
) -> None:
    peer = warm_peer(stage)
    stage.says(post(b"x" * size))

    answer = dies_untouched(stage, peer, untouched=untouched)

    assert statuses(answer) == [502]
    assert stage.upstreams == [peer]


def test_it_is_sent_again_once(stage: Stage) -> None:
    peer = warm_peer(stage)
    stage.says(post(b"hello"))
    dies_untouched(stage, peer)
    fresh = stage.upstream

    assert statuses(dies_untouched(stage, fresh)) == [502]
    assert stage.upstreams == [peer, fresh]


def test_after_an_answer_has_begun_nothing_is_sent_again(stage: Stage) -> None:
    peer = warm_peer(stage)
    stage.says(post(b"hello"))
    stage.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nh", peer)
    dies_untouched(stage, peer)

    assert stage.upstreams == [peer]
    assert stage.client.closed


def test_a_second_request_on_it_is_one_of_a_kept_connection(stage: Stage) -> None:
    peer = warm_peer(stage)
    stage.says(GET)
    stage.answers(OK, peer)
    stage.says(post(b"hello"))

    assert statuses(dies_untouched(stage, peer)) == [502]
