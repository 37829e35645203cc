"""TLS contexts of leaf certificates: what a client in a tunnel does its handshake with.

Fail closed: without a CA, or with one that has just expired, there is no context, and so no
connection. Secrets stay outside: the standard library takes a key only from a file, so it gets one
end of a pipe, and the key is never on a disk.
"""

import os
import ssl
import sys
from collections import OrderedDict
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from claude_proxy.errors import ConfigError
from claude_proxy.trust.certificate_authority import CertificateAuthority, Leaf

_KEPT: Final = 512
# In the server's order of preference: some clients name h2 last but still want it.
_PROTOCOLS: Final = ("h2", "http/1.1")
# What OpenSSL itself offers, and no weaker keys and signatures than its present default, whatever
# the system's OpenSSL is set to.
_CIPHERS: Final = "DEFAULT:@SECLEVEL=2"
_DESCRIPTORS: Final = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
_PIPE_ROOM: Final = 4096  # what every pipe takes without a reader


class LeafContexts:
    """Makes and keeps the contexts of the leaves that are in use."""

    def __init__(self, authority: CertificateAuthority | None = None) -> None:
        self._authority = authority
        self._kept: OrderedDict[str, tuple[Leaf, ssl.SSLContext]] = OrderedDict()

    def context_for(self, host: str) -> ssl.SSLContext | None:
        """Return the context that shows the leaf of `host`; None: there is none to show."""
        if self._authority is None:
            return None
        try:
            leaf = self._authority.leaf(host)
        except ConfigError:
            return None  # it has just expired; the gate denies the next tunnel, with the reason
        kept = self._kept.get(host)
        if kept is not None and kept[0] is leaf:
            self._kept.move_to_end(host)
            return kept[1]
        context = _context_of(leaf)
        self._kept[host] = leaf, context
        self._kept.move_to_end(host)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return context


def _context_of(leaf: Leaf) -> ssl.SSLContext:
    """Make the context of one leaf; its session tickets are valid for this leaf only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A renegotiation has a second ClientHello, which could name another server.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # A client without instructions for AES knows better which cipher is fast there.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(_PROTOCOLS)
    context.num_tickets = 1  # each costs as much as a small response, and each connection gets one
    certificate = leaf.certificate.public_bytes(Encoding.PEM)
    key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with _Piped(certificate) as certificate_path, _Piped(key) as key_path:
        context.load_cert_chain(certificate_path, key_path)
    return context


class _Piped:
    """A few bytes that can be read once, at a path that only this process has."""

    def __init__(self, data: bytes) -> None:
        if len(data) > _PIPE_ROOM:
            raise ValueError(f"{len(data)} bytes do not fit into a pipe")
        self._data = data
        self._reading = -1

    def __enter__(self) -> str:
        self._reading, writing = os.pipe()
        try:
            os.write(writing, self._data)
        finally:
            os.close(writing)
        return f"{_DESCRIPTORS}/{self._reading}"

    def __exit__(self, *_: object) -> None:
        os.close(self._reading)
