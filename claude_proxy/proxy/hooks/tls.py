"""The TLS hooks: certificates towards clients, verified names towards upstreams.

Which names may be connected to was settled before. Here the client gets a leaf certificate for the
judged name, and the upstream must prove the same name (in its SAN; a common name proves nothing).
"""

from functools import lru_cache
from typing import Any

from mitmproxy import tls
from mitmproxy.addons.tlsconfig import TlsConfig
from OpenSSL import SSL

from claude_proxy.trust.certificate_authority import CertificateAuthority, Leaf

_CONTEXTS = 1024
_PROTOCOLS = (b"h2", b"http/1.1")


class TlsCertificates(TlsConfig):
    """mitmproxy's TLS addon with the certificates of this proxy's own authority."""

    name = "tlsconfig"  # where mitmproxy looks for it

    def __init__(self, authority: CertificateAuthority | None) -> None:
        super().__init__()
        self._authority = authority
        self._context_for = lru_cache(_CONTEXTS)(_server_context)

    def configure(self, updated: set[str]) -> None:
        """Make no certificate store of mitmproxy's: there is one authority only."""

    def running(self) -> None:
        """Prepare nothing: all was done at the start."""

    def tls_clienthello(self, tls_clienthello: tls.ClientHelloData) -> None:
        """Do nothing: the hello was judged in `layers.tunnel_start`."""

    def tls_start_client(self, tls_start: tls.TlsData) -> None:
        """Give the client a leaf certificate for the tunnel's target."""
        address = tls_start.context.server.address
        if address is None or self._authority is None:
            return  # without a connection to use, mitmproxy closes: fail closed
        leaf = self._authority.leaf(address[0])
        tls_start.ssl_conn = SSL.Connection(self._context_for(leaf))
        tls_start.ssl_conn.set_accept_state()


def _server_context(leaf: Leaf) -> SSL.Context:
    """Make the context that serves one leaf; its session tickets are valid for this leaf only."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # A second hello inside the connection could name another server than the judged one.
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
