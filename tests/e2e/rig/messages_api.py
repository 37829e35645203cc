"""Imitates the Messages API well enough for the real Claude Code to hold a conversation.

One server-sent event every 50 ms, as the real service trickles its answer.
"""

import json
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from .origin import Exchange, Talk

ANSWER = ("The", " quick", " answer", " is", " forty", "-two", ".")
SPOKEN = "".join(ANSWER)

_PACE_S = 0.05
_USAGE = {"input_tokens": 10, "output_tokens": 7}


def messages_api(exchange: Exchange, talk: Talk) -> None:
    """Answer one request to api.anthropic.com."""
    talk.drain(exchange)
    path = urlsplit(exchange.target).path
    if (exchange.method, path) == ("POST", "/v1/messages"):
        asked = json.loads(exchange.body)
        if asked.get("stream"):
            _stream(asked["model"], talk)
        else:
            _whole(asked["model"], talk)
    elif (exchange.method, path) == ("POST", "/v1/messages/count_tokens"):
        _json(talk, {"input_tokens": 10})
    elif exchange.method == "HEAD":
        talk.answer("200 OK")
    elif path.startswith("/api/eval/"):
        # Feature flags; this one makes the client report to the telemetry service it is made for.
        _json(talk, {"features": {"tengu_log_datadog_events": {"defaultValue": True}}})
    else:
        error = {"type": "not_found_error", "message": "not found"}
        _json(talk, {"type": "error", "error": error}, status="404 Not Found")


def _json(talk: Talk, value: object, *, status: str = "200 OK") -> None:
    talk.answer(status, json.dumps(value).encode(), "Content-Type: application/json")


def _message(model: str) -> dict[str, object]:
    return {
        "id": "msg_imitation",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _USAGE,
    }


def _whole(model: str, talk: Talk) -> None:
    content = [{"type": "text", "text": SPOKEN}]
    _json(talk, _message(model) | {"content": content, "stop_reason": "end_turn"})


def _events(model: str) -> Iterator[dict[str, object]]:
    yield {"type": "message_start", "message": _message(model)}
    block = {"type": "text", "text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    yield {"type": "ping"}
    for word in ANSWER:
        delta = {"type": "text_delta", "text": word}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": _USAGE}
    yield {"type": "message_stop"}


def _stream(model: str, talk: Talk) -> None:
    fields = ("Content-Type: text/event-stream; charset=utf-8", "Transfer-Encoding: chunked")
    talk.send("\r\n".join(["HTTP/1.1 200 OK", *fields, "", ""]).encode())
    for event in _events(model):
        text = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        talk.send(b"%x\r\n%s\r\n" % (len(text), text))
        time.sleep(_PACE_S)
    talk.send(b"0\r\n\r\n")
