"""The client of the probes tells a denial from silence, failure and a missing proxy."""

import socket
import threading
from typing import Any

import pytest

from tests.doctor.cage import (
    FakeProxy,
    FixedPort,
    reports,
    run_probe,
)

PROBES = ["denied-hosts", "metadata", "socks", "broken-names", "forged-origin"]
IN_A_TUNNEL = ["fronting-by-sni", "fronting-by-host", "other-requests", "smuggling", "plain-bytes"]
A_LISTENER = {"tcp": [["127.0.0.1", 9]]}


@pytest.mark.parametrize("name", PROBES)
def test_a_relay_without_a_proxy_proves_nothing(name: str) -> None:
    with FakeProxy(b"HTTP/1.1 502 Gone\r\n\r\n", socks=1) as proxy:
        [report] = reports([name], proxy=proxy.place, socks=proxy.place, canaries=A_LISTENER)

    assert "the relay has no proxy behind it" in report["crashed"]


@pytest.mark.parametrize("name", [*PROBES, *IN_A_TUNNEL, "honest"])
def test_a_relay_that_is_gone_proves_nothing(name: str) -> None:
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))  # and held, so that nobody else listens there
        nobody = list(gone.getsockname())

        [report] = reports([name], proxy=nobody, socks=nobody, canaries=A_LISTENER)

    assert "Refused" in report["crashed"]


@pytest.mark.parametrize("name", ["denied-hosts", "socks", "broken-names"])
def test_a_proxy_that_closes_counts_as_one_that_denies(name: str) -> None:
    with FakeProxy(b"", socks=None) as proxy:
        tries = run_probe(name, proxy=proxy.place, socks=proxy.place)

    assert {(out, by, saw) for _, out, by, saw in tries} == {
        ("stopped", "policy", "closed without a response")
    }


@pytest.mark.parametrize("name", ["documentation", "socks", "fronting-by-host", "plain-bytes"])
def test_a_proxy_that_does_not_deny_in_time_lets_through(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as silent:
        place = list(silent.getsockname())
        if name in {"fronting-by-host", "plain-bytes"}:
            with FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0, FixedPort(silent)) as proxy:
                told: dict[str, Any] = {
                    "proxy": proxy.place,
                    "ca": "/etc/ssl/certs/ca-certificates.crt",
                }
                tries = run_probe(name, change="proxy_client.PROXY_S = 0.2", **told)
        else:
            tries = run_probe(name, change="proxy_client.PROXY_S = 0.2", proxy=place, socks=place)

    assert {(out, saw) for _, out, _, saw in tries} == {("through", "not denied in time")}


def test_a_port_without_socks_is_an_error() -> None:
    with FakeProxy(b"HTTP/1.1 200 OK\r\n\r\n", 0) as proxy:
        [report] = reports(
            ["socks"], socks=proxy.place, change="proxy_client._SOCKS_GREETING = b'x'"
        )

    assert "no SOCKS proxy there" in report["crashed"]


def test_a_login_is_sent_where_the_proxy_demands_one() -> None:
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=deny_all, args=(server, heads), daemon=True).start()

        run_probe("documentation", proxy=list(server.getsockname()), login="agent:secret")

    field = b"\r\nProxy-Authorization: Basic YWdlbnQ6c2VjcmV0\r\n"
    assert heads
    assert [head for head in heads if field not in head] == []


def deny_all(server: socket.socket, heads: list[bytes]) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            heads.append(client.recv(65536))
            client.sendall(b"HTTP/1.1 403 No\r\nX-Claude-Proxy-Reason: no-rule\r\n\r\n")
