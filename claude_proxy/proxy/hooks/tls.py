"""TLS hooks: verified names of upstreams.

The target was judged before, and the upstream must prove the judged name in its subjectAltName
(RFC 9525); its common name is ignored.
"""

from collections.abc import Callable

from mitmproxy import tls
from mitmproxy.addons.tlsconfig import TlsConfig


class TlsCertificates(TlsConfig):
    """mitmproxy's TLS addon, for upstreams alone."""

    name = "tlsconfig"  # mitmproxy looks it up by this name

    def __init__(self, restore_roots: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._restore_roots = restore_roots

    def configure(self, updated: set[str]) -> None:
        """Do nothing: mitmproxy would create a CA of its own."""

    def running(self) -> None:
        """Do nothing: everything was prepared at the start."""

    def tls_start_client(self, tls_start: tls.TlsData) -> None:
        """Do nothing: a client's TLS is `layers.tls_intercept`."""

    def tls_clienthello(self, tls_clienthello: tls.ClientHelloData) -> None:
        """Do nothing: the hello was judged in `layers.tunnel_start`."""

    def tls_start_server(self, tls_start: tls.TlsData) -> None:
        """Prepare to verify the upstream by the roots of the start."""
        self._restore_roots()
        super().tls_start_server(tls_start)
