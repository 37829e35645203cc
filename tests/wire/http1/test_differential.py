"""The law that two independent parsers accept what ours accepts, and read it in the same way.

The law has one direction: ours may refuse what h11 (written from the RFCs) and httptools (llhttp,
Node's parser) accept, and refuses much. Where one of them is stricter, it is listed here with the
reason why ours accepts the message:

- llhttp has a fixed list of methods. Ours accepts any upper-case token, as RFC 9110 section 16.1
  allows new methods: the policy decides which are allowed, and only CONNECT and HEAD change how a
  message is split.
- h11 refuses empty lines before a request. RFC 9112 section 2.2 asks servers to skip at least one.
- llhttp refuses equal Content-Length fields in a response. RFC 9110 section 8.6 allows merging
  them, some servers send them, and the client gets one.
- What RFC 9112 lets a recipient repair in a response (a bare LF, white space before a colon or in a
  chunk line, a folded line), each of them refuses or reads in a way of its own. What the client
  gets is written again, and that they read alike.

If you find another difference, make ours stricter if possible.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import h11
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_proxy.wire.http1.body import (
    Body,
    body_of_request,
    body_of_response,
    chunk,
    emit_trailers,
)
from claude_proxy.wire.http1.emit import Framing, emit_request_head, emit_response_head, framing_of
from claude_proxy.wire.http1.head import BadMessage, RequestHead, ResponseHead
from claude_proxy.wire.http1.request import read_request_head
from claude_proxy.wire.http1.response import read_response_head

type Fields = list[tuple[bytes, bytes]]

LIMIT = 65536
# In a whole message, so that some that are not repaired are taken for it.
REPAIRED = re.compile(rb"(?<!\r)\n|[ \t]:|\n[ \t]|[0-9A-Za-z][ \t]+\r\n|; |5, 5").search
BUDGET = 400
METHODS_OF_LLHTTP = frozenset(
    b"ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY "
    b"MKCALENDAR MKCOL MOVE NOTIFY OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT REBIND REPORT "
    b"SEARCH SUBSCRIBE TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE".split()
)
HOP_BY_HOP = frozenset(
    b"connection http2-settings keep-alive proxy-authenticate proxy-authorization proxy-connection "
    b"te upgrade".split()
)
FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding"})


@dataclass
class Reading:
    """What a reader makes of the first message in some bytes."""

    start: tuple[bytes, ...]  # method and target, or status and phrase
    fields: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    used: int = 0  # how many of the bytes are the message
    persists: bool = field(default=False, compare=False)  # another message may follow


def plain(fields: Sequence[tuple[bytes, bytes]]) -> Fields:
    """Leave out what readers report differently: names' case, white space, CHUNKED in capitals."""
    return [
        (
            name.lower(),
            value.lower() if name.lower() == b"transfer-encoding" else value.strip(b" \t"),
        )
        for name, value in fields
    ]


# --- ours


def read_in_pieces[Head: (RequestHead, ResponseHead)](
    pieces: Sequence[bytes],
    read_head: Callable[[bytearray], Head | None],
    body_of: Callable[[Head], Body | None],
) -> tuple[Head, Body | None, bytes, bytes] | None:
    """Return a whole message's head, body and content, and what is left; None without one."""
    buffer = bytearray()
    head: Head | None = None
    body: Body | None = None
    content, done = b"", False
    try:
        for piece in pieces:
            buffer += piece
            if head is None and (head := read_head(buffer)) is not None:
                body = body_of(head)
                done = body is None
            if body is not None and not done:
                more, done, rest = body.feed(bytes(buffer))
                content += more
                buffer[:] = rest
    except BadMessage:
        return None
    whole = head is not None and (done or (body is not None and body.eof()))
    return (head, body, content, bytes(buffer)) if head is not None and whole else None


def our_request(*pieces: bytes) -> tuple[RequestHead, Reading] | None:
    message = read_in_pieces(
        pieces, lambda buffer: read_request_head(buffer, LIMIT), body_of_request
    )
    if message is None:
        return None
    head, body, content, rest = message
    reading = Reading((head.method.encode(), head.target.encode()), plain(head.fields), content)
    reading.trailers = plain(body.trailers) if body else []
    reading.used = sum(map(len, pieces)) - len(rest)
    reading.persists = head.keep_alive
    return head, reading


def our_answer(method: str, *pieces: bytes) -> tuple[ResponseHead, Reading] | None:
    message = read_in_pieces(
        pieces,
        lambda buffer: read_response_head(buffer, LIMIT, method=method),
        lambda head: body_of_response(head, method),
    )
    if message is None:
        return None
    head, body, content, rest = message
    reading = Reading((b"%d" % head.status, head.phrase), plain(head.fields), content)
    reading.trailers = plain(body.trailers) if body else []
    reading.used = sum(map(len, pieces)) - len(rest)
    reading.persists = head.keep_alive
    return head, reading


# --- h11


def h11_reading(connection: h11.Connection) -> Reading | None:
    """Gather the events of one message; None if it is refused or unfinished."""
    reading = Reading((), [])
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            reading.start = (event.method, event.target)
            reading.fields = plain(list(event.headers))
        elif isinstance(event, h11.InformationalResponse | h11.Response):
            reading.start = (b"%d" % event.status_code, event.reason)
            reading.fields = plain(list(event.headers))
            if isinstance(event, h11.InformationalResponse):
                return reading
        elif isinstance(event, h11.Data):
            reading.body += event.data
        elif isinstance(event, h11.EndOfMessage):
            reading.trailers = plain(list(event.headers))
            return reading
        elif event is h11.PAUSED:  # after an answer to CONNECT there is no end to tell
            return reading
        else:
            return None


def h11_request(message: bytes) -> Reading | None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    return h11_outcome(connection, message)


def h11_answer(method: str, message: bytes) -> Reading | None:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=LIMIT)
    fields = [("Host", "a"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
    target = "a:443" if method == "CONNECT" else "/"
    connection.send(h11.Request(method=method, target=target, headers=fields))
    connection.send(h11.EndOfMessage())
    return h11_outcome(connection, message, b"")


def h11_outcome(connection: h11.Connection, *pieces: bytes) -> Reading | None:
    try:
        for piece in pieces:
            connection.receive_data(piece)
        reading = h11_reading(connection)
    except h11.RemoteProtocolError:
        return None
    if reading is not None:
        reading.used = sum(map(len, pieces)) - len(connection.trailing_data[0])
    return reading


# --- httptools


class Callbacks:
    """What httptools calls, and what it tells there."""

    def __init__(self) -> None:
        self.reading = Reading((), [])
        self.text = b""  # the target, or the phrase
        self.headed = False
        self.whole = False
        self.parser: httptools.HttpRequestParser | httptools.HttpResponseParser | None = None

    def on_url(self, part: bytes) -> None:
        self.text += part

    def on_status(self, part: bytes) -> None:
        self.text += part

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self.reading.trailers if self.headed else self.reading.fields
        fields += plain([(name, value)])

    def on_headers_complete(self) -> None:
        self.headed = True
        assert self.parser is not None
        self.reading.persists = self.parser.should_keep_alive()

    def on_body(self, part: bytes) -> None:
        self.reading.body += part

    def on_message_complete(self) -> None:
        self.whole = True


def httptools_request(message: bytes, used: int) -> Reading | None:
    """Read a request; None unless it ends with the last of the bytes used and not before."""
    callbacks = Callbacks()
    callbacks.parser = parser = httptools.HttpRequestParser(callbacks)
    if not httptools_ends(callbacks, message, used):
        return None
    callbacks.reading.start = (parser.get_method(), callbacks.text)
    callbacks.reading.used = used
    return callbacks.reading


def httptools_answer(message: bytes, used: int, *, closes: bool) -> Reading | None:
    """Read an answer; None unless it ends with the last of the bytes used, or with the close."""
    callbacks = Callbacks()
    callbacks.parser = parser = httptools.HttpResponseParser(callbacks)
    if httptools_ends(callbacks, message, used) is closes:
        return None
    callbacks.reading.start = (b"%d" % parser.get_status_code(), callbacks.text)
    callbacks.reading.used = used
    return callbacks.reading


def httptools_ends(callbacks: Callbacks, message: bytes, used: int) -> bool:
    """Tell whether the message ends exactly with its first `used` bytes."""
    assert callbacks.parser is not None
    try:
        callbacks.parser.feed_data(message[: used - 1])
        early = callbacks.whole
        callbacks.parser.feed_data(message[used - 1 : used])
    except httptools.HttpParserUpgrade as upgrade:
        return not callbacks.headed or upgrade.args[0] == 1
    except httptools.HttpParserError:
        return False
    return callbacks.whole and not early


# --- the laws


def check_request(message: bytes, cut: int) -> str:
    """Hold one request against the laws; tell what ours made of it."""
    ours = our_request(message)
    cut %= len(message) + 1
    assert our_request(message[:cut], message[cut:]) == ours
    if ours is None:
        return "not taken"
    head, reading = ours
    rest = message.removeprefix(b"\r\n").removeprefix(b"\r\n")  # where h11 is stricter
    reading.used -= len(message) - len(rest)
    assert h11_request(rest) == reading
    if reading.start[0] in METHODS_OF_LLHTTP:  # where llhttp is stricter
        theirs = httptools_request(rest, reading.used)
        assert theirs == reading
        # llhttp heeds Proxy-Connection, which RFC 9112 C.2.2 knows as a mistake of the past.
        heeded = head.get(b"proxy-connection") is None
        assert theirs.persists or not reading.persists or not heeded
    check_request_for_upstream(head, reading)
    return "taken"


def check_request_for_upstream(head: RequestHead, sent: Reading) -> None:
    """Hold what is written for upstream against what was read."""
    websocket = "websocket" in head.upgrade
    target = head.origin_target or head.target
    message = emit_request_head(head, target, host=head.host or b"a", websocket=websocket)
    end = chunk(sent.body) + emit_trailers(sent.trailers) if head.chunked else sent.body
    fields = fields_for_next_hop(sent, drop={b"expect"} if not head.minor else set())
    if head.host is None:
        fields.append((b"host", b"a"))
    expected = Reading((sent.start[0], target.encode()), fields, sent.body, sent.trailers)
    expected.used = len(message + end)
    message += end + b"GET"
    again = our_request(message)
    readings = [again[1] if again else None, h11_request(message)]
    if sent.start[0] in METHODS_OF_LLHTTP:
        readings.append(httptools_request(message, expected.used))
    for reading in readings:
        assert reading is not None
        if websocket:
            switch = {(b"connection", b"Upgrade"), (b"upgrade", b"websocket")}
            assert switch <= set(reading.fields)
            reading.fields = [pair for pair in reading.fields if pair not in switch]
        assert reading == expected


def fields_for_next_hop(sent: Reading, drop: set[bytes]) -> Fields:
    """Return what of a message's fields is for its last recipient, framing included."""
    listed = {
        option.strip(b" \t").lower()
        for name, value in sent.fields
        if name == b"connection"
        for option in value.split(b",")
    }
    gone = (HOP_BY_HOP | listed | drop) - FRAMING
    fields: Fields = []
    for name, value in sent.fields:
        alias = name.replace(b"_", b"-")
        if alias in gone or (alias != name and alias in FRAMING):
            continue
        number = name == b"content-length"
        fields.append((name, b"%d" % int(value) if number else value))
    return fields


def check_answer(method: str, message: bytes, cut: int) -> str:
    """Hold one answer against the laws; tell what ours made of it."""
    ours = our_answer(method, message)
    cut %= len(message) + 1
    assert our_answer(method, message[:cut], message[cut:]) == ours
    if ours is None:
        return "not taken"
    head, reading = ours
    lengths = message[: reading.used].lower().count(b"content-length")
    repaired = REPAIRED(message[: reading.used]) is not None
    assert repaired or h11_answer(method, message) == reading
    # httptools cannot be told of another method, and is the stricter with equal lengths.
    if method == "GET" and lengths < 2 and not repaired:
        body = body_of_response(head, method)
        closes = body is not None and body.eof()
        theirs = httptools_answer(message, reading.used, closes=closes)
        assert theirs == reading
        assert theirs.persists or not reading.persists
    for minor in (0, 1):
        check_answer_for_client(method, minor, head, reading)
    return "taken"


def check_answer_for_client(method: str, minor: int, head: ResponseHead, sent: Reading) -> None:
    """Hold what is written for a client against what was read."""
    framing = framing_of(head, method=method, minor=minor)
    keep_alive = framing is not Framing.CLOSE
    message = emit_response_head(head, framing=framing, keep_alive=keep_alive, minor=minor)
    end = chunk(sent.body) + emit_trailers(sent.trailers)
    message += end if framing is Framing.CHUNKED else sent.body
    used = len(message)
    again = our_answer(method, message)
    readings = [again[1] if again else None, h11_answer(method, message)]
    if method == "GET":
        readings.append(httptools_answer(message, used, closes=framing is Framing.CLOSE))
    fields = [pair for pair in fields_for_next_hop(sent, drop=set()) if pair[0] not in FRAMING]
    for reading in readings:
        assert reading is not None
        assert (reading.start, reading.body, reading.used) == (sent.start, sent.body, used)
        assert reading.trailers == (sent.trailers if framing is Framing.CHUNKED else [])
        written = [
            pair for pair in reading.fields if pair[0] not in FRAMING | {b"connection", b"upgrade"}
        ]
        assert written == [pair for pair in fields if pair[0] != b"upgrade"]


# --- messages that are nearly right


def often(usual: Sequence[bytes], unusual: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Draw mostly what is usual, so that a message of many parts has a chance to be taken."""
    return st.sampled_from([*usual] * (1 + 6 * len(unusual) // len(usual)) + [*unusual])


CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = [
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"1\r\na\r\n2;x=y\r\nbc\r\n0\r\nX-Sum: 1\r\n\r\n",
    b'00a\r\n0123456789\r\n000;q="a b"\r\n\r\n',
    b"2\r\n\r\n\r\n0\r\n\r\n",
    b"3 \r\nabc\r\n0\r\n\r\n",
    b"+3\r\nabc\r\n0\r\n\r\n",
    b"0x3\r\nabc\r\n0\r\n\r\n",
    b"3\nabc\n0\n\n",
    b"3\r\nabc0\r\n\r\n",
    b"3\r\nabcd\r\n0\r\n\r\n",
    b"3;\na\r\nabc\r\n0\r\n\r\n",
    b"0\r\nContent-Length: 5\r\n\r\n",
    b"0\r\nX: y\nZ: a\r\n\r\n",
    b"ffffffffffffffff\r\nabc",
    b"10000000000000003\r\nabc\r\n0\r\n\r\n",
]
FRAMED = st.one_of(
    st.sampled_from([b"\r\n", b"Content-Length: 5\r\n\r\nhello", b"Content-Length: 0\r\n\r\n"]),
    st.sampled_from(CHUNKS).map(lambda chunks: CHUNKED + b"\r\n" + chunks),
    st.sampled_from(
        [
            b"Content-Length: 05\r\n\r\nhello",
            b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            b"Content-Length: 5, 5\r\n\r\nhello",
            b"Content-Length: +5\r\n\r\nhello",
            b"Content-Length: 5 \t\r\n\r\nhello",
            b"Content-Length:\x0b5\r\n\r\nhello",
            b"Content-Length : 5\r\n\r\nhello",
            b"Content-Length: 18446744073709551621\r\n\r\nhello",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            b"TRANSFER-encoding: Chunked\r\n\r\n0\r\n\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"Transfer-Encoding: x\r\n chunked\r\n\r\n0\r\n\r\n",
            b"Transfer-Encoding\r\n: chunked\r\n\r\n0\r\n\r\n",
            b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
            b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
            b"\rContent-Length: 5\r\n\r\nhello",
            b"\nContent-Length: 5\r\n\r\nhello",
        ]
    ),
)
FIELDS = st.lists(
    often(
        [
            b"Accept: */*\r\n",
            b"X-Empty:\r\n",
            b"X-Spaced: \t a  b \t\r\n",
            b"x_under: score\r\n",
            b"X-Latin: caf\xe9\r\n",
            b'Cookie: a="b"; c={d}\r\n',
            b"Connection: keep-alive\r\n",
            b"Connection: close\r\n",
            b"Connection: X-Hop, keep-alive\r\n",
            b"X-Hop: 1\r\nKeep-Alive: timeout=5\r\n",
            b"Proxy-Connection: keep-alive\r\n",
            b"Proxy-Authorization: Basic eA==\r\n",
            b"TE: trailers\r\nTrailer: X-Sum\r\n",
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
            b"Upgrade: h2c\r\nHTTP2-Settings: AA\r\n",
            b"Expect: 100-continue\r\n",
            b"!#$%&'*+-.^_`|~09: token\r\n",
        ],
        [
            b"X : a\r\n",
            b" X: a\r\n",
            b"X: a\r\n b\r\n",
            b"X: a\nY: b\r\n",
            b"X: a\rY: b\r\n",
            b"X: \x00\r\n",
            b"X: \x01\r\n",
            b"X: \x7f\r\n",
            b"X\x00: a\r\n",
            b"X\xe9: a\r\n",
            b": a\r\n",
            b"X\r\n",
            b"X: a\r\r\n",
            b"Host: b\r\n",
            b"Connection: Host, Content-Length\r\n",
            b"Connection: close keep-alive\r\n",
            b"Connection: upgrade\r\nUpgrade: h2c, x/1\r\n",
        ],
    ),
    max_size=4,
).map(b"".join)
REQUEST_LINE = st.builds(
    lambda *parts: b"".join(parts),
    often([b""], [b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" "]),
    often(
        [b"GET", b"POST", b"OPTIONS", b"PURGE", b"BREW"],
        [b"CONNECT", b"HEAD", b"get", b"G(T", b"", b"PRI"],
    ),
    often([b" "], [b"  ", b"\t"]),
    often(
        [b"/", b"/a/../b?c=%00&d=|{}^", b"//a.b/c", b"http://a.b:81/c?d", b"HTTP://a.b"],
        [
            b"*",
            b"a.b:443",
            b"[::1]:443",
            b"http://u@a/",
            b"http://a_b?c",
            b"/\xe9",
            b"/#a",
            b"/ b",
            b"http://[::1]",
            b"a.b",
            b"foo:bar",
            b'/"<>\\`',
            b"/\x7f",
            b"",
        ],
    ),
    often([b" HTTP/1.1\r\n"], [b" HTTP/1.0\r\n", b" HTTP/1.2\r\n", b" HTTP/2.0\r\n", b"\r\n"])
    | st.sampled_from([b" HTTP/1.1\r\n", b" HTTP/1.1 \r\n", b" HTTP/1.1\n", b" http/1.1\r\n"]),
    often([b"Host: a.b\r\n"], [b"", b"Host:\r\n", b"Host: a b\r\n", b"hOST: a:1\r\n"]),
)
STATUS_LINE = st.builds(
    lambda *parts: b"".join(parts),
    often([b"HTTP/1.1 "], [b"HTTP/1.0 ", b"HTTP/1.2 ", b"HTTP/1.1  ", b"\r\nHTTP/1.1 ", b"ICY "]),
    often([b"200", b"404", b"304", b"204"], [b"100", b"103", b"101", b"20", b"999", b"0200"]),
    often([b" OK\r\n", b"\r\n", b" \r\n"], [b" \xe9\tx \r\n", b" \x01\r\n", b"OK\r\n", b" OK\n"]),
)
TAIL = st.sampled_from([b"", b"", b"\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200"])
TOKENS = [b"\r\n", b"\r", b"\n", b" ", b"\t", b"\x00", b":", b",", b";", b"\x0b", b"\xff", b"0"]
# Where (modulo the length), how many bytes are taken away, and what is put there.
MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 2**16), st.integers(0, 3), st.sampled_from([b"", *TOKENS]) | st.binary()
    ),
    max_size=2,
)


def mutated(message: bytes, mutations: list[tuple[int, int, bytes]]) -> bytes:
    for where, size, token in mutations:
        at = where % (len(message) + 1)
        message = message[:at] + token + message[at + size :]
    return message


def join(*parts: bytes) -> bytes:
    return b"".join(parts)


REQUESTS = st.builds(join, REQUEST_LINE, FIELDS, FRAMED, TAIL)
ANSWERS = st.builds(join, STATUS_LINE, FIELDS, FRAMED, TAIL)
SEEDS = [
    b"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
    b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nProxy-Connection: close\r\n\r\n",
    (
        b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: api.example\r\nConnection: keep-alive\r\n"
        b'content-type: application/json\r\nContent-Length: 18\r\n\r\n{"stream": true, }'
    ),
    (
        b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        b'5\r\nhello\r\n6;a="b"\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n'
    ),
    (
        b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n\x81\x05hello"
    ),
    b"GET http://a.example/@scope%2fname HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
]
ANSWER_SEEDS = [
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1",
    (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"c\r\ndata: ping\n\n\r\n0\r\nX-Sum: 1\r\n\r\n"
    ),
    b"HTTP/1.0 200 OK\r\nServer: SimpleHTTP/0.6\r\n\r\n<html>",
    b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 500\r\n\r\n',
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00",
    b"HTTP/1.1 204\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\r\nContent-Length: 2\r\n\r\nok",
]


def fuzz(check: Callable[[bytes, int], str], messages: st.SearchStrategy[bytes]) -> Counter[str]:
    """Check the budget of messages, mutated; return how many were taken."""
    outcomes: Counter[str] = Counter()

    @settings(max_examples=BUDGET, derandomize=True, deadline=None, database=None)
    @given(messages, MUTATIONS, st.integers(0, 2**16))
    def run(message: bytes, mutations: list[tuple[int, int, bytes]], cut: int) -> None:
        outcomes[check(mutated(message, mutations), cut)] += 1

    run()
    return outcomes


def test_requests_by_the_grammar_are_read_as_others_read_them() -> None:
    outcomes = fuzz(check_request, REQUESTS)

    assert outcomes["taken"] > BUDGET / 20  # else nothing was compared


def test_mutated_requests_are_read_as_others_read_them() -> None:
    outcomes = fuzz(check_request, st.sampled_from(SEEDS))

    assert outcomes["taken"] > BUDGET / 20


@pytest.mark.parametrize("method", ["GET", "HEAD", "CONNECT"])
def test_answers_by_the_grammar_are_read_as_others_read_them(method: str) -> None:
    outcomes = fuzz(lambda message, cut: check_answer(method, message, cut), ANSWERS)

    assert outcomes["taken"] > BUDGET / 20


def test_mutated_answers_are_read_as_others_read_them() -> None:
    outcomes = fuzz(
        lambda message, cut: check_answer("GET", message, cut), st.sampled_from(ANSWER_SEEDS)
    )

    assert outcomes["taken"] > BUDGET / 20


@pytest.mark.parametrize("message", SEEDS)
def test_real_requests_mean_the_same_wherever_they_are_cut(message: bytes) -> None:
    for cut in range(len(message)):
        assert check_request(message, cut) == "taken"


@pytest.mark.parametrize("message", ANSWER_SEEDS)
def test_real_answers_mean_the_same_wherever_they_are_cut(message: bytes) -> None:
    for cut in range(len(message)):
        assert check_answer("GET", message, cut) == "taken"


def test_an_unfinished_message_is_none_to_any_reader() -> None:
    message = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell"

    assert our_request(message) is None
    assert h11_request(message) is None
    assert httptools_request(message, len(message)) is None


# --- where the others are stricter


def test_llhttp_refuses_methods_that_ours_leaves_to_the_policy() -> None:
    message = b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n"

    assert our_request(message) is not None
    assert h11_request(message) is not None
    assert httptools_request(message, len(message)) is None


def test_h11_refuses_empty_lines_that_ours_skips() -> None:
    message = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"

    assert our_request(message) is not None
    assert h11_request(message) is None
    assert httptools_request(message, len(message)) is not None


def test_llhttp_refuses_equal_lengths_that_ours_folds_into_one() -> None:
    message = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na"

    assert our_answer("GET", message) is not None
    assert h11_answer("GET", message) is not None
    assert httptools_answer(message, len(message), closes=False) is None
