"""Request probes see a tunnel that lets forbidden requests pass."""

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from claude_proxy.doctor.probe_server import ProbeServer
from claude_proxy.trust.certificate_authority import CertificateAuthority
from tests.doctor.cage import (
    ALLOWED,
    FakeProxy,
    FixedPort,
    outcomes,
    run_probe,
)

IN_A_TUNNEL = ["fronting-by-sni", "fronting-by-host", "other-requests", "smuggling", "plain-bytes"]


@pytest.mark.parametrize("name", [name for name in IN_A_TUNNEL if name != "plain-bytes"])
def test_a_tunnel_that_lets_everything_pass_is_seen(
    name: str, origin: ProbeServer, authority: CertificateAuthority, tmp_path: Path
) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.write_bytes(authority.certificate.public_bytes(Encoding.PEM))

    with FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, origin) as proxy:
        told: dict[str, Any] = {"proxy": proxy.place, "socks": proxy.place, "ca": str(certificate)}
        honest = run_probe("honest", allowed=[ALLOWED, origin.port], **told)
        tries = run_probe(name, allowed=[ALLOWED, origin.port], **told)

    assert outcomes(honest) == {"through"}
    assert "through" in outcomes(tries)


def test_bytes_that_are_not_tls_and_are_answered_are_seen() -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=64) as far,
        FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, FixedPort(far)) as proxy,
    ):
        threading.Thread(target=_echo, args=(far,), daemon=True).start()
        tries = run_probe("plain-bytes", proxy=proxy.place)
        far.shutdown(socket.SHUT_RDWR)

    assert outcomes(tries) == {"through"}


def _echo(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(connection.recv(4096))


@pytest.mark.parametrize("name", IN_A_TUNNEL)
def test_a_tunnel_that_is_shut_at_the_first_byte_is_stopped(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as far:
        threading.Thread(target=_shut, args=(far,), daemon=True).start()
        with FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, FixedPort(far)) as proxy:
            told: dict[str, Any] = {
                "proxy": proxy.place,
                "ca": "/etc/ssl/certs/ca-certificates.crt",
            }
            tries = run_probe(name, **told)
        far.shutdown(socket.SHUT_RDWR)

    assert outcomes(tries) == {"stopped"}


def _shut(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(4096)
