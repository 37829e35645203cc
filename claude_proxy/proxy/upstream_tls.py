"""TLS clients towards upstreams: who is verified how, by which roots, and what is resumed.

Fail closed: the upstream must prove the judged name in its subjectAltName (RFC 9525); its common
name is ignored. TLS 1.2 at least, and no keys or signatures that are weak today, whatever the
system's OpenSSL is set to.
"""

import ssl
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

import certifi

from claude_proxy.proxy.tls_records import TlsRecords
from claude_proxy.proxy.tls_sessions import SessionKey, TlsSessions
from claude_proxy.wire.authority import Authority

# For TLS 1.2: forward secrecy first, and at the end what some servers have instead.
_CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:"
    "ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:"
    "ECDHE-RSA-CHACHA20-POLY1305:"
    "DHE-RSA-AES128-GCM-SHA256:"
    "DHE-RSA-AES256-GCM-SHA384:"
    "DHE-RSA-CHACHA20-POLY1305:"
    "ECDHE-ECDSA-AES128-SHA256:"
    "ECDHE-RSA-AES128-SHA256:"
    "ECDHE-ECDSA-AES128-SHA:"
    "ECDHE-RSA-AES128-SHA:"
    "ECDHE-ECDSA-AES256-SHA384:"
    "ECDHE-RSA-AES256-SHA384:"
    "ECDHE-ECDSA-AES256-SHA:"
    "ECDHE-RSA-AES256-SHA:"
    "DHE-RSA-AES128-SHA256:"
    "DHE-RSA-AES256-SHA256:"
    "AES128-GCM-SHA256:"
    "AES256-GCM-SHA384:"
    "AES128-SHA256:"
    "AES256-SHA256:"
    "AES128-SHA:"
    "AES256-SHA:"
    "@SECLEVEL=2"
)


class UpstreamTls:
    """Begins TLS with upstreams, which are verified by the roots in one file."""

    def __init__(
        self,
        roots: str | None = None,
        restore_roots: Callable[[], None] = lambda: None,
        sessions: TlsSessions | None = None,
    ) -> None:
        self._roots = roots or certifi.where()
        self._restore_roots = restore_roots  # writes the file again if it is gone
        self.sessions = TlsSessions() if sessions is None else sessions
        self._context: ssl.SSLContext | None = None
        self._error: OSError | None = None
        self._offered: tuple[bytes, ...] = ()
        self._reader: threading.Thread | None = None

    def prepare(self) -> None:
        """Read the roots in another thread, if need be: it takes some dozens of milliseconds."""
        if self._reader is None:
            self._reader = threading.Thread(target=self._read_roots, name="roots", daemon=True)
            self._reader.start()

    def begin(self, key: SessionKey) -> tuple[TlsRecords, bool]:
        """Begin a connection to the target; tell whether it asks to resume a session.

        OSError if the roots cannot be read.
        """
        context = self._read_context()
        if key.alpn != self._offered:
            # It is the next connection's: those that exist have a copy.
            context.set_alpn_protocols([protocol.decode() for protocol in key.alpn])
            self._offered = key.alpn
        session = self.sessions.session_for(key)
        records = TlsRecords(context, server=False, name=key.target.host, session=session)
        return records, session is not None

    def _read_context(self) -> ssl.SSLContext:
        self.prepare()
        if self._reader is not None:
            self._reader.join()
        if self._context is None:
            self._reader = None  # the file may be there again
            raise self._error or OSError("the roots cannot be read")
        return self._context

    def _read_roots(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # with a name and a chain to be verified
        context.hostname_checks_common_name = False
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A renegotiation could show another certificate.
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_ciphers(_CIPHERS)
        try:
            self._restore_roots()
            context.load_verify_locations(self._roots)
        except OSError as error:
            self._error = error
        else:
            self._context = context


@dataclass(frozen=True, slots=True)
class TlsFor:
    """TLS with upstreams on behalf of one client and credential."""

    tls: UpstreamTls
    owner: Hashable = None

    def prepare(self) -> None:
        """Prepare for a connection while it is dialled."""
        self.tls.prepare()

    def begin(self, target: Authority, alpn: tuple[bytes, ...]) -> "UpstreamHandshake":
        """Begin a connection to `target`; OSError if the roots cannot be read."""
        return UpstreamHandshake(self.tls, SessionKey(self.owner, target, alpn))


class UpstreamHandshake:
    """A handshake with an upstream; its end decides what is kept of its session."""

    __slots__ = ("_key", "_resumes", "_tls", "records")

    def __init__(self, tls: UpstreamTls, key: SessionKey) -> None:
        self._tls = tls
        self._key = key
        self.records, self._resumes = tls.begin(key)

    def shake(self, data: bytes) -> bool:
        """Continue with bytes of the upstream; tell whether it is done; ssl.SSLError: it failed."""
        try:
            done = self.records.shake(data)
        except ssl.SSLError:
            self.failed()
            raise
        if done:
            self._tls.sessions.keep(self._key, self.records.tls)
        return done

    def failed(self) -> None:
        """Note that it failed."""
        self._tls.sessions.failed(self._key, resumed=self._resumes)
