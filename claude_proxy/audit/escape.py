r"""Escaping: text that a client sent, made harmless for terminals, log lines and SQLite.

Law: a client's text cannot leave its field. Control characters, escape sequences, line breaks,
bidirectional and invisible characters are written as `\x1b`, `\u202e` or `\U000e0001`, and a
backslash is doubled, so two different texts never print alike.
"""

from claude_proxy.deferred.patterns import lazy_pattern

# Printable according to Unicode, but invisible: fillers, joiners, variation selectors, a blank
# Braille cell. `str.isprintable` already refuses every control, format (bidi, zero-width,
# tags), surrogate, private, unassigned and separator character but the space.
_INVISIBLE = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, range(0xFE00, 0xFE10)))
    + "".join(map(chr, range(0xE0100, 0xE01F0)))
)

_HARMLESS_FIELD = lazy_pattern(r"[!-\[\]-~]*").fullmatch
_HARMFUL_IN_A_FIELD = lazy_pattern(r"[^!-\[\]-~]")
_HARMLESS_TEXT = lazy_pattern(r"[ -\[\]-~]*").fullmatch
_HARMLESS_LINE = lazy_pattern(r"[\t -~]*").fullmatch
# SQLite cannot store a lone surrogate, and its own tools end a text at the first NUL.
_NOT_STORABLE = lazy_pattern("[\x00\ud800-\udfff]")


def escape_field(text: str) -> str:
    """Return `text` in visible ASCII without spaces, so that it is one field of a line."""
    if _HARMLESS_FIELD(text):
        return text
    return _HARMFUL_IN_A_FIELD.sub(lambda match: _spelled(match.group()), text)


def escape_text(text: str) -> str:
    """Return `text` for one line; spaces and letters of any script stay."""
    if _HARMLESS_TEXT(text):
        return text
    return "".join(_shown(character) for character in text)


def escape_line(text: str) -> str:
    """Return a line of a file as a difference shows it: tabs and backslashes stay as they are."""
    if _HARMLESS_LINE(text):
        return text
    return "".join(char if char in "\t\\" else _shown(char) for char in text)


def storable(text: str, bound: int) -> str:
    """Return `text` as SQLite can store it, cut off after about `bound` characters."""
    if len(text) > bound:
        text = f"{text[:bound]}...[{len(text) - bound} more]"
    return _NOT_STORABLE.sub(lambda match: _spelled(match.group()), text)


def _shown(character: str) -> str:
    if character != "\\" and character.isprintable() and character not in _INVISIBLE:
        return character
    return _spelled(character)


def _spelled(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if code < 1 << 8:
        return f"\\x{code:02x}"
    if code < 1 << 16:
        return f"\\u{code:04x}"
    return f"\\U{code:08x}"
