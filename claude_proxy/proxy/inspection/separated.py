r"""Separated encodings: a secret in Base64, hexadecimal or character codes, in lines or groups.

Secrets stay outside. MIME breaks Base64 into lines of 76 (RFC 2045 section 6.8), PEM into lines of
64, and quoted-printable breaks any text by "=" at the end of a line; hexadecimal comes as `73:6b`,
`\x73\x6b`, `\u0073\u006b` or `%73%6b`, codes as `&#115;` or `[115, 107]`. All of them are found by
leaving out what separates, from the secret and from the content. Pure.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

# Fewer characters could be in any text by chance.
_SHORTEST = 16
_ENOUGH_HEX = 32
_HEX_DIGITS = b"0123456789abcdef"
_LETTERS_AND_DIGITS = frozenset(filter(str.isalnum, map(chr, range(128))))
_SEPARATORS = bytes(code for code in range(256) if chr(code) not in _LETTERS_AND_DIGITS)
_LOWER = bytes(range(256)).lower()
_NO_HEX_DIGITS = bytes(code for code in range(256) if code not in _HEX_DIGITS + b"ABCDEF")
# Escapes of a line's end, whose letters and digits must not be taken for content.
_remove_escaped_ends = re.compile(rb"\\(?:[nr]|u000[adAD])").sub
_BACKSLASHED_ENDS = (b"\\r", b"\\n", b"\\u000d", b"\\u000a", b"\\u000D", b"\\u000A")
_PERCENT_ENDS = (b"%0d", b"%0a", b"%0D", b"%0A")
_ENTITY_ENDS = (b"&#13;", b"&#10;", b"&#xd;", b"&#xa;", b"&#xD;", b"&#xA;")
# With more bytes to a backslash, one pass over them is faster than one for each escape.
_SPARSE = 32
_LONGEST_ESCAPE = 6
_TELLING = 8  # a shorter beginning reveals nothing
# Most content is no text, or no hexadecimal: a sample of it shows that at a tenth of the time.
_STRIDE = 4
_SAMPLED_BYTES = 4096
_TEXT = frozenset(b"\0\t\n\f\r" + bytes(range(32, 127)))  # NUL as in UTF-16
_IS_TEXT = bytes(49 if code in _TEXT else 48 for code in range(256))
_IS_DIGIT = bytes(49 if code in _HEX_DIGITS + b"ABCDEFxXuU" else 48 for code in range(256))
_ESCAPERS = (b"\\", b"%", b"&")


class SeparatedSearch:
    """Searches one stream for the letters and digits of texts, whatever is between them."""

    def __init__(self, guarded: Iterable[bytes]) -> None:
        self._texts = _texts_of(tuple(guarded))
        self._last_letters = self._last_digits = self._unread = b""
        self.has_begun = False  # what has come ends with the beginning of one of the texts

    def is_in(self, text: bytes) -> bool:
        """Return whether one of the texts is in `text`."""
        texts, letters = self._texts, _without_separators(text)
        has_digits = bool(texts.digits) and texts.may_be_digits(letters[::_STRIDE])
        return texts.are_in(letters, _digits(letters) if has_digits else b"")

    def feed(self, data: bytes) -> bool:
        """Read the next piece; return whether one of the texts has come."""
        texts = self._texts
        if not texts.letters and not texts.digits:
            return False
        data = self._unread + data
        # An escape that is not whole yet is read with the next piece.
        cut = _end_of_escapes(data)
        data, self._unread = data[:cut], data[cut:]
        if len(data) > _SAMPLED_BYTES and not texts.may_be_among(data[::_STRIDE]):
            # Here can only be the end of one that began before, and the beginning of another.
            edge = texts.shortest + 2 * _STRIDE
            return self._read(data[:edge]) or self._restart(data[-edge:])
        return self._read(data)

    def finish(self) -> bool:
        """Read what was not whole yet; return whether one of the texts has come."""
        data, self._unread = self._unread, b""
        return bool(data) and self._read(data)

    def _read(self, data: bytes) -> bool:
        texts = self._texts
        found = _without_separators(data)
        letters, digits = self._last_letters + found, self._last_digits
        if len(found) > _SAMPLED_BYTES and not texts.may_be_digits(found[::_STRIDE]):
            edge = texts.fewest_digits + 2 * _STRIDE
            if texts.are_in(b"", digits + _digits(found[:edge])):
                return True
            digits = _digits(found[-edge:])
        else:
            digits += _digits(found)
        # A short piece can only be the end of one whose beginning was noticed.
        may_end = self.has_begun or len(found) + 2 * _TELLING > texts.shortest
        if may_end and texts.are_in(letters, digits):
            return True
        self._last_letters = letters[max(0, len(letters) - texts.most_letters) :]
        self._last_digits = digits[max(0, len(digits) - texts.most_digits) :]
        self.has_begun = _is_begun(self._last_letters, texts.letters, _TELLING) or _is_begun(
            self._last_digits, texts.digits, 2 * _TELLING
        )
        return False

    def _restart(self, data: bytes) -> bool:
        self._last_letters = self._last_digits = b""
        self.has_begun = False
        return self._read(data)


@dataclass(frozen=True, slots=True, repr=False)
class _Texts:
    """What is looked for: among letters and digits, and among the digits of hexadecimal."""

    letters: tuple[bytes, ...]
    digits: tuple[bytes, ...]
    most_letters: int
    most_digits: int
    shortest: int  # of all, in bytes of the content
    fewest_digits: int
    sampled: bytes  # as many samples in a row come from any of them
    sampled_digits: bytes

    def are_in(self, letters: bytes, digits: bytes) -> bool:
        """Return whether one is among the letters or the digits of a content."""
        for each in self.letters:
            if each in letters:
                return True
        # Not any(...): a generator would cost more than the searches of a short content.
        for each in self.digits:  # noqa: SIM110
            if each in digits:
                return True
        return False

    def may_be_among(self, samples: bytes) -> bool:
        """Return whether a content with these samples has enough text in a row."""
        return self.sampled in samples.translate(_IS_TEXT)

    def may_be_digits(self, samples: bytes) -> bool:
        """Return whether letters with these samples have enough digits in a row."""
        return self.sampled_digits in samples.translate(_IS_DIGIT)


@lru_cache(maxsize=16)  # the same for each request with a credential
def _texts_of(guarded: tuple[bytes, ...]) -> _Texts:
    letters = tuple(dict.fromkeys(_letters_of(guarded)))
    digits = tuple(dict.fromkeys(_digits_of(guarded)))
    shortest = min(map(len, letters + digits), default=_SHORTEST)
    fewest = min(map(len, digits), default=_ENOUGH_HEX)
    return _Texts(
        letters,
        digits,
        max(map(len, letters), default=0),
        max(map(len, digits), default=0),
        shortest,
        fewest,
        b"1" * (shortest // _STRIDE - 1),
        b"1" * (fewest // _STRIDE - 1),
    )


def _digits(letters: bytes) -> bytes:
    return letters.translate(_LOWER, _NO_HEX_DIGITS)


def _without_separators(text: bytes) -> bytes:
    """Return the letters and digits of `text`, without those of an escaped line end."""
    if b"\\" in text:
        if text.count(b"\\") * _SPARSE < len(text):
            text = _remove_escaped_ends(b"", text)
        else:
            text = _without(text, _BACKSLASHED_ENDS)
    if b"%" in text and b"%0" in text:
        text = _without(text, _PERCENT_ENDS)
    if b"&" in text and b"&#" in text:
        text = _without(text, _ENTITY_ENDS)
    return text.translate(None, _SEPARATORS)


def _without(text: bytes, ends: Iterable[bytes]) -> bytes:
    for end in ends:
        text = text.replace(end, b"")
    return text


def _end_of_escapes(data: bytes) -> int:
    """Return where `data` ends, without an escape whose end is not there."""
    last = data[-_LONGEST_ESCAPE + 1 :]
    begun = max(map(last.rfind, _ESCAPERS))
    return len(data) if begun < 0 else len(data) - len(last) + begun


def _is_begun(last: bytes, texts: tuple[bytes, ...], least: int) -> bool:
    """Return whether `last` ends with at least so many bytes of the beginning of a text."""
    for text in texts:
        beginning = text[:least]
        at = last.find(beginning, max(0, len(last) - len(text) + 1))
        while at >= 0:
            if text.startswith(last[at:]):
                return True
            at = last.find(beginning, at + 1)
    return False


def _letters_of(texts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the letters and digits of each text that could not be ordinary words."""
    for text in texts:
        letters = text.translate(None, _SEPARATORS)
        is_words = letters.isalpha() and (letters.islower() or letters.isupper())
        if len(letters) >= _SHORTEST and not is_words and not _is_hex(letters):
            yield letters


def _digits_of(texts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the digits of each text in hexadecimal, and of the codes that it stands for."""
    for text in texts:
        if not _is_hex(text):
            continue
        digits = text.lower()
        pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
        codes = bytes.fromhex(digits.decode("ascii"))
        yield digits
        yield b"".join(b"0" + pair for pair in pairs)  # 0x73
        yield b"".join(b"00" + pair for pair in pairs)  # \u0073
        yield b"".join(b"%d" % code for code in codes)
        yield b"".join(b"%03o" % code for code in codes)


def _is_hex(text: bytes) -> bool:
    return (
        len(text) >= _ENOUGH_HEX
        and len(text) % 2 == 0
        and not text.translate(None, _HEX_DIGITS + b"ABCDEF")
    )
