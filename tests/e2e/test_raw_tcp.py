"""A rule with scheme tcp lets any protocol through to its host and port, and nothing else does."""

import signal
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support.waiting import until

from .conftest import StartProxy
from .rig.client import connect_head
from .rig.corporate_proxy import PASSWORD, USER, CorporateProxy
from .rig.hello import client_hello
from .rig.internet import Internet
from .rig.proxy import Proxy, read_all
from .rig.raw_server import FAREWELL, GREETING, RawServer
from .rig.socks import GRANTED, NO_LOGIN, read_exactly, reply
from .rig.socks import GREETING as SOCKS
from .rig.socks import request as socks_request

PORT = 5432
PRIVATE = "10.20.0.77"
ALLOWLIST = """\
allow:
  - {host: db.test, scheme: tcp, ports: [5432]}
  - {host: private-db.test, scheme: tcp, ports: [5432], addresses: [10.20.0.0/16]}
  - {host: inner-db.test, scheme: tcp, ports: [5432]}
  - {host: web-db.test, ports: [5432]}
"""
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.fixture(scope="module")
def server(internet: Internet) -> Iterator[RawServer]:
    address = internet.site("db.test")
    internet.names.answer("web-db.test", [address])
    internet.names.answer("private-db.test", [PRIVATE])
    internet.names.answer("inner-db.test", [PRIVATE])
    server = RawServer(internet.namespace, "0.0.0.0", PORT)
    yield server
    server.close()


@pytest.fixture
def proxy(start_proxy: StartProxy, server: RawServer) -> Proxy:
    del server
    return start_proxy(ALLOWLIST)


def by_connect(proxy: Proxy, target: str) -> socket.socket:
    connection = proxy.connect()
    connection.sendall(connect_head(target))
    assert read_exactly(connection, len(ESTABLISHED)) == ESTABLISHED
    return connection


def by_socks(proxy: Proxy, target: str) -> socket.socket:
    connection = proxy.connect()
    connection.sendall(SOCKS + socks_request(target))
    assert read_exactly(connection, 12) == NO_LOGIN + reply(GRANTED)
    return connection


@pytest.mark.parametrize("opened", [by_connect, by_socks])
def test_the_server_may_speak_first_and_all_bytes_are_counted(
    proxy: Proxy, opened: Callable[[Proxy, str], socket.socket]
) -> None:
    sent = b"\x01" + b"query " * 200_000

    with opened(proxy, "db.test:5432") as connection:
        assert read_exactly(connection, len(GREETING)) == GREETING
        answered = b""
        for at in range(0, len(sent), 60_000):
            piece = sent[at : at + 60_000]
            connection.sendall(piece)
            answered += read_exactly(connection, len(piece))
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == FAREWELL

    assert answered == sent.upper()
    row = until(
        lambda: next(
            (row for row in proxy.decisions("db.test:5432") if row.duration_ms is not None), None
        ),
        "the outcome of the tunnel",
    )
    assert row is not None
    assert (row.allowed, row.scheme, row.reason) == (True, "tcp", "rule-matched")
    assert row.bytes_up == len(sent)
    assert row.bytes_down == len(GREETING) + len(sent) + len(FAREWELL)


def test_a_server_may_end_its_half_first(proxy: Proxy, server: RawServer) -> None:
    with by_connect(proxy, "db.test:5432") as connection:
        connection.sendall(b"last")
        assert read_all(connection) == GREETING + FAREWELL
        ended = server.ended
        connection.sendall(b" words")
        connection.shutdown(socket.SHUT_WR)
        until(lambda: server.ended > ended, "the end of what the client says")

    assert bytes(server.received).endswith(b"last words")


def test_a_private_address_needs_the_addresses_of_the_rule(proxy: Proxy) -> None:
    with by_connect(proxy, "private-db.test:5432") as connection:
        assert read_exactly(connection, len(GREETING)) == GREETING

    with by_connect(proxy, "inner-db.test:5432") as connection:
        assert read_all(connection) == b""
    assert proxy.decisions("inner-db.test:5432")[-1].reason == "address-not-allowed"


def test_no_other_rule_implies_it(proxy: Proxy) -> None:
    refused = proxy.ask(connect_head("db.test:5433"))
    assert refused.startswith(b"HTTP/1.1 403 ")
    assert b"claude-proxy allow tcp://db.test:5433" in refused

    with by_connect(proxy, "web-db.test:5432") as connection:
        connection.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
        assert read_all(connection) == b""
    assert proxy.decisions("web-db.test:5432")[-1].reason == "not-tls"


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n", "not-tls"),
        (client_hello("other.test"), "sni-mismatch"),
    ],
)
def test_what_names_another_host_is_refused(proxy: Proxy, first: bytes, reason: str) -> None:
    with by_connect(proxy, "db.test:5432") as connection:
        connection.sendall(first)
        read_all(connection)

    assert proxy.decisions("db.test:5432")[-1].reason == reason


def test_a_tunnel_that_says_nothing_is_closed(start_proxy: StartProxy, server: RawServer) -> None:
    del server
    proxy = start_proxy(ALLOWLIST, "--idle-timeout", "400ms")

    with by_connect(proxy, "db.test:5432") as connection:
        assert read_all(connection) == GREETING


@pytest.mark.parametrize(
    "changed",
    [
        "allow: [origin.test]\n",
        "allow: [{host: db.test, ports: [5432], tls: passthrough}]\n",
        ALLOWLIST + "deny: [{host: db.test, scheme: tcp}]\n",
    ],
)
def test_a_tunnel_whose_rule_is_withdrawn_is_closed(proxy: Proxy, changed: str) -> None:
    with by_connect(proxy, "db.test:5432") as connection:
        assert read_exactly(connection, len(GREETING)) == GREETING
        proxy.allowlist.write_text(changed)
        proxy.signal(signal.SIGHUP)
        assert read_all(connection) == b""

    assert proxy.decisions("db.test:5432")[-1].reason == "rule-withdrawn"


def test_it_goes_through_a_corporate_proxy(
    start_proxy: StartProxy, server: RawServer, internet: Internet
) -> None:
    del server
    host, port = "93.187.0.2", 3129
    corporate = CorporateProxy(
        internet.namespace, host, port, {"db.test": internet.site("db.test")}
    )
    login = f"{USER}:{PASSWORD.replace(' ', '%20')}"
    proxy = start_proxy(ALLOWLIST, CLAUDE_PROXY_UPSTREAM_PROXY=f"http://{login}@{host}:{port}")

    with by_connect(proxy, "db.test:5432") as connection:
        assert read_exactly(connection, len(GREETING)) == GREETING
    corporate.close()

    assert corporate.heads[0].startswith(b"CONNECT db.test:5432 ")


def test_check_allow_and_log_know_it(proxy: Proxy) -> None:
    with by_connect(proxy, "db.test:5432"):
        pass

    def claude_proxy(*words: str) -> str:
        return proxy.place.claude_proxy(*words, "--allowlist", str(proxy.allowlist)).stdout

    assert "inside: any protocol but HTTP" in claude_proxy("check", "tcp://db.test:5432")
    assert "inside: any protocol but HTTP" in claude_proxy("check", "db.test:5432")
    assert "denied (not-tls)" in claude_proxy("check", "postgres://me:secret@web-db.test/x")
    added = claude_proxy("allow", "tcp://db.test:6379")
    assert "permits: bytes of any protocol but HTTP to tcp://db.test:6379" in added
    assert "scheme: tcp\n    ports: [6379]" in proxy.allowlist.read_text()
    shown = proxy.place.claude_proxy("log", "--host", "db.test").stdout
    assert "CONNECT db.test:5432" in " ".join(shown.split())
    assert "tcp" in shown.split()
