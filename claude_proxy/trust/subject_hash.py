"""OpenSSL's hash of a certificate's subject: its name in a directory of certificates.

Every run of a sandbox asks for it, so it imports neither cryptography nor pyOpenSSL, which take
most of a start. Pure.
"""

import base64
import hashlib
from collections.abc import Iterator

_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
_SEQUENCE, _SET, _VERSION, _UTF8 = 0x30, 0x31, 0xA0, 0x0C
# The types of text that are compared in one form (ASN1_MASK_CANON), and how each is encoded.
_TEXTS = {
    _UTF8: "utf-8",
    0x13: "ascii",  # PrintableString
    0x14: "latin-1",  # T61String
    0x16: "ascii",  # IA5String
    0x1A: "ascii",  # VisibleString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
_SUBJECT = 4  # after serialNumber, signature, issuer and validity
_SHORT = 0x80  # a length below it is one byte

type _Value = tuple[int, bytes]  # tag and content, in DER


def subject_hash(certificate_pem: bytes) -> str:
    """Return the name that OpenSSL looks for in a directory of certificates, without its ".0".

    It is X509_NAME_hash of the subject (openssl-rehash(1)). Raises ValueError for what is no PEM.
    """
    _, begin, rest = certificate_pem.partition(_BEGIN)
    body, end, _ = rest.partition(_END)
    if not begin or not end:
        raise ValueError("not a certificate in PEM format")
    canonical = b"".join(map(_canonical, _subject_of(base64.b64decode(body))))
    digest = hashlib.sha1(canonical, usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


def _subject_of(der: bytes) -> Iterator[_Value]:
    """Yield the relative names of the subject (RFC 5280, section 4.1)."""
    for _, certificate in _values(der):
        for _, signed in _values(certificate):
            fields = [content for tag, content in _values(signed) if tag != _VERSION]
            if len(fields) > _SUBJECT:
                return _values(fields[_SUBJECT])
    raise ValueError("not a certificate")


def _canonical(relative_name: _Value) -> bytes:
    """Return a relative name as X509_NAME_cmp(3) compares it."""
    attributes = []
    for _, attribute in _values(relative_name[1]):
        (kind, identifier), (tag, content) = _values(attribute)  # ValueError if there are others
        if tag in _TEXTS:
            text = b" ".join(content.decode(_TEXTS[tag]).encode().split())
            tag, content = _UTF8, text.lower()
        attributes.append(_encoded(_SEQUENCE, _encoded(kind, identifier) + _encoded(tag, content)))
    return _encoded(_SET, b"".join(sorted(attributes)))


def _values(der: bytes) -> Iterator[_Value]:
    """Yield the values in DER; ValueError if it ends too early."""
    at = 0
    while at < len(der):
        if at + 1 >= len(der):
            raise ValueError("not DER")
        tag, size, at = der[at], der[at + 1], at + 2
        if size >= _SHORT:
            length = size - _SHORT
            size, at = int.from_bytes(der[at : at + length]), at + length
        if at + size > len(der):
            raise ValueError("not DER")
        yield tag, der[at : at + size]
        at += size


def _encoded(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < _SHORT:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, _SHORT + len(length))) + length + content
