"""The proxy from a client's first byte on, for the tests of its first layers."""

from collections.abc import Callable
from typing import Any

from claude_proxy.proxy.gate import Gate
from claude_proxy.proxy.layers.protocol_detection import ProtocolDetection
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.leaf_contexts import LeafContexts
from tests.proxy.layers.stage import Ledger, Stage, a_dialer, gate_of

ALLOWLIST = """
allow:
  - example.com
  - {host: opaque.example, tls: passthrough}
  - {host: plain.example, scheme: http}
  - {host: both.example, ports: [80], scheme: http}
  - {host: both.example}
  - {host: 192.0.2.1}
"""
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
DENIED_ALERT = b"\x15\x03\x03\x00\x02\x02\x31"
UNREADABLE_ALERT = b"\x15\x03\x03\x00\x02\x02\x32"

type PlayFront = Callable[..., Stage]


def play_front(ledger: Ledger, authority: CertificateAuthority) -> PlayFront:
    """Return a function that makes a stage which records in `ledger`."""
    leaf_contexts = LeafContexts(authority)

    def begin(gate: Gate | None = None, **settings: Any) -> Stage:
        return Stage(
            lambda context, session: ProtocolDetection(context, session, a_dialer()),
            gate or gate_of(ALLOWLIST, ledger),
            leaf_contexts=leaf_contexts,
            **settings,
        )

    return begin


def connect(target: str, *fields: str) -> bytes:
    lines = [f"CONNECT {target} HTTP/1.1", *(fields or (f"Host: {target}",))]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def tunnel(stage: Stage, target: str = "example.com:443") -> Stage:
    assert stage.says(connect(target)) == ESTABLISHED
    return stage
