"""Strict JSON parser: accepts only texts that every parser reads in the same way.

Agreement. Parsers differ about duplicate keys, invalid UTF-8, lone surrogates, numbers that a
double cannot represent and the depth of nesting, and a plain search for a key misses one that is
written with escapes. A text with any of these is refused. Pure and linear: limits are checked
before any object is created, with methods of `bytes` for speed.
"""

import json
from itertools import accumulate
from typing import Any

from claude_proxy.deferred.patterns import lazy_pattern

type JsonObject = dict[str, Any]

MAX_DEPTH = 100
# Far more than a conversation of a million tokens has, and still fast to parse.
MAX_STRINGS = 300_000
MAX_PARTS = 250_000  # containers and their members
_MAX_NUMBER = 64  # characters; a double needs 24
_INFINITE = (float("inf"), float("-inf"))
_INTEGERS = range(-(1 << 63), 1 << 64)  # integers of 64 bits, signed or unsigned


class UnreadableError(ValueError):
    """The text is not JSON, or JSON that two parsers could read differently."""


def read_object(text: bytes) -> JsonObject:
    """Return the JSON object in `text`; UnreadableError if it is none, or ambiguous."""
    # Without escapes, each quote begins or ends a string, so every second piece is a string.
    pieces = _split(_without_escapes(text))
    structure = "".join(pieces[::2]).encode("latin-1")
    _bound(structure)
    _refuse_escaped_keys(pieces)
    decoder = _CAREFUL_DECODER if _has_odd_number(structure) else _DECODER
    try:
        value = decoder.decode(text.decode("utf-8"))
    # Without the original error: it contains the text, and prompts must not be logged.
    except UnicodeDecodeError:
        raise UnreadableError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise UnreadableError(f"not JSON: {error.msg}") from None
    if not isinstance(value, dict):
        raise UnreadableError("not an object")
    return value


# Replaces each byte of an escape. As a control character, it is not allowed in JSON.
_MARK = b"\x01"
_surrogate_pair = lazy_pattern(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_surrogate = lazy_pattern(rb"\\u[dD][89a-fA-F]").search


def _without_escapes(text: bytes) -> bytes:
    if _MARK in text:
        raise UnreadableError("a control character")
    if b"\\" not in text:
        return text
    # In each run of backslashes, the pairs are replaced from the left and an odd one stays.
    text = text.replace(b"\\\\", _MARK * 2)
    if b"\\ud" in text or b"\\uD" in text:
        text = _surrogate_pair.sub(_MARK, text)
        if _surrogate(text):
            raise UnreadableError("half a surrogate pair")
    return text.replace(b'\\"', _MARK * 2).replace(b"\\", _MARK)


def _split(text: bytes) -> list[str]:
    if text.count(b'"') > 2 * MAX_STRINGS:
        raise UnreadableError("too many strings")
    # Latin-1 maps each byte to one character; searching a `str` is faster.
    return text.decode("latin-1").split('"')


_BRACKETS = b"{[]}"
_STEPS = dict(zip(_BRACKETS, (1, 1, -1, -1), strict=True))
_NO_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))


def _bound(structure: bytes) -> None:
    brackets = structure.translate(None, _NO_BRACKETS)
    if len(brackets) // 2 + structure.count(b",") > MAX_PARTS:
        raise UnreadableError("too many parts")
    if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise UnreadableError("nested too deeply")


def _refuse_escaped_keys(pieces: list[str]) -> None:
    mark = _MARK.decode()
    escaped = [at for at in range(1, len(pieces) - 1, 2) if mark in pieces[at]]
    if any(pieces[at + 1].lstrip().startswith(":") for at in escaped):
        raise UnreadableError("an escape in a key")


# A number that may not fit into a double or an integer of 64 bits.
_has_odd_number = lazy_pattern(rb"[0-9](?:[0-9]{18}|[eE])").search


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise UnreadableError("a duplicate key")
    return made


def _integer(text: str) -> int:
    if len(text) > _MAX_NUMBER or (number := int(text)) not in _INTEGERS:
        raise UnreadableError("a number too large")
    return number


def _float(text: str) -> float:
    if len(text) > _MAX_NUMBER or (number := float(text)) in _INFINITE:
        raise UnreadableError("a number too large")
    return number


def _constant(text: str) -> Any:
    raise UnreadableError(f"the word {text}, which is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
_CAREFUL_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=_float,
    parse_constant=_constant,
)
