"""Policies for browsers in a sandbox: trust in the proxy's CA, and no Encrypted ClientHello; pure.

Chromium has a store of certificates of its own, and reads no variable for it. It does obey a file
of its administrator (https://chromeenterprise.google/policies/, CACertificates since Chrome 131).
Only the proxy is reached by it, and a hidden name is nothing that the proxy could judge where it
passes TLS through, so the decoy of an Encrypted ClientHello is turned off as well.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from claude_proxy.sandbox.plan.environment import CERTIFICATE
from claude_proxy.sandbox.plan.model import HostFacts, MountKind
from claude_proxy.sandbox.plan.mount_layout import Layout

# Where builds look: Debian's Chromium and Playwright's, Google's Chrome, that for tests, Edge.
DIRECTORIES = tuple(
    Path(name)
    for name in (
        "/etc/chromium/policies/managed",
        "/etc/opt/chrome/policies/managed",
        "/etc/opt/chrome_for_testing/policies/managed",
        "/etc/opt/edge/policies/managed",
    )
)

_NAME = "claude-proxy.json"
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def add_browser_policies(layout: Layout, facts: HostFacts) -> None:
    """Put the policy where browsers look for it, unless something of the host is shown there."""
    if CERTIFICATE.name not in facts.shown:
        return
    content = policy(facts.shown[CERTIFICATE.name])
    for directory in DIRECTORIES:
        holder = layout.nearest(directory)
        if holder is not None and holder.kind is MountKind.EMPTY:
            layout.add_file(directory / _NAME, content)


def policy(certificates: bytes) -> bytes:
    """Return the policy that trusts the certificates of a PEM file."""
    settings = {
        "CACertificates": list(_bodies(certificates.decode("ascii", "replace"))),
        "EncryptedClientHelloEnabled": False,
    }
    return json.dumps(settings, indent=1).encode() + b"\n"


def _bodies(text: str) -> Iterator[str]:
    """Yield the Base64 text of each certificate, without line breaks."""
    for piece in text.split(_BEGIN)[1:]:
        yield "".join(piece.partition(_END)[0].split())
