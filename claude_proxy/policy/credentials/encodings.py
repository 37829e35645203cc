"""Encodings of a secret or placeholder: plain, Base64, hexadecimal, percent-encoded, JSON.

Secrets stay outside: requests are searched for placeholders, and responses for values, in every
encoding that the receiver would decode. Pure.
"""

from base64 import b64encode
from urllib.parse import quote_from_bytes

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.credentials.escapes import Spelling


def guarded_forms(value: bytes, sent: bytes) -> tuple[bytes, ...]:
    """Return the encodings of `value` to search for in a response; `sent` is the field's value.

    In each of them, single characters may also be escaped: see `Spelling`.
    """
    forms = {value, *forms_in_base64(value)}
    if Spelling(value).is_rigid():
        quoted = quote_from_bytes(value, safe="").encode()
        forms |= {quoted, _quoted_in(lambda escape: escape[0].lower(), quoted)}
        forms.add(value.replace(b"/", b"\\/"))  # JSON, as PHP writes it
    hexadecimal = value.hex().encode()
    forms |= {hexadecimal, hexadecimal.upper()}
    if sent.startswith(b"Basic "):
        forms.add(sent.removeprefix(b"Basic "))
    return tuple(sorted(forms))


_quoted_in = lazy_pattern(rb"%[0-9A-F]{2}").sub


def forms_in_base64(text: bytes) -> set[bytes]:
    """Return the substrings, one of which is in the Base64 of any text that contains `text`.

    One for each offset modulo 3, in the standard and the URL-safe alphabet.
    """
    forms = set()
    for before in range(3):
        coded = b64encode(bytes(before) + text)
        # Without the characters that also encode bits of the neighbours.
        form = coded[-(-8 * before // 6) : 8 * (before + len(text)) // 6]
        forms |= {form, form.translate(_URL_ALPHABET)}
    return forms


_URL_ALPHABET = bytes.maketrans(b"+/", b"-_")


def raw_of(text: str) -> bytes:
    """Return the bytes from which a text of a request head was decoded."""
    return text.encode("utf-8", "surrogateescape")
