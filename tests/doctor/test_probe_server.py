"""The probe server records every client, also those whose handshake failed."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from claude_proxy.doctor import probe_server as origin_module
from claude_proxy.doctor.probe_server import Identity, ProbeServer
from claude_proxy.trust.certificate_authority import CertificateAuthority

NAME = "site.example"


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority.load_or_create(tmp_path / "ca")


@pytest.fixture
def origin(authority: CertificateAuthority) -> Iterator[ProbeServer]:
    def identify(name: str) -> Identity:
        leaf = authority.leaf(name)
        return leaf.certificate, leaf.key

    with ProbeServer(identify, status=lambda path: 200 if path == "/" else 404) as found:
        yield found


def ask(
    origin: ProbeServer, context: ssl.SSLContext, request: bytes, name: str | None = NAME
) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", origin.port)) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        tls.sendall(request)
        answer = b""
        while piece := tls.recv(4096):
            answer += piece
    return answer


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give whatever is to come all the time that it needs."""
    monkeypatch.setattr(origin_module, "_PATIENCE_S", 60.0)
    monkeypatch.setattr(origin_module, "_LIMIT_S", 60.0)


def trusting(authority: CertificateAuthority) -> ssl.SSLContext:
    pem = authority.certificate.public_bytes(Encoding.PEM).decode()
    return ssl.create_default_context(cadata=pem)


def test_a_request_is_recorded_and_answered(
    origin: ProbeServer, authority: CertificateAuthority
) -> None:
    context = trusting(authority)

    first = ask(origin, context, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    ask(origin, context, b"HEAD /other HTTP/1.1\r\n\r\n")

    assert first.startswith(b"HTTP/1.1 200 ")
    one, other = origin.requests()
    assert (one.name, one.method, one.path, one.host, one.trusting) == (NAME, "GET", "/", "h", True)
    assert (other.method, other.path, other.secured) == ("HEAD", "/other", True)


def test_a_client_without_trust_is_recorded_without_a_request(origin: ProbeServer) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(origin, ssl.create_default_context(), b"GET / HTTP/1.1\r\n\r\n")

    [arrival] = origin.wait_for(NAME)
    assert (arrival.trusting, arrival.method) == (False, "")
    assert arrival.alert


def test_bytes_that_are_not_tls_are_recorded_as_such(origin: ProbeServer) -> None:
    with socket.create_connection(("127.0.0.1", origin.port)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionError):
            plain.recv(4096)

    [arrival] = origin.wait_for("")
    assert (arrival.secured, arrival.trusting) == (False, False)


def test_a_client_without_sni_is_refused(origin: ProbeServer) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    with pytest.raises(ssl.SSLError):
        ask(origin, context, b"", None)

    assert not origin.wait_for("")[0].secured


def test_a_client_that_closes_without_a_request_is_recorded(
    origin: ProbeServer, authority: CertificateAuthority
) -> None:
    with (
        socket.create_connection(("127.0.0.1", origin.port)) as plain,
        trusting(authority).wrap_socket(plain, server_hostname=NAME),
    ):
        pass

    [arrival] = origin.wait_for(NAME)
    assert (arrival.secured, arrival.trusting) == (True, False)
