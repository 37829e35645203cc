"""Attacks on keys are reported if nothing stops them, and stopped only by a denial."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from claude_proxy.doctor.probe_server import Identity, ProbeServer, ReceivedRequest
from claude_proxy.trust.certificate_authority import CertificateAuthority
from tests.doctor.cage import ALLOWED, FakeProxy, got_through, outcomes, reports, run_probe

BOUND = "bound.example.test"
KEY = "the-key-that-is-put-in"
PLACEHOLDER = "a-placeholder-of-ours"
ATTACKS = ["foreign-keys", "misplaced-placeholders", "other-endpoints", "message-bodies"]
DENIES = b"HTTP/1.1 403 No\r\nX-Claude-Proxy-Reason: foreign-credential\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.load_or_create(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def certificate(authority: CertificateAuthority, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    return str(path)


def an_origin(authority: CertificateAuthority, said: str = "", field: str = "") -> ProbeServer:
    def identify(name: str) -> Identity:
        leaf = authority.leaf(name)
        return leaf.certificate, leaf.key

    def answer(_: ReceivedRequest) -> tuple[str, bytes]:
        return field, f"hello {said}".encode()

    return ProbeServer(identify, answer=answer)


@pytest.fixture
def origin(authority: CertificateAuthority) -> Iterator[ProbeServer]:
    with an_origin(authority) as found:
        yield found


def facts(proxy: FakeProxy, origin: ProbeServer, certificate: str) -> dict[str, Any]:
    return {
        "proxy": proxy.place,
        "ca": certificate,
        "allowed": [ALLOWED, origin.port],
        "bound": [BOUND, origin.port],
        "placeholder": PLACEHOLDER,
        "key": KEY,
    }


@pytest.mark.parametrize("name", ATTACKS)
def test_a_proxy_without_checks_lets_every_attack_through(
    name: str, origin: ProbeServer, certificate: str
) -> None:
    with FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, origin) as proxy:
        tries = run_probe(name, **facts(proxy, origin, certificate))

    assert outcomes(tries) == {"through"}, tries
    # Each of them has reached the site, but for those that need no tunnel.
    assert len(origin.requests()) >= len(tries) - 3


def test_each_request_contains_what_its_name_says(origin: ProbeServer, certificate: str) -> None:
    with FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, origin) as proxy:
        run_probe("misplaced-placeholders", **facts(proxy, origin, certificate))

    texts = [
        f"{arrival.path} {' '.join(value for _, value in arrival.fields)}"
        for arrival in origin.requests()
    ]
    plain = [text for text in texts if PLACEHOLDER in text]
    assert len(plain) >= len(texts) - 3  # the rest are escaped or in Base64


@pytest.mark.parametrize("field", ["", f"X-Echo: {KEY}"])
def test_a_key_that_is_revealed_to_the_sandbox_is_reported(
    authority: CertificateAuthority, certificate: str, field: str
) -> None:
    said = "" if field else KEY

    with (
        an_origin(authority, said, field) as site,
        FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, site) as proxy,
    ):
        tries = run_probe("echoed-keys", **facts(proxy, site, certificate))

    assert outcomes(tries) == {"through"}


def test_a_response_without_the_key_is_no_leak(origin: ProbeServer, certificate: str) -> None:
    with FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, origin) as proxy:
        tries = run_probe("echoed-keys", **facts(proxy, origin, certificate))

    assert outcomes(tries) == {"stopped"}


def test_the_allowed_request_has_the_placeholder(origin: ProbeServer, certificate: str) -> None:
    with FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, origin) as proxy:
        tries = run_probe("honest", **facts(proxy, origin, certificate))

    assert len(got_through(tries)) == 2
    [asked] = [arrival for arrival in origin.requests() if arrival.name == BOUND]
    assert (asked.method, asked.path) == ("POST", "/v1/messages")
    assert ("x-api-key", PLACEHOLDER) in asked.fields


@pytest.mark.parametrize("name", [*ATTACKS, "echoed-keys"])
def test_without_a_tunnel_nothing_is_proven(
    name: str, origin: ProbeServer, certificate: str
) -> None:
    with FakeProxy(DENIES, 2) as proxy:
        [report] = reports([name], **facts(proxy, origin, certificate))

    assert "the allowed tunnel is denied: 403 foreign-credential" in report["crashed"]


def test_a_key_in_the_environment_is_seen() -> None:
    [report] = reports(["environment"], environ={"X": KEY}, key=KEY)

    assert ["the canary in /proc/self/environ", "through", "", "found"] in report["tries"]
