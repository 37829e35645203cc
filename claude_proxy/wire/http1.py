"""The strict HTTP/1.1 reader and writer, gathered from the modules that hold it.

The law kept here: whoever speaks HTTP/1.1 imports it from this module alone.
"""

from claude_proxy.wire.http1_body import (
    LAST_CHUNK,
    NOT_IN_TRAILERS,
    Body,
    ChunkedBody,
    CloseBody,
    LengthBody,
    body_of_request,
    body_of_response,
    chunk,
    emit_trailers,
)
from claude_proxy.wire.http1_emit import (
    Framing,
    emit_request_head,
    emit_response_head,
    framing_of,
)
from claude_proxy.wire.http1_head import BadMessage, RequestHead, ResponseHead, TargetForm
from claude_proxy.wire.http1_request import read_request_head
from claude_proxy.wire.http1_response import is_bodiless, read_response_head

__all__ = [
    "LAST_CHUNK",
    "NOT_IN_TRAILERS",
    "BadMessage",
    "Body",
    "ChunkedBody",
    "CloseBody",
    "Framing",
    "LengthBody",
    "RequestHead",
    "ResponseHead",
    "TargetForm",
    "body_of_request",
    "body_of_response",
    "chunk",
    "emit_request_head",
    "emit_response_head",
    "emit_trailers",
    "framing_of",
    "is_bodiless",
    "read_request_head",
    "read_response_head",
]
