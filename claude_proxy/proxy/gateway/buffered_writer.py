"""Buffered response writer of strict mode: nothing is sent before all of a response is here.

Secrets stay outside, here the provider's: what the caller gets is made of the whole response, so
nothing of an error, of a head or of a response that breaks off can come through.
"""

from collections.abc import Sequence

from claude_proxy.policy.request import RawField
from claude_proxy.proxy.gateway.responses import normalised
from claude_proxy.proxy.inspection.base import ResponseCutOff
from claude_proxy.proxy.layers.admission import Admission
from claude_proxy.proxy.layers.http1_response_writer import Response
from claude_proxy.wire.http1.head import ResponseHead


class BufferedWriter:
    """Keeps a response until it is whole, and then writes what the caller may see of it."""

    def __init__(self, admission: Admission, *, limit: int, keeps_retry_after: bool) -> None:
        self.begun = False
        self._admission = admission
        self._limit = limit
        self._keeps_retry_after = keeps_retry_after
        self._head: ResponseHead | None = None
        self._content = bytearray()

    def interim(self, head: ResponseHead) -> bytes:  # noqa: ARG002
        """Write nothing: an interim head is the provider's."""
        return b""

    def start(self, response: Response) -> bytes:
        """Keep the head."""
        self._head = response.head
        return b""

    def content(self, data: bytes, trailers: Sequence[RawField], *, done: bool) -> bytes:  # noqa: ARG002
        """Keep the content; ResponseCutOff: it is too large."""
        self._content += data
        admission = self._admission
        too_large = len(self._content) > self._limit
        if too_large or not admission.reserve(len(data)):
            self._content.clear()
            raise ResponseCutOff("upstream-answer-too-large")
        return b""

    def finish(self, *, close: bool) -> bytes:
        """Write the whole response, and note its status, which may not be the upstream's."""
        if self._head is None:
            raise RuntimeError("a response ends that did not start")
        response = normalised(
            self._head.status,
            self._head.fields,
            bytes(self._content),
            keeps_retry_after=self._keeps_retry_after,
        )
        self.begun = True
        self._admission.attempt.status = response.status
        return response.http1(close=close)
