"""Placeholders: what a client sends instead of a credential's real value.

Secrets stay outside: a placeholder in any other place is found, in every encoding. Pure.
"""

from collections.abc import Iterable, Sequence
from urllib.parse import unquote_to_bytes

from claude_proxy.policy.credentials.encodings import forms_in_base64, raw_of
from claude_proxy.policy.request import RawField, Request

STEM = "claude-proxy-placeholder-"  # part of every default placeholder


class Placeholders:
    """A set of placeholders, and their encodings to search for."""

    __slots__ = ("_common", "_named", "_own")

    def __init__(self, texts: Iterable[str]) -> None:
        known = {text for text in texts if text}
        # Hundreds cost no more than one: default placeholders are searched for only in a text that
        # contains their common part.
        self._named = _forms_of(text for text in known if STEM in text)
        self._common = _forms_of([STEM]) if self._named else ()
        self._own = _forms_of(text for text in known if STEM not in text)

    def within(self, text: bytes) -> bool:
        """Return whether one of them is in `text`."""
        return (_is_in(self._common, text) and _is_in(self._named, text)) or _is_in(self._own, text)

    def in_head(self, request: Request, fields: Sequence[RawField]) -> bool:
        """Return whether one of them is in the request's path, its query or in `fields`."""
        if not (self._named or self._own):
            return False
        line = raw_of(f"{request.path}?{request.query}")
        if b"%" in line:
            line += b"\n" + unquote_to_bytes(line)
        return self.within(b"\n".join((line, *map(b":".join, fields))))


def _is_in(forms: tuple[bytes, ...], text: bytes) -> bool:
    # For a few long texts, plain searches are ten times as fast as one regular expression.
    for form in forms:  # noqa: SIM110 - a generator would slow down every request
        if form in text:
            return True
    return False


def _forms_of(texts: Iterable[str]) -> tuple[bytes, ...]:
    plain = {raw_of(text) for text in texts}
    return tuple(sorted(plain | {form for text in plain for form in forms_in_base64(text)}))


NO_PLACEHOLDERS = Placeholders(())
