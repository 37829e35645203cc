"""Plays HTTP/2 connections inside a tunnel, with origins whose certificates are verified."""

from typing import Any

from mitmproxy.proxy.context import Context

from claude_proxy.proxy.gate import Gate
from claude_proxy.proxy.layers.http2 import Http2Lane
from claude_proxy.proxy.layers.session import Session
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import Ledger, Stage, gate_of
from tests.proxy.layers.tls_peers import TlsOrigin, origin_context

ALLOWLIST = """
allow:
  - example.com
  - {host: read.example, methods: [GET, HEAD, POST], paths: [/ok, /ok/*]}
  - xn--bcher-kva.example
"""


class Http2World:
    """Makes stages that record in one ledger, and the origins behind them."""

    def __init__(self, ledger: Ledger, authority: CertificateAuthority) -> None:
        self._ledger = ledger
        self._authority = authority  # of the origins

    def play(
        self, host: str = "example.com", *, gate: Gate | None = None, **settings: Any
    ) -> Stage:
        """Return the stage of an HTTP/2 client inside the tunnel to a host."""

        def lane(context: Context, session: Session) -> Http2Lane:
            context.client.alpn = b"h2"
            context.client.alpn_offers = (b"h2",)
            return Http2Lane(context, session, Authority.of(host, 443))

        return Stage(
            lane,
            gate or gate_of(ALLOWLIST, self._ledger),
            roots=self._authority.certificate_path,
            **settings,
        )

    def serve(self, stage: Stage, host: str = "example.com", *protocols: str) -> TlsOrigin:
        """Shake hands as the origin that was dialled last."""
        return TlsOrigin(stage, origin_context(self._authority, host, protocols))
