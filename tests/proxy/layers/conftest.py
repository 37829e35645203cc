"""Lends the tests of layers what most of them need."""

import pytest

from claude_proxy.trust.certificate_authority import CertificateAuthority
from tests.proxy.layers.stage import Ledger


@pytest.fixture
def ledger() -> Ledger:
    """What a gate records."""
    return Ledger()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """The CA of the proxy."""
    return CertificateAuthority.load_or_create(tmp_path_factory.mktemp("confdir"))
