"""TLS in memory for a stage: a client in front of the proxy, an origin behind it."""

import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from claude_proxy.trust.certificate_authority import CertificateAuthority
from tests.proxy.layers.stage import Peer, Stage


def client_context(authority: CertificateAuthority, *protocols: str) -> ssl.SSLContext:
    """Return the context of a client that trusts one CA."""
    context = ssl.create_default_context(cafile=str(authority.certificate_path))
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def origin_context(
    authority: CertificateAuthority, host: str, protocols: Sequence[str] = ()
) -> ssl.SSLContext:
    """Return the context of an origin that shows a leaf of `authority` for `host`."""
    leaf = authority.leaf(host)
    file: Path = authority.confdir / f"origin-{host.replace(':', '_')}.pem"
    file.write_bytes(
        leaf.certificate.public_bytes(Encoding.PEM)
        + leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


class _Tls:
    """One end of a TLS connection, between two buffers."""

    def __init__(self, context: ssl.SSLContext, *, name: str | None, server: bool) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=server, server_hostname=name)
        self.shaken = False
        self.ended = False  # by a close_notify
        self.plain = bytearray()
        self.error: ssl.SSLError | None = None

    def turn(self, data: bytes) -> bytes:
        """Take what the other end sent; return what is to be sent to it."""
        self._in.write(data)
        try:
            if not self.shaken:
                self.tls.do_handshake()
                self.shaken = True
            while data := self.tls.read(65536):
                self.plain += data
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            self.error = self.error or error
        return self._out.read()

    def seal(self, data: bytes) -> bytes:
        """Return `data` as it goes over the wire."""
        self.tls.write(data)
        return self._out.read()

    def goodbye(self) -> bytes:
        """Return a close_notify."""
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._out.read()

    def take(self) -> bytes:
        """Return the plain bytes that came since the last time."""
        data = bytes(self.plain)
        self.plain.clear()
        return data


class TlsClient(_Tls):
    """A client inside a tunnel."""

    def __init__(self, stage: Stage, context: ssl.SSLContext, name: str) -> None:
        super().__init__(context, name=name, server=False)
        self._stage = stage

    def pump(self, data: bytes = b"") -> None:
        """Exchange bytes with the proxy until both are waiting."""
        while out := self.turn(data):
            data = self._stage.says(out)

    def hello(self) -> bytes:
        return self.turn(b"")

    def says(self, data: bytes) -> bytes:
        """Send plain bytes; return the plain bytes of the answer."""
        self.pump(self._stage.says(self.seal(data)))
        return self.take()

    def gets(self, data: bytes) -> bytes:
        """Take what the proxy has sent; return it in plain."""
        self.pump(data)
        return self.take()


class TlsOrigin(_Tls):
    """An origin behind the proxy, on the connection that was dialled last."""

    def __init__(self, stage: Stage, context: ssl.SSLContext) -> None:
        super().__init__(context, name=None, server=True)
        self._stage = stage
        self.peer: Peer = stage.upstream
        self.for_client = self.pump()  # what the handshake led to, if it failed

    def pump(self) -> bytes:
        """Exchange bytes with the proxy; return what its client got meanwhile."""
        client = b""
        while data := self.peer.take():
            if out := self.turn(data):
                client += self._stage.answers(out, self.peer)
        return client

    def gets(self) -> bytes:
        """Return the plain bytes that came since the last time."""
        self.pump()
        return self.take()

    def answers(self, data: bytes) -> bytes:
        """Send plain bytes; return what the proxy's client got, as it came."""
        return self._stage.answers(self.seal(data), self.peer) + self.pump()
