"""Target, server name and TLS agree, or nothing is dialled, whether TLS is opened or not."""

import socket
import ssl
from collections.abc import Callable

import pytest

from .conftest import StartProxy
from .rig.client import connect_head, open_tunnel
from .rig.hello import client_hello, in_records, with_encrypted_hello, with_two_names
from .rig.internet import Internet
from .rig.proxy import Proxy, read_all

BOTH_KINDS = pytest.mark.parametrize("host", ["allowed.test", "through.test"])

_SERVER_HELLO = 0x16


def after_connect(proxy: Proxy, host: str, *pieces: bytes) -> bytes:
    """Open a tunnel, send raw pieces, each in a segment of its own, and return all that comes."""
    with proxy.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(connect_head(f"{host}:443"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        assert b" 200 " in head
        try:
            for piece in pieces:
                connection.sendall(piece)
        except OSError:
            pass  # it has hung up already
        return read_all(connection)


def first_answer(proxy: Proxy, host: str, *pieces: bytes) -> bytes:
    """Open a tunnel, send raw pieces and return the first bytes that come back."""
    with proxy.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(connect_head(f"{host}:443"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        for piece in pieces:
            connection.sendall(piece)
        return connection.recv(5)


def one_by_one(data: bytes) -> list[bytes]:
    """Cut into single bytes."""
    return [data[index : index + 1] for index in range(len(data))]


CUTS: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda hello: [hello],
    "two segments": lambda hello: [hello[:7], hello[7:]],
    "two records": lambda hello: [in_records(hello, len(hello) // 2)],
    "records of one byte": lambda hello: [in_records(hello, 1)],
    "segments of one byte": one_by_one,
    "records of 20 bytes in segments of one": lambda hello: one_by_one(in_records(hello, 20)),
}

EVERY_CUT = pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())


@BOTH_KINDS
@EVERY_CUT
def test_an_agreeing_hello_is_answered_however_it_is_cut(
    proxy: Proxy, host: str, cut: Callable[[bytes], list[bytes]]
) -> None:
    answer = first_answer(proxy, host, *cut(client_hello(host)))

    assert answer[0] == _SERVER_HELLO


@BOTH_KINDS
@EVERY_CUT
@pytest.mark.parametrize("server_name", ["denied.test", "other.test"])
def test_a_hello_with_another_name_dials_nothing_however_it_is_cut(
    proxy: Proxy,
    internet: Internet,
    host: str,
    server_name: str,
    cut: Callable[[bytes], list[bytes]],
) -> None:
    with internet.watch() as seen:
        answer = after_connect(proxy, host, *cut(client_hello(server_name)))

    assert answer[:1] != bytes([_SERVER_HELLO])
    assert seen.nothing()


@BOTH_KINDS
def test_a_hello_without_a_name_dials_nothing(proxy: Proxy, internet: Internet, host: str) -> None:
    with internet.watch() as seen:
        after_connect(proxy, host, client_hello(None))

    assert seen.nothing()
    assert proxy.decisions(f"{host}:443")[-1].reason == "sni-missing"


@BOTH_KINDS
def test_a_mismatch_is_in_the_audit_log(proxy: Proxy, host: str) -> None:
    after_connect(proxy, host, client_hello("denied.test"))

    row = proxy.decisions(f"{host}:443")[-1]
    assert (row.allowed, row.reason) == (False, "sni-mismatch")


def test_an_encrypted_hello_dials_nothing_where_tls_is_passed_through(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen:
        after_connect(proxy, "through.test", with_encrypted_hello(client_hello("through.test")))

    assert seen.nothing()
    assert proxy.decisions("through.test:443")[-1].reason == "encrypted-hello"


def test_an_encrypted_hello_is_answered_for_its_outer_name_where_tls_is_intercepted(
    proxy: Proxy, internet: Internet
) -> None:
    hello = with_encrypted_hello(client_hello("allowed.test"))
    elsewhere = with_encrypted_hello(client_hello("denied.test"))

    with internet.watch() as seen:
        answer = first_answer(proxy, "allowed.test", hello)
        after_connect(proxy, "allowed.test", elsewhere)

    assert answer[0] == _SERVER_HELLO
    assert seen.nothing()
    assert proxy.decisions("allowed.test:443")[-1].reason == "sni-mismatch"


@BOTH_KINDS
def test_a_hello_with_two_names_dials_nothing(proxy: Proxy, internet: Internet, host: str) -> None:
    for names in ((host, "denied.test"), ("denied.test", host), (host, host)):
        with internet.watch() as seen:
            after_connect(proxy, host, with_two_names(client_hello(names[0]), names[1]))

        assert seen.nothing()


NOT_TLS = {
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "plain http": b"GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
    "http2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "socks": b"\x05\x01\x00",
    "zeros": bytes(600),
    "dns over tcp": b"\x00\x1b\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x01x\x04evil\x04test",
    "an alert": b"\x15\x03\x01\x00\x02\x01\x00",
    "application data": b"\x17\x03\x03\x00\x05hello",
    "sslv2 hello": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(40),
    "a huge record": b"\x16\x03\x01\xff\xff" + bytes(70_000),
    "no end of records": b"\x16\x03\x01\x00\x01\x01" * 70_000,
    "an empty record": b"\x16\x03\x01\x00\x00",
    "garbage in a record": b"\x16\x03\x01\x00\x20" + bytes(range(32)),
}


@BOTH_KINDS
@pytest.mark.parametrize("first", NOT_TLS.values(), ids=NOT_TLS.keys())
def test_bytes_that_are_not_a_hello_reach_nobody(
    proxy: Proxy, internet: Internet, host: str, first: bytes
) -> None:
    with internet.watch() as seen, proxy.connect() as connection:
        connection.sendall(connect_head(f"{host}:443"))
        try:
            connection.sendall(first)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has hung up already
        read_all(connection)

    assert seen.nothing()


def test_bytes_sent_along_with_the_connect_are_judged_like_any(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen, proxy.connect() as connection:
        connection.sendall(connect_head("allowed.test:443") + client_hello("denied.test"))
        read_all(connection)

    assert seen.nothing()


def test_a_hello_sent_along_with_the_connect_is_answered(proxy: Proxy) -> None:
    with proxy.connect() as connection:
        connection.sendall(connect_head("allowed.test:443") + client_hello("allowed.test"))
        received = b""
        while len(received.partition(b"\r\n\r\n")[2]) < 1:
            received += connection.recv(4096)

    assert received.partition(b"\r\n\r\n")[2][0] == _SERVER_HELLO


@BOTH_KINDS
def test_a_silent_tunnel_and_a_half_hello_are_closed_after_a_time(
    start_proxy: StartProxy, internet: Internet, host: str
) -> None:
    rules = "allow: [allowed.test, {host: through.test, tls: passthrough}]\n"
    proxy = start_proxy(rules, "--handshake-timeout", "300ms")

    with internet.watch() as seen:
        after_connect(proxy, host)
        after_connect(proxy, host, client_hello(host)[:50])

    assert seen.nothing()


def test_a_ticket_from_one_host_opens_no_other(proxy: Proxy, internet: Internet) -> None:
    context = proxy.tls()
    with open_tunnel(proxy.connect(), "allowed.test:443", context) as tunnel:
        assert tunnel.get("/echo").status == 200
        assert isinstance(tunnel.stream, ssl.SSLSocket)
        ticket = tunnel.stream.session

    with internet.watch() as seen, proxy.connect() as connection:
        connection.sendall(connect_head("allowed.test:443"))
        assert b" 200 " in connection.recv(4096)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(connection, server_hostname="denied.test", session=ticket)

    assert seen.nothing()


def test_a_passed_through_host_shows_its_own_certificate(proxy: Proxy, internet: Internet) -> None:
    context = ssl.create_default_context(cafile=internet.pki.root_file)

    with open_tunnel(proxy.connect(), "through.test:443", context) as tunnel:
        answer = tunnel.get("/echo")

    assert answer.status == 200


def test_a_passed_through_name_that_leads_inward_is_not_dialled(
    start_proxy: StartProxy, internet: Internet
) -> None:
    internet.names.answer("inward.test", ["169.254.169.254"])
    proxy = start_proxy("allow: [{host: inward.test, tls: passthrough}]\n")

    with internet.watch() as seen:
        after_connect(proxy, "inward.test", client_hello("inward.test"))

    assert seen.packets == []
