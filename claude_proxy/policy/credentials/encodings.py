"""Encodings of a text in a message: plain, Base64, hexadecimal, percent-encoded, JSON.

Secrets stay outside: a placeholder is looked for in requests, and a value in responses, in each
form that one of the two ends would decode. Pure.
"""

import re
from base64 import b64encode
from urllib.parse import quote_from_bytes

from claude_proxy.policy.credentials.escapes import Spelling


def guarded_forms(value: bytes, sent: bytes) -> tuple[bytes, ...]:
    """Return the forms in which an answer could hold a value that was `sent` in a field.

    In each of them single characters may be escaped besides: see `Spelling`.
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


_quoted_in = re.compile(rb"%[0-9A-F]{2}").sub


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
