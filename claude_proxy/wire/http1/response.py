"""Reads the heads of HTTP/1.1 answers and settles how they end (RFC 9112 4, 6.3).

The law kept here: as strict as with requests wherever an answer could be split in two ways, since
the next client's answer would be the second half; elsewhere what real servers send is taken.
"""

import re
from http import HTTPStatus
from typing import Final

from claude_proxy.wire.http1.head import (
    OPTION,
    BadMessage,
    ResponseHead,
    items_of,
    length_of,
    protocols_of,
    read_fields,
    refuse_garbage,
    telling_fields,
)

# RFC 9112 4; a missing phrase, even with its space missing, is what real servers send.
_STATUS_LINE: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]*+))?\r\n"
)
_STATUS_LINE_SO_FAR: Final = re.compile(
    rb"(?:H|HT|HTT|HTTP|HTTP/|HTTP/1|HTTP/1\.[01]?)?|HTTP/1\.[01] [0-9]{0,3}|"
    rb"HTTP/1\.[01] [1-9][0-9]{2} [^\x00-\x08\x0a-\x1f\x7f]*"
)


def read_response_head(buffer: bytearray, limit: int, *, method: str) -> ResponseHead | None:
    """Take one answer's head from the buffer's front; None while it has not come whole."""
    end = buffer.find(b"\r\n\r\n", 0, limit)
    if end < 0:
        part = bytes(buffer[:limit])
        line, crlf, _ = part.partition(b"\r\n")
        if crlf:
            _match_status_line(line + crlf)
        elif not _STATUS_LINE_SO_FAR.fullmatch(line.removesuffix(b"\r")):
            raise BadMessage(502, "the answer does not begin with a status line")
        refuse_garbage(part, 502)
        if len(buffer) >= limit:
            raise BadMessage(502, "the answer's head is too large")
        return None
    head = bytes(buffer[: end + 2])
    line_match = _match_status_line(head)
    minor, status, phrase = line_match.groups()
    answer = ResponseHead(
        status=int(status),
        phrase=phrase or b"",
        minor=int(minor),
        fields=read_fields(head[line_match.end() :], 502),
    )
    _interpret_response(answer, method)
    del buffer[: end + 4]
    return answer


def is_bodiless(status: int, method: str) -> bool:
    """Tell whether an answer ends with its head, whatever its fields say (RFC 9112 6.3)."""
    return (
        method == "HEAD"
        or status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
        or status < HTTPStatus.OK
        or (method == "CONNECT" and status < HTTPStatus.MULTIPLE_CHOICES)
    )


def _match_status_line(head: bytes) -> re.Match[bytes]:
    line_match = _STATUS_LINE.match(head)
    if line_match is None:
        raise BadMessage(502, "the answer does not begin with a status line")
    return line_match


def _interpret_response(answer: ResponseHead, method: str) -> None:
    """Settle what the fields say about framing and the connection."""
    telling = telling_fields(answer.fields)
    _settle_framing(
        answer, telling.get(b"content-length", []), telling.get(b"transfer-encoding", [])
    )
    _settle_options(answer, telling.get(b"connection", []), telling.get(b"upgrade", []))
    _settle_end(answer, method)


def _settle_framing(answer: ResponseHead, lengths: list[bytes], codings: list[bytes]) -> None:
    if codings:
        if lengths:
            raise BadMessage(502, "the answer has Content-Length and Transfer-Encoding")
        if not answer.minor or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise BadMessage(502, "only the transfer coding chunked is known here")
        answer.chunked = True
    elif lengths:
        # RFC 9110 8.6: equal repetitions are folded to one; servers behind caches send them.
        if len(set(lengths)) > 1:
            raise BadMessage(502, "the answer has several lengths")
        answer.length = length_of(lengths[0], 502)


def _settle_options(answer: ResponseHead, connection: list[bytes], upgrade: list[bytes]) -> None:
    options = items_of(connection)
    answer.options = frozenset(filter(OPTION.fullmatch, options))
    # RFC 9112 9.3. "Keep-Alive: timeout=5" and the like stand in Connection at times: not a
    # reason to lose the answer, but one not to trust the connection with another.
    answer.keep_alive = (
        len(answer.options) == len(set(options))
        and b"close" not in answer.options
        and (answer.minor == 1 or b"keep-alive" in answer.options)
    )
    if answer.status == HTTPStatus.SWITCHING_PROTOCOLS:
        answer.upgrade = protocols_of(upgrade, 502)
        if not answer.upgrade or b"upgrade" not in answer.options:
            raise BadMessage(502, "the answer switches to no protocol")  # RFC 9110 15.2.2


def _settle_end(answer: ResponseHead, method: str) -> None:
    """Settle how the answer ends and whether the connection outlives it (RFC 9112 6.3)."""
    framed = answer.chunked or answer.length is not None
    if not is_bodiless(answer.status, method):
        answer.keep_alive = answer.keep_alive and framed
    elif method != "HEAD" and answer.status != HTTPStatus.NOT_MODIFIED and framed:
        # RFC 9110 8.6, RFC 9112 6.1: no framing in 1xx, 204 and answers to CONNECT. Servers send
        # it all the same; should content follow, it must not be read as the next answer.
        if answer.chunked or answer.length:
            if answer.status < HTTPStatus.OK:
                raise BadMessage(502, "an interim answer has no content")
            answer.keep_alive = False
        answer.length = None
        answer.chunked = False
