"""A proxy that intercepts TLS, with one CA for its clients and one for its upstreams."""

from dataclasses import dataclass

from claude_proxy.proxy.layers.protocol_detection import ProtocolDetection
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.leaf_contexts import LeafContexts
from tests.proxy.layers.stage import Ledger, Stage, a_dialer, gate_of
from tests.proxy.layers.tls_peers import TlsClient, TlsOrigin, client_context, origin_context

ALLOWLIST = """
allow:
  - example.com
  - {host: 192.0.2.1}
"""
GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
FATAL_ALERT = b"\x15\x03\x03\x00\x02\x02\x50"
GARBAGE = b"\x17\x03\x03\x00\x20" + bytes(32)


@dataclass
class World:
    """A proxy whose one upstream authority is trusted, and what it has recorded."""

    ours: CertificateAuthority
    theirs: CertificateAuthority
    ledger: Ledger
    stage: Stage

    def client(self, host: str = "example.com", **changes: object) -> TlsClient:
        """Open a tunnel, and shake hands in it."""
        named = f"{host}:443".encode()
        self.stage.says(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (named, named))
        context = client_context(self.ours)
        for name, value in changes.items():
            setattr(context, name, value)
        client = TlsClient(self.stage, context, host)
        client.pump()
        return client

    def origin(self, host: str = "example.com", *protocols: str) -> TlsOrigin:
        return TlsOrigin(self.stage, origin_context(self.theirs, host, protocols))


def world_of(authorities: tuple[CertificateAuthority, CertificateAuthority]) -> World:
    """Return a proxy with both authorities."""
    ours, theirs = authorities
    ledger = Ledger()
    stage = Stage(
        lambda context, session: ProtocolDetection(context, session, a_dialer()),
        gate_of(ALLOWLIST, ledger),
        leaf_contexts=LeafContexts(ours),
        roots=theirs.certificate_path,
    )
    return World(ours, theirs, ledger, stage)
