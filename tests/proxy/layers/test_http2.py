"""The laws of HTTP/2 inside a tunnel: each stream judged by itself, at its head."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from claude_proxy.policy.decision import denied
from claude_proxy.policy.reason import Reason
from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.gate import Gate
from claude_proxy.proxy.layers.http2_flood import RESETS
from claude_proxy.proxy.layers.http2_windows import FIRST_WINDOW, LARGEST_WINDOW
from claude_proxy.proxy.layers.session import Waiting
from tests.proxy.layers.http2_peers import Http2Client, Http2Origin, pseudo
from tests.proxy.layers.http2_world import Http2World
from tests.proxy.layers.stage import BrokenPolicy, Ledger, Stage, gate_of
from tests.proxy.layers.tls_peers import TlsOrigin

type Play = Callable[..., Stage]
type Serve = Callable[..., TlsOrigin]


@pytest.fixture
def play(http2_world: Http2World) -> Play:
    """Return a function that plays an HTTP/2 connection inside a tunnel."""
    return http2_world.play


@pytest.fixture
def stage(http2_world: Http2World) -> Stage:
    return http2_world.play()


@pytest.fixture
def client(stage: Stage) -> Http2Client:
    return Http2Client(stage)


@pytest.fixture
def serve(http2_world: Http2World, stage: Stage) -> Serve:
    """Return a function that shakes hands as the origin that was dialled last."""

    def shake(host: str = "example.com", *protocols: str, on: Stage = stage) -> TlsOrigin:
        return http2_world.serve(on, host, *protocols)

    return shake


# --- one stream, to an upstream of each kind


def test_a_stream_is_answered_by_an_origin_of_http_2(
    client: Http2Client, serve: Serve, ledger: Ledger
) -> None:
    asked = client.get(("x-case", "kept"), path="/a?b=c")
    origin = Http2Origin(serve("example.com", "h2"), client)
    origin.answer(1, ("alt-svc", 'h3=":443"'), ("x", "y"), body=b"hi")

    request, answer = origin.messages[1], client.messages[asked]
    assert request.fields == {
        ":method": "GET",
        ":scheme": "https",
        ":authority": "example.com",
        ":path": "/a?b=c",
        "x-case": "kept",
    }
    assert (answer.status, answer.body, answer.over) == (200, b"hi", True)
    assert (answer.fields["x"], "alt-svc" in answer.fields) == ("y", False)
    assert (ledger.last.status, ledger.last.bytes_down, ledger.last.error) == (200, 2, None)
    assert ledger.last.upstream == "203.0.113.5:443"
    assert ledger.decisions[0].path == "/a"


def test_a_stream_is_answered_by_an_origin_of_http_1(
    client: Http2Client, serve: Serve, ledger: Ledger
) -> None:
    asked = client.get(("cookie", "a=1"), ("cookie", "b=2"), ("x", "y"))
    origin = serve("example.com", "http/1.1")
    request = origin.gets()
    client.pump(
        origin.answers(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\nhi"
        )
    )

    assert request == (b"GET / HTTP/1.1\r\nx: y\r\ncookie: a=1; b=2\r\nHost: example.com\r\n\r\n")
    answer = client.messages[asked]
    assert (answer.status, answer.body, answer.over) == (200, b"hi", True)
    assert "x-hop" not in answer.fields
    assert (ledger.last.status, ledger.last.bytes_down, ledger.last.error) == (200, 2, None)


def test_a_body_and_its_trailers_go_both_ways(
    client: Http2Client, serve: Serve, ledger: Ledger
) -> None:
    asked = client.ask(*pseudo("POST"), end=False)
    origin = Http2Origin(serve("example.com", "h2"), client)
    client.sends(asked, b"one")
    client.h2.send_headers(asked, [("x-sum", "1"), ("authorization", "x")], end_stream=True)
    client.pump()
    origin.pump()
    origin.answer(1, body=b"two", end=False)
    origin.h2.send_headers(1, [("x-sum", "2")], end_stream=True)
    origin.pump()

    request, answer = origin.messages[1], client.messages[asked]
    assert (request.body, request.over) == (b"one", True)
    assert request.trailers == {"x-sum": "1"}  # what could be taken for a head stays here
    assert (answer.body, answer.trailers, answer.over) == (b"two", {"x-sum": "2"}, True)
    assert (ledger.last.bytes_up, ledger.last.bytes_down) == (3, 3)


def test_each_event_of_a_stream_comes_down_at_once(client: Http2Client, serve: Serve) -> None:
    asked = client.get()
    origin = Http2Origin(serve("example.com", "h2"), client)

    origin.answer(1, body=b"data: 1\n\n", end=False)

    assert client.messages[asked].body == b"data: 1\n\n"
    assert not client.messages[asked].over


def test_streams_share_a_connection_to_an_origin_of_http_2(
    client: Http2Client, serve: Serve, stage: Stage
) -> None:
    first, second = client.get(path="/1"), client.get(path="/2")
    origin = Http2Origin(serve("example.com", "h2"), client)
    third = client.get(path="/3")
    origin.pump()
    for number in (1, 3, 5):
        origin.answer(number)

    assert [origin.messages[number].fields[":path"] for number in (1, 3, 5)] == ["/1", "/2", "/3"]
    assert all(client.messages[stream].over for stream in (first, second, third))
    assert len(stage.upstreams) == 1
    assert stage.session.waiting is Waiting.IDLE


def test_streams_at_the_same_time_have_a_connection_each_to_an_origin_of_http_1(
    client: Http2Client, serve: Serve, stage: Stage
) -> None:
    client.get(path="/1")
    client.get(path="/2")
    first = serve("example.com", "http/1.1")
    second = serve("example.com", "http/1.1")
    asked = [first.gets(), second.gets()]
    for origin in (first, second):
        client.pump(origin.answers(b"HTTP/1.1 204 No Content\r\n\r\n"))

    assert [request.split()[1] for request in asked] == [b"/1", b"/2"]
    assert len(stage.upstreams) == 2
    assert client.messages[1].status == client.messages[3].status == 204


def test_an_origin_of_http_1_is_asked_again_on_the_connection_that_is_free(
    client: Http2Client, serve: Serve, stage: Stage
) -> None:
    client.get(path="/1")
    origin = serve("example.com", "http/1.1")
    asked = [origin.gets()]
    client.pump(origin.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"))
    second = client.get(path="/2")
    asked.append(origin.gets())
    client.pump(origin.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nho"))

    assert [request.split()[1] for request in asked] == [b"/1", b"/2"]
    assert client.messages[second].body == b"ho"
    assert len(stage.upstreams) == 1


# --- denials


def test_a_denial_comes_at_the_head_while_the_body_is_still_being_sent(
    play: Play, ledger: Ledger
) -> None:
    stage = play("read.example")
    client = Http2Client(stage)

    asked = client.ask(*pseudo("POST", "/no", "read.example"), end=False)
    answer = client.messages[asked]
    client.pump(stage.says(DataFrame(asked, data=b"x" * 1000).serialize()))
    early = answer.code
    for _ in range(2):
        client.pump(stage.passes_time())

    assert early is None
    assert (answer.status, answer.reason, answer.over) == (403, "path-not-allowed", True)
    assert answer.code == ErrorCodes.NO_ERROR  # and not before the answer was complete
    assert client.terminated is None
    assert b"reason: path-not-allowed\n" in answer.body
    assert stage.upstreams == []
    assert ledger.reasons == ["path-not-allowed"]
    assert (ledger.last.status, len(ledger.outcomes)) == (403, 1)
    assert stage.session.waiting is Waiting.IDLE


def test_a_denied_stream_leaves_the_others_alone(
    client: Http2Client, serve: Serve, ledger: Ledger
) -> None:
    good = client.get()
    bad = client.ask(*pseudo("TRACE"))
    origin = Http2Origin(serve("example.com", "h2"), client)
    origin.answer(1, body=b"hi")

    assert client.messages[bad].reason == "method-refused"
    assert client.messages[good].body == b"hi"
    assert ledger.reasons == ["rule-matched", "method-refused"]


def test_a_denial_is_json_for_clients_that_prefer_it(client: Http2Client) -> None:
    asked = client.ask(*pseudo("TRACE"), ("accept", "application/json"))

    assert client.messages[asked].fields["content-type"] == "application/json"


def test_a_denial_of_head_has_no_body(play: Play) -> None:
    client = Http2Client(play("read.example"))

    asked = client.ask(*pseudo("HEAD", "/no", "read.example"))

    answer = client.messages[asked]
    assert (answer.status, answer.body, answer.over) == (403, b"", True)
    assert int(answer.fields["content-length"]) > 0


@pytest.mark.parametrize(
    ("authority", "reason"),
    [
        ("evil.example", "host-mismatch"),
        ("example.com:8443", "host-mismatch"),
        ("www.example.com", "host-mismatch"),
        ("127.1", "bad-request"),
    ],
)
def test_another_authority_reaches_nobody(
    client: Http2Client, stage: Stage, ledger: Ledger, authority: str, reason: str
) -> None:
    asked = client.get(host=authority)

    answer = client.messages[asked]
    assert (answer.reason, answer.status) == (reason, 403 if reason == "host-mismatch" else 400)
    assert ledger.reasons == [reason]
    assert stage.upstreams == []


@pytest.mark.parametrize(
    "fields",
    [
        (("host", "evil.example"),),
        (("host", "example.com"), ("host", "evil.example")),
        (("host", "example.com"), ("host", "example.com")),
        (("host", "a b"),),
    ],
)
def test_a_host_field_cannot_contradict_the_authority(
    client: Http2Client, stage: Stage, fields: tuple[tuple[str, str], ...]
) -> None:
    asked = client.get(*fields)

    assert client.messages[asked].reason == "bad-request"
    assert stage.upstreams == []


@pytest.mark.parametrize(
    ("authority", "host"),
    [("EXAMPLE.com", []), ("example.com:443", []), ("example.com", [("host", "example.com")])],
)
def test_another_spelling_of_the_target_agrees(
    client: Http2Client, serve: Serve, authority: str, host: list[tuple[str, str]]
) -> None:
    client.get(*host, host=authority)

    assert serve("example.com", "http/1.1").gets().startswith(b"GET / HTTP/1.1\r\n")


def test_a_host_field_stands_in_for_a_missing_authority(client: Http2Client, serve: Serve) -> None:
    client.ask((":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "example.com"))

    assert b"Host: example.com\r\n" in serve("example.com", "http/1.1").gets()


def test_an_international_name_is_asked_for_by_its_a_labels(play: Play, serve: Serve) -> None:
    name = "xn--bcher-kva.example"
    stage = play(name)

    Http2Client(stage).get(host=name)

    assert f"Host: {name}\r\n".encode() in serve(name, "http/1.1", on=stage).gets()


@pytest.mark.parametrize(
    "fields",
    [
        ((":method", "GET"), (":scheme", "http"), (":authority", "example.com"), (":path", "/")),
        pseudo("get"),
        pseudo("pos\ufb06"),  # a ligature that upper() makes "ST" of
        pseudo("G ET"),
        pseudo("GET", "relative"),
        pseudo("GET", "/a b"),
        pseudo("GET", "/a#b"),
        pseudo("GET", "/\u00e9"),
        pseudo("GET", "*"),
        pseudo("GET", "https://example.com/"),
        (*pseudo("GET"), ("x", "a\r\nx-evil: 1")),
        (*pseudo("GET"), ("x", "a\x00")),
        (*pseudo("GET"), ("x", "a\x0bb")),
        (*pseudo("GET"), ("x y", "a")),
        (*pseudo("GET"), ("x:", "a")),
        (*pseudo("GET"), ("x\r\n", "a")),
        (*pseudo("POST"), ("content-length", "5")),
        (*pseudo("POST"), ("content-length", "0"), ("content-length", "0")),
        (*pseudo("POST"), ("content-length", "+0")),
    ],
)
def test_what_is_not_a_plain_request_reaches_nobody(
    client: Http2Client, stage: Stage, ledger: Ledger, fields: tuple[tuple[str, str], ...]
) -> None:
    asked = client.ask(*fields)

    assert client.messages[asked].reason == "bad-request"
    assert stage.upstreams == []
    assert set(ledger.reasons) <= {"bad-request"}
    assert all(outcome.status == 400 for outcome in ledger.outcomes)


@pytest.mark.parametrize(
    "fields",
    [
        ((":method", "CONNECT"), (":authority", "evil.example:443")),
        pseudo("CONNECT"),
        ((":method", "CONNECT"), (":protocol", "websocket"), *pseudo("GET")[1:]),
        (*pseudo("GET"), ("transfer-encoding", "chunked")),
        (*pseudo("GET"), ("connection", "upgrade")),
        (*pseudo("GET"), ("upgrade", "websocket")),
        (*pseudo("GET"), ("X-Upper", "a")),
        (*pseudo("GET"), (":path", "/again")),
        pseudo("GET", host="evil example"),
        pseudo("GET", host="example..com"),
        pseudo("GET")[:2] + pseudo("GET")[3:],
    ],
)
def test_what_http_2_itself_forbids_reaches_nobody(
    client: Http2Client, stage: Stage, ledger: Ledger, fields: tuple[tuple[str, str], ...]
) -> None:
    asked = client.ask(*fields)

    answer = client.messages[asked]
    assert (answer.status, answer.reason, answer.over) == (400, "bad-request", True)
    assert ledger.reasons == ["bad-request"]
    assert stage.upstreams == []


def test_options_may_ask_for_the_whole_server(client: Http2Client, serve: Serve) -> None:
    client.ask(*pseudo("OPTIONS", "*"))

    assert serve("example.com", "http/1.1").gets().startswith(b"OPTIONS * HTTP/1.1\r\n")


@pytest.mark.parametrize(("host", "kept"), [("read.example", False), ("example.com", True)])
def test_override_fields_are_stripped_only_where_a_rule_limits_requests(
    play: Play, serve: Serve, host: str, *, kept: bool
) -> None:
    stage = play(host)
    Http2Client(stage).get(
        ("x-http-method-override", "DELETE"),
        ("x_original_url", "/no"),
        ("proxy-authorization", "Basic x"),
        ("content_length", "9"),
        path="/ok",
        host=host,
    )

    up = serve(host, "http/1.1", on=stage).gets()

    assert (b"override" in up) is kept
    assert (b"x_original_url" in up) is kept
    assert b"proxy" not in up
    assert b"content_length" not in up


# --- no body becomes a request of its own

SMUGGLED = b"GET /no HTTP/1.1\r\nHost: read.example\r\n\r\n"


@pytest.mark.parametrize("length", [(), (("content-length", str(len(SMUGGLED))),)])
def test_a_body_stays_a_body_at_an_origin_of_http_1(
    play: Play, serve: Serve, length: tuple[tuple[str, str], ...]
) -> None:
    stage = play("read.example")
    client = Http2Client(stage)
    client.ask(*pseudo("POST", "/ok", "read.example"), *length, body=SMUGGLED)

    up = serve("read.example", "http/1.1", on=stage).gets()

    head, _, rest = up.partition(b"\r\n\r\n")
    if length:
        assert b"Content-Length: %d" % len(SMUGGLED) in head
        assert rest == SMUGGLED
    else:
        assert head.endswith(b"\r\nTransfer-Encoding: chunked")
        assert rest == b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)


@pytest.mark.parametrize("length", ["3", "300"])
def test_a_body_that_is_not_as_long_as_it_says_is_not_sent_on(
    client: Http2Client, serve: Serve, ledger: Ledger, length: str
) -> None:
    asked = client.ask(*pseudo("POST"), ("content-length", length), end=False)
    origin = serve("example.com", "http/1.1")
    head = origin.gets()

    client.sends(asked, SMUGGLED, end=True)

    assert head.endswith(b"\r\n\r\n")
    assert origin.gets() == b""
    assert origin.peer.closed
    answer = client.messages[asked]
    assert (answer.status, answer.reason, answer.over) == (400, "bad-request", True)
    assert ledger.last.error == "bad-request-body"


# --- what cannot be reached


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (DialError(Failure.REFUSED, "it refuses"), 502, "connect-refused"),
        (DialError(Failure.TIMEOUT, "too slow"), 504, "connect-timeout"),
        (
            DialError(Failure.DENIED, "no", denied(Reason.ADDRESS_NOT_ALLOWED)),
            403,
            "address-not-allowed",
        ),
    ],
)
@pytest.mark.parametrize("body", [b"", b"body"])
def test_denied_and_unreachable_are_told_apart(
    play: Play, ledger: Ledger, error: DialError, status: int, reason: str, body: bytes
) -> None:
    stage = play(connects=False)
    client = Http2Client(stage)
    asked = client.ask(*pseudo("POST" if body else "GET"), body=body)

    client.pump(stage.reached(error))

    answer = client.messages[asked]
    assert (answer.status, answer.reason, answer.over) == (status, reason, True)
    assert (ledger.last.status, ledger.last.error) == (status, reason)
    assert stage.session.waiting is Waiting.IDLE


def test_the_next_stream_may_reach_what_the_last_could_not(play: Play, serve: Serve) -> None:
    stage = play(connects=False)
    client = Http2Client(stage)
    client.get()
    client.pump(stage.reached(DialError(Failure.REFUSED, "it refuses")))
    asked = client.get()
    stage.reached()
    Http2Origin(serve("example.com", "h2", on=stage), client).answer(1, body=b"hi")

    assert client.messages[asked].body == b"hi"


def test_a_certificate_for_another_name_is_a_bad_gateway(
    client: Http2Client, serve: Serve, ledger: Ledger
) -> None:
    asked = client.get()

    origin = serve("evil.example", "h2")
    client.pump(origin.for_client)

    answer = client.messages[asked]
    assert (answer.status, answer.reason) == (502, "upstream-certificate-invalid")
    assert ledger.last.error == "upstream-certificate-invalid"


def test_an_upstream_that_speaks_no_tls_is_a_bad_gateway(
    client: Http2Client, stage: Stage, ledger: Ledger
) -> None:
    asked = client.get()

    client.pump(stage.answers(b"SSH-2.0-OpenSSH\r\n"))

    assert client.messages[asked].reason == "upstream-tls-failed"
    assert ledger.last.status == 502


# --- ends


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
@pytest.mark.parametrize("body", [None, b"body"])
def test_an_upstream_that_leaves_without_an_answer_is_a_bad_gateway(
    client: Http2Client,
    serve: Serve,
    stage: Stage,
    ledger: Ledger,
    protocol: str,
    body: bytes | None,
) -> None:
    asked = client.ask(*pseudo("POST"), body=body or b"", end=body is None)
    serve("example.com", protocol).gets()

    client.pump(stage.upstream_ends())

    answer = client.messages[asked]
    assert (answer.status, answer.reason, answer.over) == (502, "upstream-closed", True)
    assert (ledger.last.status, ledger.last.error) == (502, "upstream-closed")
    assert len(ledger.outcomes) == 1


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_an_answer_that_is_cut_short_is_reset(
    client: Http2Client, serve: Serve, stage: Stage, ledger: Ledger, protocol: str
) -> None:
    asked = client.get()
    tls = serve("example.com", protocol)
    if protocol == "h2":
        Http2Origin(tls, client).answer(1, body=b"half", end=False)
    else:
        tls.gets()
        client.pump(tls.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"))

    client.pump(stage.upstream_ends())

    answer = client.messages[asked]
    assert (answer.body, answer.over, answer.reset) == (b"half", False, True)
    assert (ledger.last.status, ledger.last.error) == (200, "upstream-cut-short")


def test_a_stream_that_its_client_resets_is_recorded(
    client: Http2Client, serve: Serve, ledger: Ledger
) -> None:
    asked = client.get()
    origin = Http2Origin(serve("example.com", "h2"), client)
    client.h2.reset_stream(asked)
    client.pump()
    origin.pump()

    assert origin.messages[1].reset
    assert ledger.last.error == "stream-broken-off"


def test_a_client_that_leaves_is_recorded(
    client: Http2Client, serve: Serve, stage: Stage, ledger: Ledger
) -> None:
    client.get()
    Http2Origin(serve("example.com", "h2"), client)

    stage.client_goes()

    assert ledger.last.error == "client-closed"


def test_a_client_that_leaves_before_its_upstream_is_there_is_recorded(
    client: Http2Client, stage: Stage, ledger: Ledger
) -> None:
    client.get()

    stage.client_goes()

    assert [outcome.error for outcome in ledger.outcomes] == ["client-closed"]


def test_a_silent_upstream_is_a_gateway_timeout(
    client: Http2Client, serve: Serve, stage: Stage, ledger: Ledger
) -> None:
    asked = client.get()
    serve("example.com", "h2")

    client.pump(stage.expires())

    answer = client.messages[asked]
    assert (answer.status, answer.reason, answer.over) == (504, "upstream-timeout", True)
    assert (ledger.last.status, ledger.last.error) == (504, "upstream-timeout")
    assert client.terminated is not None
    assert stage.client.closed


def test_a_stream_that_stands_still_times_out_though_others_go_on(
    client: Http2Client, serve: Serve, stage: Stage, ledger: Ledger
) -> None:
    silent, lively = client.get(path="/silent"), client.get(path="/lively")
    origin = Http2Origin(serve("example.com", "h2"), client)
    origin.answer(3, end=False)
    while not client.messages[silent].fields and stage.timers:
        origin.h2.send_data(3, b"x")
        origin.pump()
        client.pump(stage.passes_time())

    assert client.messages[silent].reason == "upstream-timeout"
    assert ledger.last.error == "upstream-timeout"
    assert not client.messages[lively].over
    assert not stage.client.closed


def test_a_withdrawn_rule_ends_the_connection(
    client: Http2Client, serve: Serve, stage: Stage, ledger: Ledger
) -> None:
    client.get()
    serve("example.com", "h2")

    stage.is_withdrawn()

    assert stage.client.closed
    assert ledger.last.error == "rule-withdrawn"


def test_a_proxy_that_stops_closes_after_the_last_stream(
    client: Http2Client, serve: Serve, stage: Stage
) -> None:
    asked = client.get()
    origin = Http2Origin(serve("example.com", "h2"), client)
    stage.session.closing = True
    origin.answer(1, body=b"half", end=False)
    before = stage.client.closed
    origin.h2.send_data(1, b"whole", end_stream=True)
    origin.pump()

    assert not before
    assert client.messages[asked].body == b"halfwhole"
    assert stage.client.closed


def test_a_connection_that_cannot_be_kept_is_closed(
    client: Http2Client, serve: Serve, stage: Stage
) -> None:
    for _ in range(3):
        client.get()
        origin = serve("example.com", "http/1.1")
        origin.gets()
        client.pump(
            origin.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        )
        client.pump(stage.answers(b"last words", origin.peer))

    assert [upstream.closed for upstream in stage.upstreams] == [True] * 3
    assert not stage.client.closed


# --- backpressure


def test_an_origin_may_send_one_window_to_a_client_that_takes_nothing(
    stage: Stage, serve: Serve
) -> None:
    client = Http2Client(stage, reads=False)
    asked = client.get()
    origin = Http2Origin(serve("example.com", "h2"), client)
    origin.answer(1, end=False)
    sent = origin.sends_all_it_may(1, most=2**20)
    at_first = len(client.messages[asked].body)
    client.h2.increment_flow_control_window(2**24)
    client.h2.increment_flow_control_window(2**24, asked)
    client.pump()
    origin.pump()
    more = origin.sends_all_it_may(1, most=2**18)

    # What the client's own window took was given back to the origin, whose window grew by it.
    assert sent <= 4 * FIRST_WINDOW
    assert at_first == 65_535
    assert more > 0
    assert len(client.messages[asked].body) == sent + more


def test_a_client_that_reads_gets_larger_windows(client: Http2Client, serve: Serve) -> None:
    asked = client.get()
    origin = Http2Origin(serve("example.com", "h2"), client)
    origin.answer(1, end=False)
    for _ in range(400):
        origin.h2.send_data(1, b"x" * 16_384)
        origin.pump()

    assert len(client.messages[asked].body) == 400 * 16_384
    assert origin.h2.local_flow_control_window(1) > LARGEST_WINDOW // 2


def test_a_client_may_send_one_window_to_an_upstream_that_is_not_there(
    play: Play, ledger: Ledger
) -> None:
    stage = play(connects=False)
    client = Http2Client(stage)
    asked = client.ask(*pseudo("POST"), end=False)

    sent = client.sends_all_it_may(asked)

    assert sent == FIRST_WINDOW
    assert ledger.outcomes == []


def test_a_client_may_send_one_window_to_an_origin_that_takes_nothing(
    client: Http2Client, serve: Serve
) -> None:
    asked = client.ask(*pseudo("POST"), end=False)
    origin = Http2Origin(serve("example.com", "h2"), client, reads=False)
    sent = client.sends_all_it_may(asked)
    origin.pump()
    origin.h2.increment_flow_control_window(2**24)
    origin.h2.increment_flow_control_window(2**24, 1)
    origin.pump()
    more = client.sends_all_it_may(asked)
    origin.pump()

    assert sent <= 2 * FIRST_WINDOW
    assert more > 0
    assert len(origin.messages[1].body) >= sent


def test_windows_that_have_grown_are_given_back(
    client: Http2Client, serve: Serve, stage: Stage
) -> None:
    before = stage.session.windows.left
    asked = client.get()
    origin = Http2Origin(serve("example.com", "h2"), client)
    origin.answer(1, end=False)
    for _ in range(20):
        origin.h2.send_data(1, b"x" * 16_384)
        origin.pump()
    lent = before - stage.session.windows.left
    origin.h2.end_stream(1)
    origin.pump()

    assert lent > 0
    assert stage.session.windows.left == before
    assert client.messages[asked].over


# --- floods


def pairs(client: Http2Client, number: int) -> bytes:
    """Return the bytes of so many requests, each of which is reset at once."""
    for _ in range(number):
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, list(pseudo("GET")), end_stream=True)
        client.h2.reset_stream(stream)
    return client.h2.data_to_send()


def test_a_stream_that_is_reset_at_once_dials_nothing(play: Play, ledger: Ledger) -> None:
    stage = play(connects=False)
    client = Http2Client(stage)

    client.pump(stage.says(pairs(client, RESETS // 2)))

    assert all(upstream.closed for upstream in stage.upstreams)
    assert len(ledger.outcomes) == RESETS // 2
    assert {outcome.error for outcome in ledger.outcomes} == {"stream-broken-off"}
    assert not stage.client.closed


def test_a_stream_that_is_reset_while_it_waits_takes_its_dial_with_it(play: Play) -> None:
    stage = play(connects=False)
    client = Http2Client(stage)
    first, second = client.get(), client.get()
    closed = []
    for stream in (first, second):
        client.h2.reset_stream(stream)
        client.pump()
        closed.append(stage.upstream.closed)

    assert closed == [False, True]
    assert len(stage.upstreams) == 1


def test_resets_without_end_end_the_connection(play: Play, ledger: Ledger) -> None:
    stage = play(connects=False)
    client = Http2Client(stage)

    client.pump(stage.says(pairs(client, 2 * RESETS)))

    assert client.terminated == ErrorCodes.ENHANCE_YOUR_CALM
    assert stage.client.closed
    assert ledger.reasons[-1] == "http2-flood"
    assert ledger.reasons.count("rule-matched") == RESETS + 1
    assert len(ledger.outcomes) == len(ledger.decisions)


def test_resets_are_counted_anew_after_a_while(play: Play) -> None:
    stage = play(connects=False)
    client = Http2Client(stage)
    for _ in range(5):
        client.pump(stage.says(pairs(client, RESETS // 2 + 1)))
        client.pump(stage.passes_time())

    assert client.terminated is None


def test_a_flood_is_worked_off_in_many_turns(play: Play, ledger: Ledger) -> None:
    stage = play(connects=False)
    client = Http2Client(stage)
    stage.session.is_turn_over = lambda: True
    stage.says(pairs(client, 50))
    seen = [len(ledger.decisions)]
    while stage.awaits_turn:
        stage.turn_comes()
        seen.append(len(ledger.decisions))

    assert seen[-1] == 50
    assert all(later - earlier <= 1 for earlier, later in pairwise(seen))


@pytest.mark.parametrize(
    "frame",
    [
        PingFrame(0, opaque_data=b"12345678").serialize(),
        SettingsFrame(0, settings={3: 100}).serialize(),
        PriorityFrame(1, depends_on=3, stream_weight=1).serialize(),
        WindowUpdateFrame(0, window_increment=1).serialize(),
        DataFrame(1).serialize(),
        b"\x00\x00\x00\xf0\x00\x00\x00\x00\x00",  # of a kind that is not known
    ],
)
def test_frames_that_move_nothing_end_the_connection(
    client: Http2Client, stage: Stage, ledger: Ledger, frame: bytes
) -> None:
    client.ask(*pseudo("POST"), end=False)

    client.pump(stage.says(frame * 1200))

    assert client.terminated == ErrorCodes.ENHANCE_YOUR_CALM
    assert ledger.reasons[-1] == "http2-flood"


def test_a_header_block_without_end_ends_the_connection(client: Http2Client, stage: Stage) -> None:
    part = ContinuationFrame(1, data=b"x" * 16_384).serialize()

    client.pump(stage.says(HeadersFrame(1, data=b"x" * 100).serialize() + part * 10))

    assert client.terminated == ErrorCodes.ENHANCE_YOUR_CALM


def test_a_bad_window_update_resets_its_stream_and_counts_as_a_reset(play: Play) -> None:
    stage = play(connects=False)
    client = Http2Client(stage)
    for _ in range(RESETS + 1):
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, list(pseudo("GET")), end_stream=True)
        data = client.h2.data_to_send()
        client.pump(
            stage.says(data + WindowUpdateFrame(stream, window_increment=2**31 - 1).serialize())
        )
        if client.terminated is not None:
            break

    assert client.terminated == ErrorCodes.ENHANCE_YOUR_CALM
    assert all(upstream.closed for upstream in stage.upstreams)


def test_an_upstream_that_resets_everything_is_left(
    client: Http2Client, serve: Serve, stage: Stage
) -> None:
    client.get()
    origin = Http2Origin(serve("example.com", "h2"), client)
    reasons = set()
    while not stage.upstreams[0].closed:
        asked = client.ask(*pseudo("POST"))
        origin.pump()
        origin.h2.reset_stream(asked, ErrorCodes.INTERNAL_ERROR)
        origin.pump()
        reasons.add(client.messages[asked].reason)

    assert len(reasons) == 2
    assert reasons == {"upstream-closed", "upstream-bad-answer"}
    assert not stage.client.closed


# --- bodies that are kept to be judged

KEPT = """
allow: [api.anthropic.com]
anthropic:
  - {host: api.anthropic.com, models: ["claude-*"]}
"""


@pytest.fixture
def keeping(play: Play, ledger: Ledger) -> Stage:
    return play("api.anthropic.com", gate=gate_of(KEPT, ledger))


def begin(client: Http2Client) -> int:
    """Begin a request whose body is kept until it is whole; return the number of its stream."""
    kind = ("content-type", "application/json")
    asked = client.ask(*pseudo("POST", "/v1/messages", "api.anthropic.com"), kind, end=False)
    client.sends(asked, b"{")
    return asked


def test_each_body_has_its_own_time_limit_though_another_began_before_it_was_whole(
    keeping: Stage,
) -> None:
    session, posts = keeping.session, Http2Client(keeping)
    turns, before = [], begin(posts)
    for _ in range(20):
        turns.append((session.wait_id, session.waiting))
        after = begin(posts)
        posts.sends(before, b"}", end=True)
        before = after

    assert len(set(turns)) == len(turns)
    assert {waiting for _, waiting in turns} == {Waiting.BODY}


def test_a_body_gains_no_time_by_others(keeping: Stage) -> None:
    session, posts = keeping.session, Http2Client(keeping)
    slow = begin(posts)
    turn = session.wait_id
    for _ in range(3):
        posts.sends(begin(posts), b"}", end=True)
        posts.sends(slow, b" ")

    assert (session.wait_id, session.waiting) == (turn, Waiting.BODY)


def test_a_body_that_was_given_up_is_waited_for_no_more(keeping: Stage) -> None:
    session, posts = keeping.session, Http2Client(keeping)
    first, second = begin(posts), begin(posts)
    turns = [(session.wait_id, session.waiting)]
    for stream in (first, second):
        posts.h2.reset_stream(stream)
        posts.pump()
        turns.append((session.wait_id, session.waiting))

    assert [waiting for _, waiting in turns] == [Waiting.BODY, Waiting.BODY, Waiting.IDLE]
    assert len({turn for turn, _ in turns}) == 3


# --- faults


def test_a_fault_in_the_policy_denies(play: Play, ledger: Ledger) -> None:
    stage = play(gate=Gate(BrokenPolicy(), ledger.events.append))
    client = Http2Client(stage)

    asked = client.get()

    assert client.messages[asked].reason == "internal-error"
    assert stage.upstreams == []
