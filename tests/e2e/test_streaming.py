"""Bodies flow both ways as they come, whole, at constant memory, and leave nothing behind."""

import hashlib
import http.client
import socket
import ssl

import pytest

from tests.support.waiting import settled, until

from .conftest import StartProxy
from .rig.client import Tunnel
from .rig.internet import Internet
from .rig.proxy import Proxy, read_all
from .rig.routes import BLOCK, BROTLI, GZIP, TEXT

MIB = 1024 * 1024
LARGE = 256 * MIB
# Buffers of sockets, TLS and both proxies' sides; far below what a whole body takes.
IN_FLIGHT = 48 * MIB


def asked(tunnel: Tunnel, path: str, *fields: str, method: str = "GET") -> None:
    """Send a request head and read the answer's head, leaving the body to the test."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {tunnel.target}", *fields, "", ""]
    tunnel.send("\r\n".join(lines).encode())


def read_head(tunnel: Tunnel) -> list[bytes]:
    """Read the lines of one answer's head."""
    lines = []
    while line := tunnel.read_line().rstrip(b"\r\n"):
        lines.append(line)
    return lines


@pytest.fixture
def tunnel(proxy: Proxy) -> Tunnel:
    """A tunnel to the ordinary origin."""
    return proxy.tunnel("origin.test:443")


def test_each_event_arrives_before_the_next_is_sent(tunnel: Tunnel, internet: Internet) -> None:
    gate = internet.origin.gate("one-by-one")
    asked(tunnel, "/events/one-by-one/5", "Accept: text/event-stream")

    with tunnel:
        assert read_head(tunnel)[0].startswith(b"HTTP/1.1 200")
        for number in range(5):
            # Only now may the origin send it; if the proxy held it back, this would never end.
            gate.open()
            event = b"data: %d\n\n" % number
            assert tunnel.read_line().strip() == b"%x" % len(event)
            assert tunnel.read_some(len(event) + 2) == event + b"\r\n"
        assert tunnel.read_line() == b"0\r\n"


def test_a_dialogue_flows_both_ways_at_once(tunnel: Tunnel) -> None:
    asked(tunnel, "/dialogue", "Transfer-Encoding: chunked", method="POST")

    with tunnel:
        assert read_head(tunnel)[0].startswith(b"HTTP/1.1 200")
        for word in (b"one", b"three", b"eleven"):
            tunnel.send(b"%x\r\n%s\r\n" % (len(word), word))
            assert tunnel.read_line().strip() == b"%x" % len(word)
            assert tunnel.read_some(len(word) + 2) == word.upper() + b"\r\n"
        tunnel.send(b"0\r\n\r\n")
        assert tunnel.read_line() == b"0\r\n"


@pytest.mark.parametrize(("path", "body"), [("/gzip", GZIP), ("/brotli", BROTLI), ("/close", TEXT)])
def test_a_body_arrives_byte_for_byte(tunnel: Tunnel, path: str, body: bytes) -> None:
    with tunnel:
        answer = tunnel.get(path, "Accept-Encoding: gzip, br")

    assert answer.body == body


def test_encodings_are_kept(tunnel: Tunnel) -> None:
    with tunnel:
        assert tunnel.get("/gzip").headers["content-encoding"] == "gzip"
        assert tunnel.get("/brotli").headers["content-encoding"] == "br"


def test_a_large_download_takes_no_memory(proxy: Proxy, tunnel: Tunnel) -> None:
    tunnel.get("/bytes/1000000")
    before = proxy.memory_kib()
    received, digest = 0, hashlib.sha256()

    with tunnel:
        asked(tunnel, f"/bytes/{LARGE}")
        read_head(tunnel)
        while received < LARGE:
            piece = tunnel.read_some(min(MIB, LARGE - received))
            digest.update(piece)
            received += len(piece)
        grown = proxy.memory_kib() - before

    assert digest.hexdigest() == sha256_of_blocks(LARGE)
    assert grown * 1024 < IN_FLIGHT


def test_a_large_upload_takes_no_memory(proxy: Proxy, tunnel: Tunnel, internet: Internet) -> None:
    tunnel.request("POST", "/sink", body=BLOCK)
    before = proxy.memory_kib()

    with internet.watch() as seen, tunnel:
        asked(tunnel, "/sink", f"Content-Length: {LARGE}", method="POST")
        for _ in range(LARGE // len(BLOCK)):
            tunnel.send(BLOCK)
        answer = tunnel.read()
        grown = proxy.memory_kib() - before

    assert answer.text() == str(LARGE)
    assert seen.exchanges[0].digest.hexdigest() == sha256_of_blocks(LARGE)
    assert grown * 1024 < IN_FLIGHT


def sha256_of_blocks(size: int) -> str:
    """Return the digest of the origin's large body."""
    digest = hashlib.sha256()
    for _ in range(size // len(BLOCK)):
        digest.update(BLOCK)
    return digest.hexdigest()


def test_a_client_that_stops_reading_stops_the_origin(
    proxy: Proxy, tunnel: Tunnel, internet: Internet
) -> None:
    before = proxy.memory_kib()
    with internet.watch() as seen, tunnel:
        asked(tunnel, f"/bytes/{LARGE}")
        read_head(tunnel)
        until(lambda: internet.origin.exchanges[-1].sent_bytes, "the origin to send")
        exchange = internet.origin.exchanges[-1]

        sent = settled(lambda: exchange.sent_bytes)
        grown = proxy.memory_kib() - before

        assert sent < IN_FLIGHT
        assert grown * 1024 < IN_FLIGHT
        # The rest comes once the client reads again.
        tunnel.read_some(LARGE)
    assert seen.exchanges[0].sent_bytes == LARGE


def test_an_origin_that_stops_reading_stops_the_client(
    proxy: Proxy, tunnel: Tunnel, internet: Internet
) -> None:
    before = proxy.memory_kib()
    sent = 0

    with tunnel:
        asked(tunnel, "/unread/stuck", f"Content-Length: {LARGE}", method="POST")
        assert internet.origin.gate("stuck").reached.wait(60)
        tunnel.stream.settimeout(1)
        try:
            while sent < LARGE:
                sent += tunnel.stream.send(BLOCK[: LARGE - sent])
        except (TimeoutError, ssl.SSLWantWriteError):
            pass  # nobody takes any more
        grown = proxy.memory_kib() - before

    internet.origin.gate("stuck").open()
    assert sent < IN_FLIGHT
    assert grown * 1024 < IN_FLIGHT


@pytest.mark.parametrize(
    "path", ["/ticking", f"/bytes/{LARGE}", "/held/aborted", "/events/aborted-events/3"]
)
def test_an_aborted_client_leaves_no_upstream_connection(
    proxy: Proxy, internet: Internet, path: str
) -> None:
    with internet.watch() as seen, proxy.tunnel("origin.test:443") as tunnel:
        asked(tunnel, path)
        until(lambda: internet.origin.exchanges[-1].target == path, f"{path} to arrive")

    (exchange,) = seen.exchanges
    until(lambda: exchange.arrival.closed, "the end of the upstream connection")
    row = proxy.outcome("origin.test:443", path)
    assert row.error is not None


def test_a_client_that_aborts_an_upload_leaves_no_upstream_connection(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen, proxy.tunnel("origin.test:443") as tunnel:
        asked(tunnel, "/sink", "Content-Length: 1000000", method="POST")
        tunnel.send(BLOCK)
        until(lambda: internet.origin.exchanges[-1].body_bytes, "the upload to begin")

    (exchange,) = seen.exchanges
    until(lambda: exchange.arrival.closed, "the end of the upstream connection")
    assert not exchange.complete


def test_a_kept_upstream_connection_ends_with_its_client(proxy: Proxy, internet: Internet) -> None:
    with internet.watch() as seen, proxy.tunnel("origin.test:443") as tunnel:
        tunnel.get("/one")
        tunnel.get("/two")

    assert len(seen.arrivals) == 1
    until(lambda: seen.arrivals[0].closed, "the end of the upstream connection")


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_is_followed_by_the_next(tunnel: Tunnel, status: int) -> None:
    with tunnel:
        first = tunnel.get(f"/status/{status}")
        second = tunnel.get("/echo")

    assert (first.status, first.headers["etag"], first.body) == (status, '"one"', b"")
    assert second.status == http.client.OK


def test_the_answer_to_head_is_followed_by_the_next(tunnel: Tunnel) -> None:
    with tunnel:
        first = tunnel.request("HEAD", "/echo")
        second = tunnel.get("/echo")

    assert int(first.headers["content-length"]) > 0
    assert second.status == http.client.OK


def test_a_client_that_waits_for_100_continue_gets_it(tunnel: Tunnel, internet: Internet) -> None:
    with internet.watch() as seen, tunnel:
        asked(tunnel, "/echo", "Content-Length: 4", "Expect: 100-continue", method="POST")
        assert read_head(tunnel)[0].startswith(b"HTTP/1.1 100")
        tunnel.send(b"body")
        answer = tunnel.read()

    assert answer.status == http.client.OK
    assert seen.exchanges[0].body == b"body"


def test_a_denied_client_that_waits_for_100_continue_gets_the_denial(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen, proxy.tunnel("read-only.test:443") as tunnel:
        asked(tunnel, "/x", "Content-Length: 4", "Expect: 100-continue", method="POST")
        answer = tunnel.read()

    assert answer.status == http.client.FORBIDDEN
    assert seen.exchanges == []


def test_early_hints_arrive_before_the_answer(tunnel: Tunnel) -> None:
    with tunnel:
        asked(tunnel, "/hints")
        hints = read_head(tunnel)
        answer = tunnel.read()

    assert hints[0].startswith(b"HTTP/1.1 103")
    assert b"Link: </style.css>; rel=preload" in hints
    assert answer.text() == "after the hints"


def test_trailers_arrive_both_ways(tunnel: Tunnel, internet: Internet) -> None:
    with internet.watch() as seen, tunnel:
        asked(tunnel, "/trailers", "Transfer-Encoding: chunked", "Trailer: X-Check", method="POST")
        tunnel.send(b"4\r\nbody\r\n0\r\nX-Check: four\r\n\r\n")
        read_head(tunnel)
        body = b""
        while not body.endswith(b"\r\n\r\n"):
            body += tunnel.read_some(1)

    assert b"X-Sum: eleven" in body
    assert seen.exchanges[0].trailers == b"X-Check: four\r\n"


def test_an_answer_before_the_requests_end_reaches_the_client(
    tunnel: Tunnel, internet: Internet
) -> None:
    with tunnel:
        asked(tunnel, "/early/refusal", "Content-Length: 1000000000", method="POST")
        tunnel.send(BLOCK)
        answer = tunnel.read()
        internet.origin.gate("refusal").open()
        tunnel.read_rest()

    assert (answer.status, answer.text()) == (413, "no more, please")


def test_a_client_that_is_done_sending_still_gets_its_answer(
    proxy: Proxy, internet: Internet
) -> None:
    with proxy.connect() as connection:
        connection.sendall(
            b"GET http://plain.test/held/half-closed HTTP/1.1\r\nHost: plain.test\r\n"
            b"Connection: close\r\n\r\n"
        )
        connection.shutdown(socket.SHUT_WR)
        gate = internet.origin.gate("half-closed")
        assert gate.reached.wait(60)
        gate.open()
        received = read_all(connection)

    assert received.endswith(b"at last")


def test_a_client_of_http_1_0_gets_a_body_that_it_can_read(proxy: Proxy) -> None:
    with proxy.tunnel("origin.test:443") as tunnel:
        tunnel.send(b"GET /trailers HTTP/1.0\r\nHost: origin.test\r\n\r\n")
        received = tunnel.read_rest()

    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body == b"firstsecond"


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(tunnel: Tunnel) -> None:
    with tunnel, pytest.raises(http.client.IncompleteRead):
        tunnel.get("/broken")


def test_an_answer_that_is_no_http_is_a_502(tunnel: Tunnel) -> None:
    with tunnel:
        answer = tunnel.get("/garbage")

    assert answer.status == http.client.BAD_GATEWAY
    assert "nonsense" not in answer.text()


def test_an_answer_of_two_lengths_is_a_502(tunnel: Tunnel) -> None:
    with tunnel:
        answer = tunnel.get("/double")

    assert answer.status == http.client.BAD_GATEWAY
    assert "oops" not in answer.text()


def test_an_answer_in_chunks_with_a_length_is_read_in_one_way_only(tunnel: Tunnel) -> None:
    with tunnel:
        answer = tunnel.get("/coded-and-measured")

    assert not {"content-length", "transfer-encoding"} <= set(answer.headers)
    assert answer.status == http.client.BAD_GATEWAY or answer.text() == "chunks"


def test_a_kept_upstream_connection_that_has_ended_is_opened_anew(
    tunnel: Tunnel, internet: Internet
) -> None:
    with internet.watch() as seen, tunnel:
        first = tunnel.get("/bye")
        until(lambda: internet.origin.arrivals[-1].closed, "the end of the connection")
        second = tunnel.get("/echo")

    assert (first.text(), second.status) == ("bye", http.client.OK)
    assert seen.targets() == ["/bye", "/echo"]


def test_a_redirect_is_handed_on_and_not_followed(tunnel: Tunnel, internet: Internet) -> None:
    with internet.watch() as seen, tunnel:
        answer = tunnel.get("/redirect")

    assert answer.status == http.client.FOUND
    assert answer.headers["location"] == "https://denied.test/landing"
    assert "denied.test" not in seen.names


def test_offers_of_other_ways_are_stripped(tunnel: Tunnel) -> None:
    with tunnel:
        answer = tunnel.get("/alternative")

    assert answer.headers["x-kept"] == "yes"
    assert "alt-svc" not in answer.headers


def test_what_was_carried_is_in_the_audit_log(proxy: Proxy, tunnel: Tunnel) -> None:
    with tunnel:
        tunnel.request("POST", "/bytes/12345", body=b"x" * 678)

    row = proxy.outcome("origin.test:443", "/bytes/12345")
    assert (row.status, row.bytes_up, row.bytes_down) == (200, 678, 12345)
    assert row.upstream.endswith(":443")


def test_a_running_stream_outlives_many_silent_pauses(
    start_proxy: StartProxy, internet: Internet
) -> None:
    """The head and handshake limits are about heads and handshakes alone."""
    limits = ("--head-timeout", "3s", "--handshake-timeout", "2s", "--connect-timeout", "2s")
    proxy = start_proxy("allow: [origin.test]\n", *limits)
    gate = internet.origin.gate("slow-answer")

    with proxy.tunnel("origin.test:443") as tunnel:
        asked(tunnel, "/held/slow-answer")
        assert gate.reached.wait(60)
        # When two of these have been ended, one after the other, every limit has been met.
        for _ in range(2):
            with proxy.connect() as slow:
                slow.sendall(b"GET http://origin")
                read_all(slow)
        gate.open()
        answer = tunnel.read()

    assert answer.text() == "at last"
