"""Placeholders: what a client sends where the credential's real value will be.

Secrets stay outside: a placeholder that reaches any other place is found in every encoding. Pure.
"""

from collections.abc import Iterable, Sequence
from urllib.parse import unquote_to_bytes

from claude_proxy.policy.credentials.encodings import forms_in_base64, raw_of
from claude_proxy.policy.request import RawField, Request

STEM = "claude-proxy-placeholder-"  # part of every placeholder that its owner has not chosen


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

    def in_head(self, request: Request, fields: Sequence[RawField]) -> bool:
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


NO_PLACEHOLDERS = Placeholders(())
