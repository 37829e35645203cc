"""TLS between bytes and bytes: one end of a connection, over the standard library's memory BIOs.

Sans-io: what the peer sent goes in, what is to be sent to it comes out. Reading asks OpenSSL only
while there are bytes it has not seen, so that no exception is needed to learn that there are none.
"""

import ssl
from contextlib import suppress
from typing import Final

from claude_proxy.proxy.openssl_words import alert_words

_RECORD: Final = 16 * 1024  # RFC 8446, section 5.1: a record has at most so many bytes of content
# How much OpenSSL gets at once. Its buffers grow to that size and stay so: bytes of a long transfer
# go in portions, or each idle connection would hold the memory of its busiest moment.
_PORTION: Final = 32 * 1024


class Decrypted:
    """What came out of a peer's bytes."""

    __slots__ = ("ended", "error", "plain")

    def __init__(self, plain: bytes, error: str | None, *, ended: bool) -> None:
        self.plain = plain
        self.ended = ended  # nothing valid can follow
        self.error = error  # why, where it was no close_notify: "alert NAME" or the error's type


def certificate_ends(tls: ssl.SSLObject) -> float:
    """Return when the peer's certificate expires, in seconds since the epoch; 0: it has none.

    That of a resumed session is the one that was verified in its full handshake.
    """
    certificate = tls.getpeercert()
    return ssl.cert_time_to_seconds(str(certificate["notAfter"])) if certificate else 0.0


class TlsRecords:
    """One end of a TLS connection."""

    __slots__ = ("_has_ended", "_in", "_out", "_tls")

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server: bool,
        name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._has_ended = False  # our half
        self._tls = context.wrap_bio(
            self._in, self._out, server_side=server, server_hostname=name, session=session
        )

    @property
    def tls(self) -> ssl.SSLObject:
        """The object of the standard library, for what was negotiated."""
        return self._tls

    @property
    def alpn(self) -> bytes | None:
        """The protocol that was negotiated."""
        protocol = self._tls.selected_alpn_protocol()
        return None if protocol is None else protocol.encode()

    def shake(self, data: bytes) -> bool:
        """Continue the handshake with bytes of the peer; tell whether it is done.

        ssl.SSLError says why it has failed. Whatever happens, `take` has what is to be sent.
        """
        if data:
            self._in.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def take(self) -> bytes:
        """Return what is to be sent to the peer.

        Reading may make OpenSSL write (key updates, alerts), and what it writes would wait here
        for as long as the peer only sends.
        """
        return self._out.read() if self._out.pending else b""

    def decrypt(self, data: bytes | memoryview) -> Decrypted:
        """Read bytes of the peer."""
        pieces: list[bytes] = []
        ended = False
        error: str | None = None
        try:
            if len(data) <= _PORTION:
                ended = self._read(data, pieces)
            else:
                rest = memoryview(data)
                while rest and not ended:
                    ended = self._read(rest[:_PORTION], pieces)
                    rest = rest[_PORTION:]
        except ssl.SSLError as broken:
            # A fatal alert, or a record that does not authenticate: nothing valid can follow, but
            # everything before it was valid.
            ended, error = True, alert_words(broken)
            self._has_ended = True  # nor can anything be sent
        plain = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return Decrypted(plain, error, ended=ended)

    def _read(self, data: bytes | memoryview, pieces: list[bytes]) -> bool:
        """Read what the bytes complete; tell whether the peer has sent close_notify."""
        incoming, read = self._in, self._tls.read
        if data:
            incoming.write(data)
        try:
            while incoming.pending:
                piece = read(_RECORD)
                if not piece:
                    return True
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass  # what came last was a part of a record, or one without content
        except ssl.SSLZeroReturnError:
            return True  # close_notify, after ours
        return False

    def encrypt(self, data: bytes) -> bytes:
        """Return `data` as it goes to the peer, behind what else is to be sent to it.

        After our close_notify the peer may still send, but nothing more is sent to it.
        """
        out = self._out
        if not data or self._has_ended:
            return self.take()
        if len(data) <= _PORTION:
            self._tls.write(data)
            return out.read()
        pieces: list[bytes] = []
        rest = memoryview(data)
        while rest:
            self._tls.write(rest[:_PORTION])
            pieces.append(out.read())
            rest = rest[_PORTION:]
        return b"".join(pieces)

    def end(self) -> bytes:
        """Return what ends our half: close_notify (RFC 8446, section 6.1)."""
        self._has_ended = True
        # Raised where the peer has not ended its half, or has aborted TLS.
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._out.read()
