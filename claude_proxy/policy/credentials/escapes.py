"""Escapes: search for a text whose characters may be escaped as in JSON, HTML or URLs.

Secrets stay outside: a credential in a response is found however the server escapes it. Pure.
"""

import re
from collections.abc import Callable
from functools import cache
from itertools import product

from claude_proxy.deferred.patterns import lazy_pattern

type _Matchers = tuple[bytes | re.Pattern[bytes], ...]


class Spelling:
    """Searches for a text in which every character except letters and digits may be escaped.

    It finds escapes of JSON and scripts (RFC 8259 section 7: PHP escapes "/", .NET "+", Go "&",
    Gson "="), of HTML (names or numbers) and of URLs. It also finds each of these applied twice,
    JSON in HTML and HTML in JSON, if the outer one writes a backslash of the inner one as
    backslashes; but not URL escapes combined with the others. A rigid text (see `is_rigid`) is
    only found unescaped.
    """

    __slots__ = ("_first", "_longest", "_rarest", "_readings", "_search", "_text")

    def __init__(self, text: bytes) -> None:
        runs = _runs_in(text)
        # Other characters before the first run of letters and digits are left out.
        core = text[text.index(runs[0]) :] if runs else b""
        self._text = core if len(core) >= _SHORTEST_CORE else text
        if not self._text[:1].isalnum() or _takes_long(self._text, runs):
            runs = [self._text]  # so it is searched for unescaped
        self._first = runs[0]
        # Letters and digits are never escaped: without this run the text cannot be there.
        self._rarest = max(runs, key=len)
        self._longest = len(text) + _LONGEST_ESCAPE * (len(text) - sum(map(len, runs)))
        # Both are compiled on demand; most responses never need them.
        self._search: Callable[[bytes], object] | None = None
        self._readings: list[_Matchers] = []

    def __repr__(self) -> str:
        return "Spelling(set)"

    def is_rigid(self) -> bool:
        """Return whether it is only searched for unescaped, although it could be escaped.

        That is so if it has no letters or digits, is short and begins with another character, or
        has very many other characters.
        """
        return self._first == self._text and not self._text.isalnum()

    def is_in(self, text: bytes) -> bool:
        """Return whether the text is in `text`, escaped or not."""
        if self._rarest not in text:
            return False
        if self._text in text:
            return True
        if self._first == self._text:
            return False
        if self._search is None:
            self._search = re.compile(_pattern_of(self._text)).search
        return self._search(text) is not None

    def begun_in(self, text: bytes, least: int = 1) -> int:
        """Return how many bytes at the end of `text` may be its beginning; 0: fewer than `least`.

        `text` must not contain it as a whole.
        """
        first, end = self._first, len(text)
        if first != self._text:
            at = text.find(first, max(0, end - self._longest))
            while at >= 0:
                if self._is_begun(text, at):
                    return end - at
                at = text.find(first, at + 1)
        # Otherwise the text ends with at most a part of the first run.
        if len(first) < least:
            return 0
        at = text.find(first[:least], max(0, end - len(first) + 1))
        while at >= 0:
            if first.startswith(text[at:]):
                return end - at
            at = text.find(first[:least], at + 1)
        return 0

    def _is_begun(self, text: bytes, at: int) -> bool:
        """Return whether `text` from `at` to its end may be its beginning."""
        if not self._readings:
            self._readings = [_matchers_of(self._text, levels) for levels in _levels_of(self._text)]
        return any(_ends_within(parts, text, at) for parts in self._readings)


_SHORTEST_CORE = 8
_MOST_SIGNS = 128
_MOST_WORK = 1024  # comparisons of single characters, for each place where it may begin
_runs_in = lazy_pattern(rb"[A-Za-z0-9]+").findall
_parts_of = lazy_pattern(rb"[A-Za-z0-9]+|[^A-Za-z0-9]", re.DOTALL).findall
_LONGEST_ESCAPE = 40  # r"\\\\u0026amp;DiacriticalGrave;" is the longest, and has 30
_is_begun_escape = lazy_pattern(
    rb"""(?: \\{1,4} (?: u[0-9A-Fa-f]{0,3} | x[0-9A-Fa-f]? )?
    | % (?:25){0,2} [0-9A-Fa-f]?
    | (?: \\{0,3}& | \\{1,4}(?:u00|x)26 ) (?:amp;)? [A-Za-z0-9#]{0,30} )""",
    re.VERBOSE,
).fullmatch


def _takes_long(text: bytes, runs: list[bytes]) -> bool:
    """Return whether some response could make the search for `text` slow.

    That is possible if its beginning repeats within it, or if it is mostly other characters.
    """
    signs = len(text) - sum(map(len, runs))
    if not signs:
        return False
    again = text.count(text[: len(runs[0]) + 1])
    return signs > _MOST_SIGNS or signs * again * len(_levels_of(text)) > _MOST_WORK


def _levels_of(text: bytes) -> list[tuple[int, int, int]]:
    r"""Return how often each of `\`, "%" and "&" may have been escaped, at most twice together.

    Every escape contains one of these, so this number determines where an escape ends.
    """
    ranges = (range(3 if sign in text else 1) for sign in _ESCAPERS)
    return [(a, b, c) for a, b, c in product(*ranges) if a + b + c < len(_ESCAPERS)]


def _pattern_of(text: bytes) -> bytes:
    """Return a regular expression that tries each reading once at each place."""
    first, *rest = _parts_of(text)
    readings = [
        b"".join(part if part.isalnum() else b"(?>%b)" % _spelled(part, levels) for part in rest)
        for levels in _levels_of(text)
    ]
    return b"%b(?:%b)" % (first, b"|".join(readings))


def _matchers_of(text: bytes, levels: tuple[int, int, int]) -> _Matchers:
    return tuple(
        part if part.isalnum() else _compiled(_spelled(part, levels)) for part in _parts_of(text)
    )


def _ends_within(parts: _Matchers, text: bytes, at: int) -> bool:
    """Return whether `text` matches from `at` but ends before all parts could be compared."""
    for part in parts:
        left = len(text) - at
        if isinstance(part, bytes):
            if not text.startswith(part, at):
                return left < len(part) and part.startswith(text[at:])
            at += len(part)
            continue
        if not left or (left < _LONGEST_ESCAPE and _is_begun_escape(text, at)):
            return True
        found = part.match(text, at)
        if found is None:
            return False
        at = found.end()
    return False


_ESCAPERS = (b"\\", b"%", b"&")


def _spelled(character: bytes, levels: tuple[int, int, int]) -> bytes:
    if character in _ESCAPERS:
        return _spellings_of(character, levels[_ESCAPERS.index(character)])
    return _spellings_of(character, 0)


@cache
def _spellings_of(character: bytes, level: int) -> bytes:
    """Return an expression for a character: plain, escaped once, and escaped twice.

    For the characters of `_ESCAPERS`, only for having been escaped `level` times.
    """
    [number] = character
    digits, entity = b"(?i:%02x)" % number, _entity_of(number)
    plain = rb"\\{0,3}" + re.escape(character)
    script, url = rb"\\{1,4}(?:u00|x)" + digits, b"%(?:25)?" + digits
    ampersand = rb"(?:\\{0,3}&|\\{1,4}(?:u00|x)26)"
    html = ampersand + b"(?:amp;)?" + entity
    match character:
        case b"\\" if level:
            forms = [rb"\\{%d}" % 2**level, rb"\\{%d}(?:u00|x)%b" % (level, digits)]
        case b"\\":
            forms = [html, url, re.escape(character)]  # the first may begin with the last
        case b"%":
            forms = [b"%" + b"25" * level] if level else [plain, script, html]
        case b"&":
            more = b"amp;" * (level - 1)
            forms = [ampersand + more + entity] if level else [plain, script, url]
        case _:
            forms = [plain, script, url, html]
    return b"|".join(forms)


def _entity_of(number: int) -> bytes:
    from html.entities import html5  # noqa: PLC0415 - two thousand names, and rarely one is needed

    names = [name for name, text in html5.items() if text == chr(number) and name.endswith(";")]
    named = "".join(f"|{name}" for name in names).encode()
    return b"(?:#0{0,4}%d;|#[xX]0{0,4}(?i:%x);%b)" % (number, number, named)


@cache
def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern)
