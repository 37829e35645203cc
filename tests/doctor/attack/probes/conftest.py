"""Targets of the probes: canaries outside, and a server with certificates of a test CA."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.doctor.attack.canaries import Canaries
from claude_proxy.doctor.probe_server import Identity, ProbeServer
from claude_proxy.trust.certificate_authority import CertificateAuthority


@pytest.fixture
def canaries(tmp_path: Path) -> Iterator[Canaries]:
    with Canaries(tmp_path, None) as found:
        yield found


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.load_or_create(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def origin(authority: CertificateAuthority) -> Iterator[ProbeServer]:
    def identify(name: str) -> Identity:
        leaf = authority.leaf(name)
        return leaf.certificate, leaf.key

    with ProbeServer(identify) as found:
        yield found
