"""Imitates the Messages API well enough for the real Claude Code to hold a conversation.

One server-sent event every 50 ms, as the real service trickles its answer. What it answers next can
be written down beforehand, turn by turn.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from .origin import Exchange, Talk

ANSWER = ("The", " quick", " answer", " is", " forty", "-two", ".")
SPOKEN = "".join(ANSWER)

_PACE_S = 0.05
_PING_S = 1.0
_USAGE = {"input_tokens": 10, "output_tokens": 7}

type Asked = Mapping[str, object]
type Turn = Callable[[Asked, Talk], None]


class MessagesApi:
    """One imitation; each request for a message takes a turn, while there are any."""

    def __init__(self, *turns: Turn) -> None:
        self._turns = deque(turns)

    def __call__(self, exchange: Exchange, talk: Talk) -> None:
        """Answer one request."""
        body = b"".join(talk.body(exchange))
        path = urlsplit(exchange.target).path
        if (exchange.method, path) == ("POST", "/v1/messages"):
            turn = self._turns.popleft() if self._turns else speak
            turn(json.loads(body), talk)
        elif (exchange.method, path) == ("POST", "/v1/messages/count_tokens"):
            _json(talk, {"input_tokens": 10})
        elif exchange.method == "HEAD":
            talk.answer("200 OK")
        elif path.startswith("/api/eval/"):
            # Feature flags; this one makes the client report to the telemetry service it is made
            # for.
            _json(talk, {"features": {"tengu_log_datadog_events": {"defaultValue": True}}})
        else:
            refusing("404 Not Found", "not_found_error", "not found")({}, talk)


messages_api = MessagesApi()


# --- turns


def speak(asked: Asked, talk: Talk) -> None:
    """Say the answer, streamed if that was asked for."""
    if asked.get("stream"):
        _stream(_events(asked, _spoken()), talk)
    else:
        content = [{"type": "text", "text": SPOKEN}]
        _json(talk, _message(asked) | {"content": content, "stop_reason": "end_turn"})


def using_tool(name: str, given: Mapping[str, object]) -> Turn:
    """Ask the client to use a tool."""

    def turn(asked: Asked, talk: Talk) -> None:
        start = {"type": "tool_use", "id": f"toolu_{name.lower()}", "name": name, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(given)}
        block = _block(start, [delta])
        _stream(_events(asked, block, stop="tool_use"), talk)

    return turn


def refusing(status: str, kind: str, message: str, *fields: str) -> Turn:
    """Answer with an error in the API's own shape."""

    def turn(_: Asked, talk: Talk) -> None:
        error = {"type": kind, "message": message}
        _json(talk, {"type": "error", "error": error}, *fields, status=status)

    return turn


BUSY = refusing(
    "429 Too Many Requests", "rate_limit_error", "as the owner worded it", "retry-after: 1"
)
BROKEN = refusing("500 Internal Server Error", "api_error", "as the engineer worded it")
OVERLOADED = refusing("529 Overloaded", "overloaded_error", "as the crowd worded it")
INVALID = refusing("400 Bad Request", "invalid_request_error", "messages.0: as the API worded it")


def break_off(asked: Asked, talk: Talk) -> None:
    """End the connection in the middle of the answer."""
    talk.send(_EVENT_STREAM)
    for event, _ in zip(_events(asked, _spoken()), range(5), strict=False):
        talk.send(_chunk(event))
        time.sleep(_PACE_S)
    talk.over = True


def pausing(pings: int) -> Turn:
    """Think before the answer, with so many pings, one a second."""

    def turn(asked: Asked, talk: Talk) -> None:
        talk.send(_EVENT_STREAM)
        for event in _events(asked, _spoken()):
            talk.send(_chunk(event))
            if event["type"] == "ping":
                for _ in range(pings):
                    time.sleep(_PING_S)
                    talk.send(_chunk(event))
        talk.send(_END)

    return turn


# --- what they are made of

type _Event = dict[str, object]

_EVENT_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_END = b"0\r\n\r\n"


def _json(talk: Talk, value: object, *fields: str, status: str = "200 OK") -> None:
    talk.answer(status, json.dumps(value).encode(), "Content-Type: application/json", *fields)


def _message(asked: Asked) -> _Event:
    return {
        "id": "msg_imitation",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _USAGE,
    }


def _spoken() -> Iterator[_Event]:
    deltas = [{"type": "text_delta", "text": word} for word in ANSWER]
    return _block({"type": "text", "text": ""}, deltas)


def _block(start: object, deltas: Sequence[object]) -> Iterator[_Event]:
    yield {"type": "content_block_start", "index": 0, "content_block": start}
    yield {"type": "ping"}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}


def _events(asked: Asked, block: Iterator[_Event], *, stop: str = "end_turn") -> Iterator[_Event]:
    yield {"type": "message_start", "message": _message(asked)}
    yield from block
    end = {"stop_reason": stop, "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": _USAGE}
    yield {"type": "message_stop"}


def _chunk(event: _Event) -> bytes:
    text = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(text), text)


def _stream(events: Iterator[_Event], talk: Talk) -> None:
    talk.send(_EVENT_STREAM)
    for event in events:
        talk.send(_chunk(event))
        time.sleep(_PACE_S)
    talk.send(_END)
