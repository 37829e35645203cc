"""Roles of an HTTP/1.1 intermediary, proxy or gateway (RFC 9110 3.7): where the two differ.

A lane carries requests and responses; its role says which requests it serves, what they become
for the upstream, and how the proxy's own responses look.
"""

from dataclasses import dataclass
from typing import Protocol

from claude_proxy.policy.answer import Answer
from claude_proxy.policy.questions import Facts
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.layers.http1_exchange import Exchange
from claude_proxy.proxy.responses import Refusal
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.head import RequestHead


class OwnResponse(Protocol):
    """A whole response of the proxy's own."""

    @property
    def status(self) -> int:
        """The status that the client gets."""

    def http1(self, *, accept: bytes | None = None, head_only: bool = False, close: bool) -> bytes:
        """Return the response in bytes; `accept` is the request's Accept field."""


@dataclass(slots=True, eq=False)
class LocalAnswer:
    """A request that is answered by the proxy itself, and the attempt that this ends, if any."""

    response: OwnResponse
    attempt: Attempt | None
    close: bool = False  # whether the client's connection must end


class Role(Protocol):
    """What a lane does for its clients."""

    @property
    def scheme(self) -> Scheme:
        """How upstreams are spoken to."""

    @property
    def target(self) -> Authority | None:
        """The one upstream; None: each request names its own."""

    @property
    def tunnels(self) -> bool:
        """Whether an upstream proxy is asked for a tunnel, and not by absolute-form requests."""

    def admit(
        self, head: RequestHead, answer: Answer | None = None
    ) -> Exchange | LocalAnswer | Facts:
        """Judge a request's head, and record the decision.

        Facts: the owner is to be asked, and then it is judged again with the answer.
        """

    def judge_ahead(self, exchange: Exchange, body: bytes) -> None:
        """Compute in another thread what `judge_body` will need; pure."""

    def judge_body(self, exchange: Exchange, body: bytes) -> bytes | OwnResponse:
        """Judge a body that was held; return what goes upstream, or why nothing does."""

    def response_for(self, refusal: Refusal) -> OwnResponse:
        """Return what the client gets for a refusal."""

    def fault(self) -> OwnResponse | None:
        """Return the response to a request that an internal error ended; None: it just closes."""


def has_body(head: RequestHead) -> bool:
    """Tell whether a body follows a request's head."""
    return head.chunked or bool(head.length)
