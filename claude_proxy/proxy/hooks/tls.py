"""TLS hooks: leaf certificates for clients, verified names of upstreams.

The target was judged before. Here the client gets a leaf certificate for the judged name, and the
upstream must prove the same name in its subjectAltName (RFC 9525); its common name is ignored.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from mitmproxy import tls
from mitmproxy.addons.tlsconfig import TlsConfig
from OpenSSL import SSL

from claude_proxy.errors import ConfigError
from claude_proxy.trust.certificate_authority import CertificateAuthority, Leaf

_CONTEXTS = 1024
_PROTOCOLS = (b"h2", b"http/1.1")


class TlsCertificates(TlsConfig):
    """mitmproxy's TLS addon, with certificates of this proxy's CA."""

    name = "tlsconfig"  # mitmproxy looks it up by this name

    def __init__(
        self,
        authority: CertificateAuthority | None,
        restore_roots: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._authority = authority
        self._restore_roots = restore_roots
        self._context_for = lru_cache(_CONTEXTS)(_server_context)

    def configure(self, updated: set[str]) -> None:
        """Do nothing: mitmproxy would create a CA of its own."""

    def running(self) -> None:
        """Do nothing: everything was prepared at the start."""

    def tls_clienthello(self, tls_clienthello: tls.ClientHelloData) -> None:
        """Do nothing: the hello was judged in `layers.tunnel_start`."""

    def tls_start_server(self, tls_start: tls.TlsData) -> None:
        """Prepare to verify the upstream by the roots of the start."""
        self._restore_roots()
        super().tls_start_server(tls_start)

    def tls_start_client(self, tls_start: tls.TlsData) -> None:
        """Give the client a leaf certificate for the tunnel's target."""
        address = tls_start.context.server.address
        if address is None or self._authority is None:
            return  # without `ssl_conn`, mitmproxy closes the connection (fail closed)
        try:
            leaf = self._authority.leaf(address[0])
        except ConfigError:
            return  # it has just expired; the gate denies the next tunnel, with the reason
        tls_start.ssl_conn = SSL.Connection(self._context_for(leaf))
        tls_start.ssl_conn.set_accept_state()


def _server_context(leaf: Leaf) -> SSL.Context:
    """Create the context of one leaf; its session tickets are valid for this leaf only."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # A renegotiation has a second ClientHello, which could name another server.
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.use_certificate(leaf.certificate)
    context.use_privatekey(leaf.key)
    context.set_alpn_select_callback(_select_protocol)
    return context


def _select_protocol(_: SSL.Connection, offers: list[bytes]) -> Any:
    # In the server's order of preference: some clients name h2 last but still want it.
    for protocol in _PROTOCOLS:
        if protocol in offers:
            return protocol
    return SSL.NO_OVERLAPPING_PROTOCOLS
