"""Holds what an ordinary origin answers: one route for each way that HTTP can go."""

import gzip
import json
import random
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import brotli
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as WebSocketRequest
from websockets.server import ServerProtocol

from tests.support.waiting import PATIENCE_S

from .origin import Exchange, Talk

BLOCK = random.Random(1).randbytes(64 * 1024)
TEXT = b"the very bytes that the origin wrote\n" * 200
GZIP = gzip.compress(TEXT, mtime=0)
BROTLI = brotli.compress(TEXT)


def routes(exchange: Exchange, talk: Talk) -> None:
    """Answer one request by the first segment of its path."""
    segment = urlsplit(exchange.target).path.strip("/").split("/")[0]
    route = _ROUTES.get(segment, echo)
    route(exchange, talk)


def echo(exchange: Exchange, talk: Talk) -> None:
    """Take in the body and tell what came."""
    if (exchange.header("Expect") or "").lower() == "100-continue":
        talk.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    talk.drain(exchange)
    told = {
        "method": exchange.method,
        "target": exchange.target,
        "headers": exchange.headers,
        "body": exchange.body.decode("latin-1"),
        "body_bytes": exchange.body_bytes,
        "sha256": exchange.digest.hexdigest(),
        "trailers": exchange.trailers.decode("latin-1"),
    }
    body = json.dumps(told).encode()
    if exchange.method == "HEAD":
        talk.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(body)
        )
    else:
        talk.answer("200 OK", body, "Content-Type: application/json")


def _status(exchange: Exchange, talk: Talk) -> None:
    talk.drain(exchange)
    code = exchange.target.rsplit("/", 1)[1]
    if code in ("204", "304"):
        talk.send(f'HTTP/1.1 {code} Fine\r\nETag: "one"\r\n\r\n'.encode())
    else:
        talk.answer(f"{code} As Asked", f"status {code}\n".encode())


def _bytes(exchange: Exchange, talk: Talk) -> None:
    talk.drain(exchange)
    left = int(exchange.target.rsplit("/", 1)[1])
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
    while left:
        piece = BLOCK[:left]
        talk.send(piece)
        exchange.sent_bytes += len(piece)
        left -= len(piece)


def _sink(exchange: Exchange, talk: Talk) -> None:
    talk.drain(exchange)
    talk.answer("200 OK", str(exchange.body_bytes).encode())


def _gated_events(exchange: Exchange, talk: Talk) -> None:
    """Send one event for each pass of the gate that the path names."""
    talk.drain(exchange)
    _, name, count = exchange.target.strip("/").split("/")
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked"
    talk.send(head.encode() + b"\r\n\r\n")
    for number in range(int(count)):
        talk.wait(name)
        event = f"data: {number}\n\n".encode()
        talk.send(b"%x\r\n%s\r\n" % (len(event), event))
        exchange.sent_bytes += len(event)
    talk.send(b"0\r\n\r\n")


def _encoded(encoding: str, body: bytes) -> Callable[[Exchange, Talk], None]:
    def answer(exchange: Exchange, talk: Talk) -> None:
        talk.drain(exchange)
        talk.answer("200 OK", body, f"Content-Encoding: {encoding}", "Content-Type: text/plain")

    return answer


def _early_hints(exchange: Exchange, talk: Talk) -> None:
    talk.drain(exchange)
    talk.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
    talk.answer("200 OK", b"after the hints")


def _trailers(exchange: Exchange, talk: Talk) -> None:
    talk.drain(exchange)
    talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
    talk.send(b"5;name=value\r\nfirst\r\n6\r\nsecond\r\n0\r\nX-Sum: eleven\r\n\r\n")


def _close_delimited(exchange: Exchange, talk: Talk) -> None:
    talk.drain(exchange)
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + TEXT)
    talk.over = True


def _early_refusal(exchange: Exchange, talk: Talk) -> None:
    """Answer at the head, the body unread, and close when the gate opens."""
    talk.answer("413 Too Large", b"no more, please", "Connection: close")
    talk.origin.gate(exchange.target.rsplit("/", 1)[1]).passed(PATIENCE_S)
    talk.over = True


def _broken(exchange: Exchange, talk: Talk) -> None:
    talk.drain(exchange)
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbut ten")
    talk.over = True


def _garbage(exchange: Exchange, talk: Talk) -> None:
    talk.drain(exchange)
    talk.send(b"this is no HTTP at all\r\n\r\n")
    talk.over = True


def _switch(exchange: Exchange, talk: Talk) -> None:
    """Turn to another protocol although nobody asked."""
    talk.drain(exchange)
    talk.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw\r\nConnection: Upgrade\r\n\r\nraw")
    talk.over = True


def _bye(exchange: Exchange, talk: Talk) -> None:
    """Answer as if the connection were kept, and end it."""
    talk.drain(exchange)
    talk.answer("200 OK", b"bye")
    talk.over = True


def _coded_and_measured(exchange: Exchange, talk: Talk) -> None:
    """Answer in chunks that a length contradicts."""
    talk.drain(exchange)
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n")
    talk.send(b"6\r\nchunks\r\n0\r\n\r\n")


def _double(exchange: Exchange, talk: Talk) -> None:
    """Answer with two framings at once, as a response splitter would."""
    talk.drain(exchange)
    talk.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\n"
        b"oopsHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )


def _redirect(exchange: Exchange, talk: Talk) -> None:
    talk.drain(exchange)
    talk.answer("302 Found", b"", "Location: https://denied.test/landing")


def _alternative(exchange: Exchange, talk: Talk) -> None:
    talk.drain(exchange)
    fields = ('Alt-Svc: h3=":443"; ma=86400', "Alternate-Protocol: 443:quic", "X-Kept: yes")
    talk.answer("200 OK", b"here too", *fields)


def _held(exchange: Exchange, talk: Talk) -> None:
    """Answer when the gate opens."""
    talk.drain(exchange)
    talk.wait(exchange.target.rsplit("/", 1)[1])
    talk.answer("200 OK", b"at last")


def _unread(exchange: Exchange, talk: Talk) -> None:
    """Read nothing of the body until the gate opens."""
    talk.origin.gate(exchange.target.rsplit("/", 1)[1]).passed(PATIENCE_S)
    _sink(exchange, talk)


def _dialogue(exchange: Exchange, talk: Talk) -> None:
    """Answer each piece of the body while the next has not been sent."""
    talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in talk.body(exchange):
        talk.send(b"%x\r\n%s\r\n" % (len(piece), piece.upper()))
    talk.send(b"0\r\n\r\n")


def _web_socket(exchange: Exchange, talk: Talk) -> None:
    """Echo each message; the opening handshake is the websockets library's."""
    protocol = ServerProtocol()
    protocol.receive_data(exchange.head)
    (request,) = protocol.events_received()
    assert isinstance(request, WebSocketRequest)
    protocol.send_response(protocol.accept(request))
    while True:
        for data in protocol.data_to_send():
            if not data:  # the library's word for the end of the connection
                talk.over = True
                return
            talk.send(data)
        data = talk.reader.read1(64 * 1024)
        if not data:
            talk.over = True
            return
        protocol.receive_data(data)
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            exchange.took_in(bytes(frame.data))
            if frame.opcode is Opcode.TEXT:
                protocol.send_text(frame.data)
            elif frame.opcode is Opcode.BINARY:
                protocol.send_binary(frame.data)


def _ticking_events(exchange: Exchange, talk: Talk) -> None:
    """Send events at a pace of their own; the client may go away in the middle."""
    talk.drain(exchange)
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    while True:
        talk.send(b"data: tick\n\n")
        exchange.sent_bytes += 1
        time.sleep(0.02)


_ROUTES: dict[str, Callable[[Exchange, Talk], None]] = {
    "alternative": _alternative,
    "broken": _broken,
    "brotli": _encoded("br", BROTLI),
    "bye": _bye,
    "bytes": _bytes,
    "close": _close_delimited,
    "coded-and-measured": _coded_and_measured,
    "dialogue": _dialogue,
    "double": _double,
    "early": _early_refusal,
    "events": _gated_events,
    "garbage": _garbage,
    "gzip": _encoded("gzip", GZIP),
    "held": _held,
    "hints": _early_hints,
    "redirect": _redirect,
    "sink": _sink,
    "status": _status,
    "switch": _switch,
    "ticking": _ticking_events,
    "trailers": _trailers,
    "unread": _unread,
    "web-socket": _web_socket,
}
