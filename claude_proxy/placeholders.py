"""Knows the forms in which a text may stand in a message: plain, in Base64, in hex, escaped.

Law kept: secrets stay outside (9). A placeholder is looked for in what is sent, and a value in what
comes back, in each form that one of the two ends would take for it. Pure.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from urllib.parse import unquote_to_bytes

from claude_proxy.request import Request

STEM = "claude-proxy-placeholder-"  # what every placeholder has that its owner has not chosen


class Placeholders:
    """Every form of some placeholders that is looked for."""

    __slots__ = ("_common", "_named", "_own")

    def __init__(self, texts: Iterable[str]) -> None:
        known = {text for text in texts if text}
        # Hundreds cost no more than one: those of the usual kind are looked for only where what
        # they have in common is found.
        self._named = _forms_of(text for text in known if STEM in text)
        self._common = _forms_of([STEM]) if self._named else ()
        self._own = _forms_of(text for text in known if STEM not in text)

    def within(self, text: bytes) -> bool:
        """Tell whether one is in `text`."""
        return (_is_in(self._common, text) and _is_in(self._named, text)) or _is_in(self._own, text)

    def in_head(self, request: Request, fields: Sequence[tuple[bytes, bytes]]) -> bool:
        """Tell whether one is in the request's path, its query or these of its fields."""
        if not (self._named or self._own):
            return False
        line = raw_of(f"{request.path}?{request.query}")
        if b"%" in line:
            line += b"\n" + unquote_to_bytes(line)
        return self.within(b"\n".join((line, *map(b":".join, fields))))


def _is_in(forms: tuple[bytes, ...], text: bytes) -> bool:
    # Plain searches: for a few long needles they are ten times as fast as one expression.
    for form in forms:  # noqa: SIM110 - and no generator on the way of every request
        if form in text:
            return True
    return False


def _forms_of(texts: Iterable[str]) -> tuple[bytes, ...]:
    plain = {raw_of(text) for text in texts}
    return tuple(sorted(plain | {form for text in plain for form in forms_in_base64(text)}))


def guarded_forms(value: bytes, sent: bytes) -> tuple[bytes, ...]:
    """Return the forms in which an answer could hold a value that was `sent` in a field.

    In each of them single characters may be escaped besides: see `Spelling`.
    """
    forms = {value, *forms_in_base64(value)}
    hexadecimal = value.hex().encode()
    forms |= {hexadecimal, hexadecimal.upper()}
    if sent.startswith(b"Basic "):
        forms.add(sent.removeprefix(b"Basic "))
    return tuple(sorted(forms))


def forms_in_base64(text: bytes) -> set[bytes]:
    """Return what of `text` is in the Base64 of everything that holds it, in both alphabets."""
    forms = set()
    for before in range(3):
        coded = b64encode(bytes(before) + text)
        # The characters that hold bits of neighbours are left out.
        form = coded[-(-8 * before // 6) : 8 * (before + len(text)) // 6]
        forms |= {form, form.translate(_URL_ALPHABET)}
    return forms


_URL_ALPHABET = bytes.maketrans(b"+/", b"-_")


def raw_of(text: str) -> bytes:
    """Return the bytes that a text of a head was read from."""
    return text.encode("utf-8", "surrogateescape")


# --- escapes


class Spelling:
    """Finds a text of which each character but letters and digits may be escaped in some way.

    As JSON does it (RFC 8259, 7: PHP writes "/" so, .NET "+", Go "&", Gson "="), a script, HTML,
    a URL, or two of them one in the other.
    """

    __slots__ = ("_first", "_longest", "_parts", "_rarest", "_text")

    def __init__(self, text: bytes) -> None:
        runs = _runs_in(text)
        # Signs before the first run of letters and digits tell nobody anything.
        core = text[text.index(runs[0]) :] if runs else b""
        self._text = core if len(core) >= _SHORTEST_CORE else text
        if not self._text[:1].isalnum():
            runs = [text]  # there is little in it that stands fast, so it is looked for as it is
        self._first = runs[0]
        # These stand as they are whatever has escaped the rest, so nothing is there without them.
        self._rarest = max(runs, key=len)
        self._longest = len(text) + _LONGEST_ESCAPE * (len(text) - sum(map(len, runs)))
        self._parts: list[bytes] = []  # made when they are needed, which for most answers is never

    def __repr__(self) -> str:
        return "Spelling(set)"

    def is_in(self, text: bytes) -> bool:
        """Tell whether it is in `text`."""
        if self._rarest not in text:
            return False
        return self._text in text or any(self._at(text, at)[0] for at in self._places(text, 0))

    def begun_in(self, text: bytes) -> int:
        """Return how many bytes at the end of `text`, which has it not, may be its beginning."""
        first, end = self._first, len(text)
        if first != self._text:
            for at in self._places(text, max(0, end - self._longest)):
                if self._at(text, at)[1]:
                    return end - at
        # Else the text ends with no more than some of the first part.
        at = text.find(first[:1], max(0, end - len(first) + 1))
        while at >= 0:
            if first.startswith(text[at:]):
                return end - at
            at = text.find(first[:1], at + 1)
        return 0

    def _places(self, text: bytes, at: int) -> Iterator[int]:
        """Yield where its first part stands in `text`, from a place on."""
        while (at := text.find(self._first, at)) >= 0:
            yield at
            at += 1

    def _at(self, text: bytes, at: int) -> tuple[bool, bool]:
        """Tell whether it stands here whole, and whether the text ends before that is known."""
        if not self._parts:
            self._parts = [self._first, *_parts_of(self._text[len(self._first) :])]
        # Several, as "%25" is a percent sign that is escaped, or one that is not and a number.
        places, begun = {at}, False
        for part in self._parts:
            begun = begun or any(_may_become(text, place, part) for place in places)
            places = {end for place in places for end in _ends_of(part, text, place)}
            if not places:
                return False, begun
        return True, begun


_SHORTEST_CORE = 8
_runs_in = re.compile(rb"[A-Za-z0-9]+").findall
_parts_of = re.compile(rb"[A-Za-z0-9]+|[^A-Za-z0-9]", re.DOTALL).findall
_LONGEST_ESCAPE = 40  # "&amp;DiacriticalGrave;" is the longest name, and has 22
_is_begun_escape = re.compile(
    rb"""(?: \\{1,4} (?: u[0-9A-Fa-f]{0,3} | x[0-9A-Fa-f]? )?
    | % (?:25)? [0-9A-Fa-f]?
    | & (?:amp;)? [A-Za-z0-9#]{0,30} )""",
    re.VERBOSE,
).fullmatch


def _may_become(text: bytes, at: int, part: bytes) -> bool:
    """Tell whether what a text ends with, from a place on, may be the beginning of `part`."""
    if len(text) - at >= max(len(part), _LONGEST_ESCAPE):
        return False
    rest = text[at:]
    if len(part) > 1 or part.isalnum():
        return len(rest) < len(part) and part.startswith(rest)
    return not rest or _is_begun_escape(rest) is not None


def _ends_of(part: bytes, text: bytes, at: int) -> Iterator[int]:
    """Yield where a part that stands in `text` at a place may end."""
    if len(part) > 1 or part.isalnum():
        if text.startswith(part, at):
            yield at + len(part)
        return
    for spelling in _spellings_of(part):
        if found := spelling.match(text, at):
            yield found.end()


@cache
def _spellings_of(character: bytes) -> tuple[re.Pattern[bytes], ...]:
    """Return what matches a character: as it is, escaped, and escaped twice."""
    from html.entities import html5  # noqa: PLC0415 - two thousand names, and seldom one is needed

    [number] = character
    names = [name for name, text in html5.items() if text == chr(number) and name.endswith(";")]
    named = "|".join(names).encode() or b"(?!)"
    plain, numbers = re.escape(character), (number, number, named)
    texts = [rb"\\" * count + plain for count in range(4)]
    texts.append(rb"\\{1,4}(?:u00|x)(?i:%02x)" % number)
    texts += [b"%" + again + b"(?i:%02x)" % number for again in (b"", b"25")]
    texts += [
        b"&" + again + b"(?:#0{0,4}%d;|#[xX]0{0,4}(?i:%x);|%b)" % numbers
        for again in (b"", b"amp;")
    ]
    return tuple(map(re.compile, texts))
