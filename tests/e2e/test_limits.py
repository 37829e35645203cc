"""No client starves the others, however slow, large or many it is."""

import contextlib
import resource
import socket
import ssl
import threading

import pytest

from tests.support.waiting import until

from .conftest import StartProxy
from .rig.client import Tunnel, connect_head
from .rig.internet import Internet
from .rig.origin import Exchange, Talk
from .rig.proxy import Proxy, read_all

RULES = "allow: [origin.test, {host: plain.test, scheme: http, ports: [80]}]\n"


def test_slow_heads_are_ended(start_proxy: StartProxy, internet: Internet) -> None:
    proxy = start_proxy(RULES, "--head-timeout", "2s")
    fragments = [b"", b"G", b"GET http://plain.test/ HTTP/1.1\r\nHost: plain", b"CONNECT origin"]

    with internet.watch() as seen:
        connections = [proxy.connect() for _ in fragments]
        for connection, fragment in zip(connections, fragments, strict=True):
            connection.sendall(fragment)
        for connection in connections:
            read_all(connection)
            connection.close()

    assert seen.nothing()


def test_a_slow_head_inside_a_tunnel_is_ended(start_proxy: StartProxy, internet: Internet) -> None:
    proxy = start_proxy(RULES, "--head-timeout", "2s")

    with internet.watch() as seen, proxy.tunnel("origin.test:443") as tunnel:
        tunnel.send(b"GET /slow HTTP/1.1\r\nHost: ori")
        tunnel.read_rest()

    assert seen.exchanges == []


def test_an_idle_tunnel_is_ended(start_proxy: StartProxy) -> None:
    proxy = start_proxy(RULES, "--idle-timeout", "3s")  # the origin's answer is waited for too

    with proxy.tunnel("origin.test:443") as tunnel:
        assert tunnel.get("/echo").status == 200
        tunnel.read_rest()


@pytest.mark.parametrize("kind", ["many fields", "one field", "the target", "a name"])
def test_a_huge_head_is_refused(proxy: Proxy, internet: Internet, kind: str) -> None:
    huge = "x" * 100_000
    head = {
        "many fields": "GET / HTTP/1.1\r\nHost: origin.test\r\n" + "A: b\r\n" * 30_000,
        "one field": f"GET / HTTP/1.1\r\nHost: origin.test\r\nX: {huge}\r\n",
        "the target": f"GET /{huge} HTTP/1.1\r\nHost: origin.test\r\n",
        "a name": f"GET / HTTP/1.1\r\nHost: origin.test\r\n{huge}: x\r\n",
    }[kind]

    with internet.watch() as seen, proxy.tunnel("origin.test:443") as tunnel:
        with contextlib.suppress(OSError):  # it need not wait for all of it
            tunnel.send(head.encode() + b"\r\n")
        status = tunnel.read().status

    assert status in {400, 413, 414, 431}
    assert seen.exchanges == []


def test_a_huge_connect_is_refused(proxy: Proxy) -> None:
    answer = proxy.ask(b"CONNECT origin.test:443 HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")

    assert int(answer.split()[1]) in {400, 413, 414, 431}


def test_a_head_without_an_end_is_not_gathered_without_end(proxy: Proxy) -> None:
    before = proxy.memory_kib()
    sent = 0

    with proxy.connect() as connection:
        try:
            while sent < 64 * 1024 * 1024:
                connection.sendall(b"x" * 65536)
                sent += 65536
        except OSError:
            pass

    assert proxy.memory_kib() - before < 16 * 1024


def test_a_huge_head_of_an_answer_is_a_502(proxy: Proxy, internet: Internet) -> None:
    def huge(exchange: Exchange, talk: Talk) -> None:
        talk.drain(exchange)
        talk.answer("200 OK", b"", *[f"X-{number}: {'y' * 1000}" for number in range(300)])

    internet.site("broken.test", huge)
    try:
        with proxy.tunnel("broken.test:443") as tunnel:
            status = tunnel.get("/").status
    finally:
        del internet.origin.sites["broken.test"]

    assert status == 502


def test_more_connections_than_allowed_do_not_stop_the_service(
    start_proxy: StartProxy,
) -> None:
    proxy = start_proxy(RULES, "--max-connections", "20")
    held = [proxy.connect() for _ in range(60)]

    def is_served() -> bool:
        with proxy.connect() as connection:
            connection.sendall(connect_head("denied.test:443"))
            return b" 403 " in connection.recv(4096)

    # The silent ones make room for those who have something to say.
    until(is_served, "an answer")
    for connection in held:
        connection.close()

    assert "20 open connections" in proxy.stderr()


def test_it_lives_with_few_descriptors(start_proxy: StartProxy) -> None:
    proxy = start_proxy(RULES)
    _, hard = resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE)
    # Taken away while it runs, as an operator could: accepting then fails with EMFILE.
    resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (60, hard))

    held = [proxy.connect() for _ in range(100)]
    for connection in held:
        connection.close()
    resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (1024, hard))

    with proxy.tunnel("origin.test:443") as tunnel:
        assert tunnel.get("/echo").status == 200


def test_hundreds_of_idle_tunnels_do_not_stop_the_service(
    start_proxy: StartProxy,
) -> None:
    proxy = start_proxy(RULES)
    context = proxy.tls()
    held: list[ssl.SSLSocket] = []

    for _ in range(300):
        connection = proxy.connect()
        connection.sendall(connect_head("origin.test:443"))
        while not connection.recv(4096).endswith(b"\r\n\r\n"):
            pass
        held.append(context.wrap_socket(connection, server_hostname="origin.test"))
    with Tunnel(held[0], "origin.test:443") as tunnel:
        status = tunnel.get("/echo").status
    for stream in held:
        stream.close()

    assert status == 200


def test_a_client_that_reads_no_answers_costs_little(proxy: Proxy) -> None:
    before = proxy.memory_kib()
    request = b"GET http://denied.test/ HTTP/1.1\r\nHost: denied.test\r\n\r\n"

    with proxy.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1)
        try:
            for _ in range(3_000):
                connection.sendall(request * 20)
        except OSError:
            pass  # it takes no more

    assert proxy.memory_kib() - before < 16 * 1024


def test_a_pipeline_of_denied_requests_delays_nobody(proxy: Proxy) -> None:
    """Another client's answer comes before the pipeline's last one by far."""
    count = 20_000
    request = b"GET http://denied.test/ HTTP/1.1\r\nHost: denied.test\r\n\r\n"
    answered = 0

    with proxy.connect() as pipeline:
        pipeline.settimeout(60)

        def read() -> None:
            nonlocal answered
            while answered < count and (data := pipeline.recv(1 << 20)):
                answered += data.count(b"HTTP/1.1 403 ")

        reader = threading.Thread(target=read)
        writer = threading.Thread(target=pipeline.sendall, args=(request * count,))
        reader.start()
        writer.start()
        until(lambda: answered, "the first denial")
        with proxy.connect() as other:
            other.sendall(connect_head("denied.test:443"))
            assert b" 403 " in other.recv(4096)
        before = answered
        writer.join()
        reader.join()

    assert before < count // 2
    assert answered == count


def test_bodies_that_never_come_do_not_hold_all_places(start_proxy: StartProxy) -> None:
    proxy = start_proxy(RULES, "--max-connections", "20")
    head = b"POST http://plain.test/sink HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 1000\r\n"
    greedy = [proxy.connect() for _ in range(20)]
    for connection in greedy:
        connection.sendall(head + b"\r\nx")
    until(lambda: len(proxy.decisions("plain.test:80")) == 20, "all of them")

    def is_admitted() -> bool:
        return proxy.ask(connect_head("denied.test:443")).split()[1] == b"403"

    for _ in range(5):
        # Of a body whose upstream is still being dialled, nobody can say yet that it does not come.
        until(is_admitted, "a place")
    for connection in greedy:
        connection.close()

    def shed() -> bool:
        return any(row.error == "shed" for row in proxy.decisions("plain.test:80"))

    until(shed, "the outcome of what was shed")
    assert "of 127.0.0.1, which had 20" in proxy.stderr()


def test_silent_connections_do_not_hold_all_descriptors(start_proxy: StartProxy) -> None:
    proxy = start_proxy(RULES)
    _, hard = resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (200, hard))
    silent = [proxy.connect() for _ in range(300)]

    with proxy.tunnel("origin.test:443") as tunnel:
        status = tunnel.get("/echo").status
    for connection in silent:
        connection.close()

    assert status == 200
    assert "nearly all of the 200 files that may be open are open" in proxy.stderr()
