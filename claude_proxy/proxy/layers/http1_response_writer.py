"""Response writers: how an upstream's response is written to an HTTP/1.1 client.

Pure, and sans-io: each method returns the bytes that the client gets now. A response is never
made to look whole that is not: only `content` with `done`, or `finish`, ends it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from claude_proxy.policy.request import RawField
from claude_proxy.wire.http1.body import LAST_CHUNK, Body, chunk, emit_trailers
from claude_proxy.wire.http1.emit import Framing, emit_response_head
from claude_proxy.wire.http1.head import ResponseHead

# RFC 7838: a client that follows it would try to get past the proxy by another host or by QUIC.
_DROPPED = frozenset({b"alt-svc"})


@dataclass(slots=True, eq=False, repr=False)
class Response:
    """A final response on its way to the client."""

    head: ResponseHead
    body: Body | None  # what is still to come from the upstream; None: there is none
    framing: Framing  # towards the client
    keep_alive: bool  # whether the client's connection may go on after it


class ResponseWriter(Protocol):
    """Writes one response; takes its interim heads, its head, its content, and its end."""

    @property
    def begun(self) -> bool:
        """Whether the client has a part of the final response."""

    def interim(self, head: ResponseHead) -> bytes:
        """Take an interim head (1xx)."""

    def start(self, response: Response) -> bytes:
        """Take the final response's head."""

    def content(self, data: bytes, trailers: Sequence[RawField], *, done: bool) -> bytes:
        """Take content, and with `done` the trailers; may raise ResponseCutOff."""

    def finish(self, *, close: bool) -> bytes:
        """Take the end of the response; `close`: the client's connection ends after it."""


class StreamingWriter:
    """Writes a response as it comes."""

    __slots__ = ("_chunked", "_minor", "begun")

    def __init__(self, minor: int) -> None:
        self.begun = False
        self._minor = minor  # of the request's HTTP version
        self._chunked = False

    def interim(self, head: ResponseHead) -> bytes:
        """Write the head; RFC 9110 15.2: never to an HTTP/1.0 client."""
        return emit_bodiless(head) if self._minor else b""

    def start(self, response: Response) -> bytes:
        """Write the head with the framing that the client can read."""
        self.begun = True
        self._chunked = response.framing is Framing.CHUNKED
        return emit_response_head(
            response.head,
            framing=response.framing,
            keep_alive=response.keep_alive,
            minor=self._minor,
            drop=_DROPPED,
        )

    def content(self, data: bytes, trailers: Sequence[RawField], *, done: bool) -> bytes:
        """Write the content, in a chunk where the body is chunked."""
        if not self._chunked:
            return data
        out = chunk(data)
        if done:
            out += emit_trailers(list(trailers)) if trailers else LAST_CHUNK
        return out

    def finish(self, *, close: bool) -> bytes:  # noqa: ARG002 - the head has said it
        """Write nothing: the end of the content was the end."""
        return b""


def emit_bodiless(head: ResponseHead) -> bytes:
    """Write an interim head, or that of a switch of protocols."""
    return emit_response_head(head, framing=Framing.NONE, keep_alive=True, drop=_DROPPED)
