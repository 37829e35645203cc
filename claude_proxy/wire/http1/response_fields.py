"""HTTP/1.1 response fields: the field lines of heads and trailers, as real servers send them.

Agreement: what RFC 9112 lets a recipient repair in a response is repaired here, before anything is
interpreted: a bare LF as a line's end (section 2.2), white space before the colon (section 5.1),
and folded lines (section 5.2). The client gets what was read, written again, so it cannot read the
original differently. Requests are never repaired: see `request`.
"""

import re
from typing import Final

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.wire.http1.head import CONTROLS, FIELD, MAX_FIELDS, TOKEN, BadMessage, Fields

_STATUS: Final = 502
_LINE: Final = lazy_pattern(rb"(" + TOKEN + rb"++)[ \t]*+:[ \t]*+(.*)", re.DOTALL)
_LINE_END: Final = lazy_pattern(rb"\r?\n")
_BARE_CR: Final = lazy_pattern(rb"\r(?!\n|\Z)")


def read_response_fields(block: bytes) -> Fields:
    """Parse field lines, each with its line end, into names as sent and trimmed values.

    BadMessage if they are malformed beyond what RFC 9112 lets a recipient repair.
    """
    lines = block.count(b"\n")
    if lines > MAX_FIELDS:
        raise BadMessage(_STATUS, "there are too many fields")
    if len(block.translate(None, CONTROLS)) != len(block):
        raise BadMessage(_STATUS, "there is a control byte in a field")
    fields: Fields = FIELD.findall(block)
    return fields if len(fields) == lines else _repaired(block)


def _repaired(block: bytes) -> Fields:
    fields: Fields = []
    for line in _LINE_END.split(block)[:-1]:
        if b"\r" in line:
            raise BadMessage(_STATUS, "there is a bare CR")
        if line[:1] in (b" ", b"\t"):
            if not fields:
                raise BadMessage(_STATUS, "the first field line begins with white space")
            name, value = fields.pop()
            fields.append((name, (value + b" " + line.strip(b" \t")).strip(b" ")))
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise BadMessage(_STATUS, "a field line is malformed")
        fields.append((match[1], match[2].rstrip(b" \t")))
    return fields


def refuse_invalid_response_bytes(part: bytes) -> None:
    """Raise BadMessage if an incomplete head can no longer become valid: bare CR, or NUL."""
    if _BARE_CR.search(part):
        raise BadMessage(_STATUS, "there is a bare CR")
    if b"\x00" in part:
        raise BadMessage(_STATUS, "there is a NUL byte")
