"""Fixtures of the layer tests."""

from typing import Any

import pytest

from claude_proxy.config.settings import UpstreamProxy
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.gate import Gate
from claude_proxy.proxy.layers.http1_proxy import proxy_lane
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.http1_peers import ALLOWLIST, PlayForward
from tests.proxy.layers.http2_world import Http2World
from tests.proxy.layers.stage import Ledger, Stage, a_dialer, gate_of


@pytest.fixture
def ledger() -> Ledger:
    """What a gate records."""
    return Ledger()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """The CA of the proxy."""
    return CertificateAuthority.load_or_create(tmp_path_factory.mktemp("confdir"))


@pytest.fixture
def forward(ledger: Ledger) -> PlayForward:
    """Return a function that plays a client of a forward proxy, or of a plain tunnel."""

    def play(
        allowlist: str = ALLOWLIST,
        *,
        gate: Gate | None = None,
        target: Authority | None = None,
        upstream_proxy: UpstreamProxy | None = None,
        **settings: Any,
    ) -> Stage:
        dialer = a_dialer(upstream_proxy=upstream_proxy)
        return Stage(
            lambda context, session: proxy_lane(
                context, session, scheme=Scheme.HTTP, target=target, dialer=dialer
            ),
            gate or gate_of(allowlist, ledger),
            **settings,
        )

    return play


@pytest.fixture(scope="module")
def authorities(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[CertificateAuthority, CertificateAuthority]:
    """The CA of the proxy, and the one that its upstreams are verified by."""
    ours, theirs = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("theirs")
    return CertificateAuthority.load_or_create(ours), CertificateAuthority.load_or_create(theirs)


@pytest.fixture
def http2_world(
    ledger: Ledger, authorities: tuple[CertificateAuthority, CertificateAuthority]
) -> Http2World:
    """What plays HTTP/2 connections that are recorded in the ledger."""
    return Http2World(ledger, authorities[1])
