"""Holds one allowed request and its answer while they are under way.

Law kept: secrets stay outside (9). What is put into a request is in its emitted head alone, and no
repr shows that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from claude_proxy.policy.request import Request
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.inspection.base import RawField, ResponseInspector
from claude_proxy.wire.http1.body import Body
from claude_proxy.wire.http1.emit import Framing, emit_request_head
from claude_proxy.wire.http1.head import RequestHead, ResponseHead

_NO_EXPECTATION = frozenset({b"expect"})


@dataclass(slots=True, eq=False, repr=False)
class Exchange:
    """One request on an HTTP/1.1 connection."""

    head: RequestHead
    passage: Attempt
    asked: str
    request: Request
    origin_target: str
    host: bytes | None  # in the place of the Host that was sent
    body: Body | None  # what is still to come from the client
    websocket: bool
    drop: frozenset[bytes]  # fields that do not go upstream, in head or trailers
    extra: tuple[tuple[bytes, bytes], ...]  # fields that are put in
    held: bytearray | None = None  # a body that is judged before any of it leaves
    hold_limit: int = 0
    content: bytes | None = None  # the judged body, which goes with the head
    interim: int = 0  # heads of 1xx that came before the answer
    sent: bool = False  # the head has left
    body_sent: bool = False  # so that it cannot be sent again
    answer: ResponseHead | None = None
    begun: bool = False  # the client has a part of the answer
    answer_body: Body | None = None
    framing: Framing = Framing.NONE
    keep_alive: bool = False
    watch: ResponseInspector | None = None  # sees the answer, and may end it

    @property
    def takes(self) -> bool:
        """Whether more of the body can be used now: to be held, or to be sent on."""
        return self.sent or self.held is not None

    def emitted(self) -> bytes:
        """Return the head for upstream, written from what was judged."""
        head, drop = self.head, self.drop
        if self.content is not None:
            # The whole body is here: its length is known, and nobody has to be asked for it.
            head.chunked, head.length = False, len(self.content)
            drop |= _NO_EXPECTATION
        return emit_request_head(
            head,
            self.origin_target,
            host=self.host,
            drop=drop,
            extra=self.extra,
            websocket=self.websocket,
        )

    def show(self, head: ResponseHead) -> None:
        """Show the watch a head of the answer; CutOff: the answer must end here."""
        # The phrase comes down with the fields, so it is shown like one.
        self.show_fields([*head.fields, (b"", head.phrase)], head.status)

    def show_fields(self, fields: Sequence[RawField], status: int = 200) -> None:
        """Show the watch fields, of a head or of the trailers."""
        if self.watch is not None and fields:
            self.watch.head(status, fields)

    def watched(self, content: bytes, *, done: bool = False) -> bytes:
        """Return what may be passed on of the content; CutOff: the answer must end here."""
        watch = self.watch
        if watch is None:
            return content
        content = watch.feed(content) if content else b""
        return content + watch.finish() if done else content
