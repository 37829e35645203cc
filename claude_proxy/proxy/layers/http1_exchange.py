"""Exchange: one allowed HTTP/1.1 request and its response while they are under way.

Secrets stay outside: what is added to a request is in its emitted head alone, and no repr shows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from claude_proxy.policy.request import RawField
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.layers.admission import Admission
from claude_proxy.proxy.layers.http1_response_writer import Response, ResponseWriter
from claude_proxy.proxy.upstream_errors import UpstreamError, proxy_refused
from claude_proxy.wire.http1.body import Body, body_of_request
from claude_proxy.wire.http1.emit import emit_request_head
from claude_proxy.wire.http1.head import RequestHead, ResponseHead

_REPLAY = 256 * 1024  # a long conversation with Claude has as much
_NO_EXPECTATION = frozenset({b"expect"})


@dataclass(slots=True, eq=False, repr=False)
class Exchange:
    """One request on an HTTP/1.1 connection."""

    head: RequestHead
    admission: Admission
    writer: ResponseWriter
    target: str  # in the request line for upstream
    host: bytes | None  # replaces the Host that was sent; None: that one goes
    extra: tuple[RawField, ...] = ()  # fields that are added beside the credential
    via_proxy: bool = False  # an upstream proxy takes it, and not its target
    body: Body | None = field(init=False)  # what is still to come from the client
    held: bytearray | None = None  # a body that is not judged yet
    outgoing: tuple[bytes, bytes | ValueError] | None = None  # what a held body becomes, or why not
    content: bytes | None = None  # a judged body, which goes with the head
    body_sent: bool = False  # so that the request cannot be sent again
    # What was sent of a body that streams, while it might have to be sent again; None: it is not.
    replay: bytearray | None = None
    interim_heads: int = 0
    response: Response | None = None  # once its final head is here

    def __post_init__(self) -> None:
        self.body = body_of_request(self.head)

    @property
    def attempt(self) -> Attempt:
        """The recorded decision, and how the exchange went."""
        return self.admission.attempt

    def keep_for_replay(self, sent: bytes) -> None:
        """Keep what is sent of the body, unless it is too much."""
        if self.replay is not None:
            self.replay += sent
            if len(self.replay) > _REPLAY:
                self.replay = None

    @property
    def is_websocket(self) -> bool:
        """Whether the client asked for a WebSocket."""
        return "websocket" in self.head.upgrade

    def emit_head(self) -> bytes:
        """Return the head for upstream, written from what was judged."""
        head, drop = self.head, self.admission.drop
        if self.content is not None:
            # The whole body is here: its length is known, and nothing has to be waited for.
            head.chunked, head.length = False, len(self.content)
            drop |= _NO_EXPECTATION
        return emit_request_head(
            head,
            self.target,
            host=self.host,
            drop=drop,
            extra=(*self.extra, *self.admission.extra),
            websocket=self.is_websocket,
        )

    def refused_by_proxy(self, head: ResponseHead) -> UpstreamError | None:
        """Return the error if an upstream proxy demands a login: the client has none for it."""
        if not self.via_proxy or head.status != HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            return None
        return proxy_refused(head.get_all(b"proxy-authenticate"), offered=bool(self.extra))

    def inspect_head(self, head: ResponseHead) -> None:
        """Have a head of the response inspected; ResponseCutOff: the response must end here."""
        # The phrase comes down with the fields, so it is inspected like one.
        self.inspect_fields([*head.fields, (b"", head.phrase)], head.status)

    def inspect_fields(self, fields: Sequence[RawField], status: int = 200) -> None:
        """Have fields inspected, of a head or of the trailers."""
        inspector = self.admission.inspector
        if inspector is not None and fields:
            inspector.head(status, fields)

    def inspect(self, content: bytes, *, done: bool = False) -> bytes:
        """Return what may be passed on of the content; ResponseCutOff: it must end here."""
        inspector = self.admission.inspector
        if inspector is None:
            return content
        content = inspector.feed(content) if content else b""
        return content + inspector.finish() if done else content
