"""What is kept ready for the next request is used by real clients, and is in the record."""

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.audit import audit_rows
from tests.support.waiting import PATIENCE_S, until

from .conftest import StartProxy, proxy_process
from .rig.internet import Internet, Seen
from .rig.proxy import Proxy

LIST = "allow: [origin.test, h2.test, other.test]\n"


@pytest.fixture
def keeping(start_proxy: StartProxy) -> Proxy:
    """A proxy that keeps connections ready, as it does by default."""
    return start_proxy(LIST, CLAUDE_PROXY_WARM_UPSTREAMS="true")


def curl(proxy: Proxy, url: str, *options: str) -> str:
    """Return the status that curl gets."""
    trust = ("--proxy", proxy.url, "--cacert", str(proxy.ca_file))
    told = ("--output", "/dev/null", "--write-out", "%{http_code}")
    ran = proxy.place.run("curl", "--silent", "--show-error", *trust, *told, *options, url)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def is_ready(seen: Internet, known: int) -> None:
    """Wait for one more connection than were known, whose handshake is done."""
    until(lambda: len(seen.origin.arrivals) > known, "a connection ahead of the next request")
    until(lambda: seen.origin.arrivals[-1].secured, "its handshake")


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("https://origin.test/", ("--http1.1",)),
        ("https://origin.test/", ("--http2",)),
        ("https://h2.test/", ("--http2",)),
    ],
)
def test_the_next_client_is_served_on_a_connection_that_was_open(
    keeping: Proxy, internet: Internet, url: str, options: tuple[str, ...]
) -> None:
    known = len(internet.origin.arrivals)
    assert curl(keeping, url, *options) == "200"
    is_ready(internet, known + 1)
    ahead = internet.origin.arrivals[-1]

    assert curl(keeping, url, *options) == "200"

    last = internet.origin.exchanges[-1]
    assert last.arrival is ahead
    is_ready(internet, known + 2)  # the next one


def test_each_is_in_the_record(keeping: Proxy, internet: Internet) -> None:
    known = len(internet.origin.arrivals)
    curl(keeping, "https://origin.test/")
    is_ready(internet, known + 1)

    texts = [row.text for row in audit_rows(keeping.statedir, "--notices") if "text" in row.fields]

    (found,) = [text for text in texts if "for the next request" in text]
    assert found.startswith("origin.test:443 at ")
    assert found.endswith(" of 127.0.0.1")


def test_a_rule_that_is_withdrawn_closes_it(keeping: Proxy, internet: Internet) -> None:
    known = len(internet.origin.arrivals)
    curl(keeping, "https://origin.test/")
    is_ready(internet, known + 1)
    ahead = internet.origin.arrivals[-1]

    keeping.allowlist.write_text("allow: [other.test]\n")

    until(lambda: ahead.closed, "the end of the connection")
    with internet.watch() as seen:
        assert curl_is_denied(keeping)
    assert nothing_was_opened(seen)


def curl_is_denied(proxy: Proxy) -> bool:
    return b" 403 " in proxy.ask(
        b"CONNECT origin.test:443 HTTP/1.1\r\nHost: origin.test:443\r\n\r\n"
    )


def nothing_was_opened(seen: Seen) -> bool:
    return not (seen.arrivals or seen.exchanges or seen.names)


def test_a_host_that_was_denied_gets_none(keeping: Proxy, internet: Internet) -> None:
    with internet.watch() as seen:
        proxy_says = keeping.ask(
            b"GET http://denied.test/ HTTP/1.1\r\nHost: denied.test\r\nConnection: close\r\n\r\n"
        )

    assert b" 403 " in proxy_says.partition(b"\r\n")[0]
    assert seen.nothing()


def test_it_is_closed_when_the_proxy_stops(keeping: Proxy, internet: Internet) -> None:
    known = len(internet.origin.arrivals)
    curl(keeping, "https://origin.test/")
    is_ready(internet, known + 1)

    keeping.signal(signal.SIGTERM)

    internet.wait_until_all_closed()


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Internet]:
    """An internet so far away that what both sides send meets on the way."""
    (tmp_path / "far").mkdir()
    internet = Internet(tmp_path / "far", rtt_ms=400)
    yield internet
    internet.close()


def read_request(connection: socket.socket) -> bytes:
    """Read a request whose body is "hello", or which has none."""
    got = b""
    while not (got.endswith(b"hello") or (got.startswith(b"GET") and got.endswith(b"\r\n\r\n"))):
        got += connection.recv(4096)
    return got


def test_a_post_that_met_the_end_of_the_connection_on_the_way_is_sent_afresh(
    far: Internet, tmp_path: Path
) -> None:
    far.site("distant.test")
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    allowlist = "allow: [{host: distant.test, scheme: http, ports: [8085]}]\n"
    (tmp_path / "proxy").mkdir()
    variables = {"CLAUDE_PROXY_WARM_UPSTREAMS": "true"}
    proxy = proxy_process(far, tmp_path / "proxy", allowlist, 20_000, variables=variables)
    try:
        proxy.wait_until_listening()
        with far.namespace.listen("::", 8085) as server, ThreadPoolExecutor() as aside:
            server.settimeout(PATIENCE_S)
            head = b"%b http://distant.test:8085/ HTTP/1.1\r\nHost: distant.test:8085\r\n"
            last = b"Connection: close\r\n"
            first = aside.submit(proxy.ask, head % b"GET" + last + b"\r\n")
            with server.accept()[0] as upstream:
                read_request(upstream)
                upstream.sendall(ok)
                assert b" 200 " in first.result()
            server.accept()[0].close()  # the connection that is ready
            body = b"Content-Length: 5\r\n\r\nhello"
            second = aside.submit(proxy.ask, head % b"POST" + last + body)
            with server.accept()[0] as fresh:
                asked = read_request(fresh)
                fresh.sendall(ok)

                assert b" 200 " in second.result()
                assert asked.startswith(b"POST ")
    finally:
        proxy.stop()


def test_it_can_be_turned_off(start_proxy: StartProxy, internet: Internet) -> None:
    proxy = start_proxy(LIST, "--no-warm-upstreams")
    with internet.watch() as seen:
        curl(proxy, "https://origin.test/")
        curl(proxy, "https://origin.test/")
        proxy.signal(signal.SIGTERM)
        internet.wait_until_all_closed()

    assert len(seen.arrivals) == 2
