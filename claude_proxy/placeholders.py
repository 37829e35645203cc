"""Knows the forms in which a text may stand in a message: plain, in Base64, percent-encoded.

Law kept: secrets stay outside (9). A placeholder is looked for in what is sent, and a value in what
comes back, in each form that one of the two ends would take for it. Pure.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from urllib.parse import quote_from_bytes, unquote_to_bytes

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
    """Return the forms in which an answer could hold a value that was `sent` in a field."""
    forms = {value, *forms_in_base64(value)}
    forms.add(quote_from_bytes(value, safe="").encode())
    forms.add(value.replace(b"/", b"\\/"))  # JSON, as PHP writes it
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
