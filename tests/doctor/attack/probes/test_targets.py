"""Target probes see a proxy that allows what it should deny."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from claude_proxy.doctor.probe_server import Identity, ProbeServer
from claude_proxy.trust.certificate_authority import CertificateAuthority
from tests.doctor.cage import (
    ALLOWED,
    FakeProxy,
    outcomes,
    reports,
    run_probe,
)

OF_THE_PROXY = [
    "denied-hosts",
    "documentation",
    "metadata",
    "host-listeners",
    "proxy-itself",
    "odd-ports",
    "socks",
    "broken-names",
    "forged-origin",
    "names-as-letters",
]
A_LISTENER = {"tcp": [["127.0.0.1", 9]]}


@pytest.mark.parametrize("name", OF_THE_PROXY)
def test_a_proxy_that_allows_everything_is_seen(name: str) -> None:
    with FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", socks=0) as proxy:
        tries = run_probe(
            name, proxy=proxy.place, socks=proxy.place, canaries=A_LISTENER, own_ports=[9051]
        )

    assert outcomes(tries) == {"through"}


@pytest.mark.parametrize("name", OF_THE_PROXY)
def test_a_proxy_that_denies_is_what_stops(name: str) -> None:
    answer = b"HTTP/1.1 403 No\r\nX-Claude-Proxy-Reason: no-rule\r\n\r\n"

    with FakeProxy(answer, socks=2) as proxy:
        tries = run_probe(name, proxy=proxy.place, socks=proxy.place, canaries=A_LISTENER)

    assert {(outcome, by) for _, outcome, by, _ in tries} == {("stopped", "policy")}


def test_an_allowed_site_that_is_denied_is_not_taken_for_working() -> None:
    answer = b"HTTP/1.1 403 No\r\nX-Claude-Proxy-Reason: no-rule\r\n\r\n"
    with FakeProxy(answer, 2) as proxy:
        [report] = reports(["honest"], proxy=proxy.place)

    assert "the allowed tunnel is denied: 403 no-rule" in report["crashed"]


def test_an_allowed_site_that_answers_with_an_error_does_not_work(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    def identify(name: str) -> Identity:
        leaf = authority.leaf(name)
        return leaf.certificate, leaf.key

    certificate = tmp_path / "ca.pem"
    certificate.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    with (
        ProbeServer(identify, status=lambda _: 404) as site,
        FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, site) as proxy,
    ):
        tries = run_probe(
            "honest", proxy=proxy.place, ca=str(certificate), allowed=[ALLOWED, site.port]
        )

    assert outcomes(tries) == {"stopped"}
