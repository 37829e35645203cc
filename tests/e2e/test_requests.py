"""Every request is judged, and what was judged is what the origin gets: no second reading of it."""

import socket

import pytest

from .rig.client import Tunnel
from .rig.internet import Internet
from .rig.proxy import Proxy, read_all
from .rig.spellings import FORBIDDEN_SPELLINGS, OVERRIDES, PATHS


def head(*lines: str) -> bytes:
    """Return a request head."""
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def first_status(proxy: Proxy, host: str, data: bytes) -> int:
    """Send bytes in a tunnel and return the status that they are answered with."""
    with proxy.tunnel(f"{host}:443") as tunnel:
        tunnel.send(data)
        return tunnel.read().status


HOST = "Host: allowed.test"

ELSEWHERE = {
    "another host": head("GET /x HTTP/1.1", "Host: denied.test"),
    "another allowed host": head("GET /x HTTP/1.1", "Host: other.test"),
    "another port": head("GET /x HTTP/1.1", "Host: allowed.test:8443"),
    "absolute form elsewhere": head("GET https://denied.test/x HTTP/1.1", HOST),
    "absolute form elsewhere, host too": head(
        "GET https://denied.test/x HTTP/1.1", "Host: denied.test"
    ),
    "absolute form over http": head("GET http://allowed.test/x HTTP/1.1", HOST),
    "absolute form to an allowed host": head("GET https://other.test/x HTTP/1.1", HOST),
    "user info": head("GET https://allowed.test@denied.test/x HTTP/1.1", HOST),
    "user info in the host": head("GET /x HTTP/1.1", "Host: denied.test@allowed.test"),
    "a trailing comma": head("GET /x HTTP/1.1", "Host: allowed.test, denied.test"),
    "two hosts": head("GET /x HTTP/1.1", HOST, "Host: denied.test"),
    "two hosts, reversed": head("GET /x HTTP/1.1", "Host: denied.test", HOST),
    "the same host twice": head("GET /x HTTP/1.1", HOST, HOST),
    "no host": head("GET /x HTTP/1.1"),
    "an empty host": head("GET /x HTTP/1.1", "Host:"),
    "a folded host": b"GET /x HTTP/1.1\r\nHost: allowed.test\r\n .denied.test\r\n\r\n",
    "a space before the colon": head("GET /x HTTP/1.1", "Host : denied.test", HOST),
    "a hidden host": head("GET /x HTTP/1.1", HOST, "\x00Host: denied.test"),
    "connect in a tunnel": head("CONNECT denied.test:443 HTTP/1.1", "Host: denied.test:443"),
    "connect to the same": head("CONNECT allowed.test:443 HTTP/1.1", "Host: allowed.test:443"),
    "trace": head("TRACE /x HTTP/1.1", HOST),
    "an old track": head("TRACK /x HTTP/1.1", HOST),
    "h2c": head(
        "GET /x HTTP/1.1",
        HOST,
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
    ),
    "an unknown upgrade": head("GET /x HTTP/1.1", HOST, "Connection: Upgrade", "Upgrade: TLS/1.0"),
    "web socket and h2c": head(
        "GET /x HTTP/1.1", HOST, "Connection: Upgrade", "Upgrade: websocket, h2c"
    ),
    "http2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("request_", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_a_request_that_could_lead_elsewhere_reaches_nobody(
    proxy: Proxy, internet: Internet, request_: bytes
) -> None:
    with internet.watch() as seen:
        status = first_status(proxy, "allowed.test", request_)

    if b"Upgrade" in request_ and seen.exchanges:
        # To leave out the offer and forward the rest is as good as to refuse it.
        assert seen.exchanges[0].header("Upgrade") in {None, "websocket"}
    else:
        assert status in {400, 403, 405, 421, 501}
        assert seen.exchanges == []


SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: allowed.test\r\n\r\n"

SPLITS = {
    "length and chunked": (
        head("POST /x HTTP/1.1", HOST, "Content-Length: 5", "Transfer-Encoding: chunked")
        + b"0\r\n\r\n"
    ),
    "chunked and length": (
        head("POST /x HTTP/1.1", HOST, "Transfer-Encoding: chunked", "Content-Length: 5")
        + b"0\r\n\r\n"
    ),
    "two lengths": head("POST /x HTTP/1.1", HOST, "Content-Length: 0", "Content-Length: 60"),
    "a length twice": head("POST /x HTTP/1.1", HOST, "Content-Length: 0", "Content-Length: 0"),
    "a list of lengths": head("POST /x HTTP/1.1", HOST, "Content-Length: 0, 0"),
    "a signed length": head("POST /x HTTP/1.1", HOST, "Content-Length: +0"),
    "a negative length": head("POST /x HTTP/1.1", HOST, "Content-Length: -1"),
    "a hexadecimal length": head("POST /x HTTP/1.1", HOST, "Content-Length: 0x0"),
    "a length with an underscore": head("POST /x HTTP/1.1", HOST, "Content-Length: 1_0"),
    "a huge length": head("POST /x HTTP/1.1", HOST, f"Content-Length: {'9' * 40}"),
    "an empty length": head("POST /x HTTP/1.1", HOST, "Content-Length:"),
    "a length of other digits": head("POST /x HTTP/1.1", HOST, "Content-Length: \xb2"),
    "another coding": head("POST /x HTTP/1.1", HOST, "Transfer-Encoding: gzip, chunked"),
    "a quoted coding": head("POST /x HTTP/1.1", HOST, 'Transfer-Encoding: "chunked"'),
    "identity": head("POST /x HTTP/1.1", HOST, "Transfer-Encoding: identity"),
    "chunked twice": head("POST /x HTTP/1.1", HOST, "Transfer-Encoding: chunked, chunked"),
    "two codings": head(
        "POST /x HTTP/1.1", HOST, "Transfer-Encoding: chunked", "Transfer-Encoding: identity"
    ),
    "a tab before the coding": head("POST /x HTTP/1.1", HOST, "Transfer-Encoding:\x0bchunked"),
    "a space before the colon": head("POST /x HTTP/1.1", HOST, "Transfer-Encoding : chunked"),
    "chunked in http/1.0": head("POST /x HTTP/1.0", HOST, "Transfer-Encoding: chunked")
    + b"0\r\n\r\n",
    "a folded field": b"POST /x HTTP/1.1\r\nHost: allowed.test\r\nX: a\r\n b\r\n\r\n",
    "a bare LF": b"POST /x HTTP/1.1\nHost: allowed.test\n\n",
    "a bare LF in a field": head("POST /x HTTP/1.1", HOST, "X: a\nContent-Length: 40"),
    "a bare CR in a field": head("POST /x HTTP/1.1", HOST, "X: a\rContent-Length: 40"),
    "a NUL in a field": head("POST /x HTTP/1.1", HOST, "X: a\x00b"),
    "a field without a colon": head("POST /x HTTP/1.1", HOST, "nonsense"),
    "a field without a name": head("POST /x HTTP/1.1", HOST, ": x"),
    "a space in a field's name": head("POST /x HTTP/1.1", HOST, "X Y: x"),
    "a space before the first field": b"POST /x HTTP/1.1\r\n Host: allowed.test\r\n\r\n",
    "another version": head("POST /x HTTP/1.2", HOST),
    "version two": head("POST /x HTTP/2.0", HOST),
    "a short version": head("POST /x HTTP/1", HOST),
    "no version": b"GET /x\r\n\r\n",
    "spaces in the start": head("POST  /x  HTTP/1.1", HOST),
    "a tab in the start": head("POST\t/x HTTP/1.1", HOST),
    "a space in the target": head("POST /x y HTTP/1.1", HOST),
    "a control in the target": head("POST /x\x01y HTTP/1.1", HOST),
    "a raw byte in the target": head("POST /x\xffy HTTP/1.1", HOST),
    "a fragment": head("POST /x#y HTTP/1.1", HOST),
    "no slash": head("POST x HTTP/1.1", HOST),
    "a method of other characters": head("PO(ST /x HTTP/1.1", HOST),
    "a chunk size with a sign": head("POST /x HTTP/1.1", HOST, "Transfer-Encoding: chunked")
    + b"+5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with a prefix": head("POST /x HTTP/1.1", HOST, "Transfer-Encoding: chunked")
    + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with a space": head("POST /x HTTP/1.1", HOST, "Transfer-Encoding: chunked")
    + b" 5\r\nhello\r\n0\r\n\r\n",
    "a chunk size too large": head("POST /x HTTP/1.1", HOST, "Transfer-Encoding: chunked")
    + b"fffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
    "a chunk without an end": head("POST /x HTTP/1.1", HOST, "Transfer-Encoding: chunked")
    + b"5\r\nhelloXX0\r\n\r\n",
    "a bare LF after a chunk's size": head("POST /x HTTP/1.1", HOST, "Transfer-Encoding: chunked")
    + b"5\nhello\r\n0\r\n\r\n",
    "a bare LF in a chunk's extension": head("POST /x HTTP/1.1", HOST, "Transfer-Encoding: chunked")
    + b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "a forbidden trailer": head("POST /x HTTP/1.1", HOST, "Transfer-Encoding: chunked")
    + b"0\r\nContent-Length: 40\r\n bad\r\n\r\n",
}


@pytest.mark.parametrize("request_", SPLITS.values(), ids=SPLITS.keys())
def test_a_request_that_can_be_read_in_two_ways_is_refused_whole(
    proxy: Proxy, internet: Internet, request_: bytes
) -> None:
    with internet.watch() as seen, proxy.tunnel("allowed.test:443") as tunnel:
        tunnel.send(request_ + SMUGGLED.encode())
        answer = tunnel.read()
        rest = tunnel.read_rest()

    assert (answer.status, rest) == (400, b"")
    # A broken chunk may come after a good head has left; nothing after it may be a request.
    assert "/smuggled" not in seen.targets()
    assert not any(exchange.complete and exchange.body_bytes for exchange in seen.exchanges)


def test_a_body_with_a_request_in_it_stays_a_body(proxy: Proxy, internet: Internet) -> None:
    body = SMUGGLED.encode()
    chunked = head("GET /echo HTTP/1.1", HOST, "Transfer-Encoding: chunked")
    data = chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)

    with internet.watch() as seen, proxy.tunnel("allowed.test:443") as tunnel:
        tunnel.send(data)
        answer = tunnel.read()

    assert answer.status in {200, 400}
    assert "/smuggled" not in seen.targets()
    assert len(seen.exchanges) == (answer.status == 200)


def test_every_request_on_a_kept_connection_is_judged(proxy: Proxy, internet: Internet) -> None:
    with internet.watch() as seen, proxy.tunnel("allowed.test:443") as tunnel:
        first = tunnel.get("/first")
        second = tunnel.get("/forbidden/second")

    assert (first.status, second.status, second.reason) == (200, 403, "deny-rule")
    assert seen.targets() == ["/first"]


def test_pipelined_requests_are_each_judged_and_answered_in_order(
    proxy: Proxy, internet: Internet
) -> None:
    targets = ["/one", "/status/404", "/three"]
    asked = [*targets, "/forbidden/x"]
    requests = b"".join(head(f"GET {target} HTTP/1.1", HOST) for target in asked)

    with internet.watch() as seen, proxy.tunnel("allowed.test:443") as tunnel:
        tunnel.send(requests)
        statuses = [tunnel.read().status for _ in asked]

    assert statuses == [200, 404, 200, 403]
    assert seen.targets() == targets


METHODS = ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "get", "Get", "HEAD2", "TRACE"]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_is_not_listed_is_denied(
    proxy: Proxy, internet: Internet, method: str
) -> None:
    with internet.watch() as seen, proxy.tunnel("read-only.test:443") as tunnel:
        answer = tunnel.request(method, "/x")

    assert answer.status in {400, 403}
    assert seen.exchanges == []


@pytest.mark.parametrize("field", OVERRIDES)
@pytest.mark.parametrize(("host", "path"), [("read-only.test", "/x"), ("paths.test", "/ok/x")])
def test_an_override_of_what_was_judged_does_not_arrive(
    proxy: Proxy, internet: Internet, host: str, path: str, field: str
) -> None:
    with internet.watch() as seen, proxy.tunnel(f"{host}:443") as tunnel:
        answer = tunnel.get(path, field)

    assert answer.status in {200, 400, 403}
    assert not any(exchange.header(field.partition(":")[0]) for exchange in seen.exchanges)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_is_not_plainly_allowed_is_denied(
    proxy: Proxy, internet: Internet, path: str
) -> None:
    with internet.watch() as seen, proxy.tunnel("paths.test:443") as tunnel:
        answer = tunnel.get(path)

    # Encodings that no server takes for a dot or a slash may pass as written; nothing may change.
    assert answer.status in {200, 400, 403}
    assert seen.targets() == ([path] if answer.status == 200 else [])
    if answer.status == 200:
        assert path.startswith("/ok/%")
        assert "%2e%2e" not in path.lower().replace("%252e", "")


@pytest.mark.parametrize("path", FORBIDDEN_SPELLINGS)
def test_a_denied_path_is_denied_in_every_spelling(
    proxy: Proxy, internet: Internet, path: str
) -> None:
    with internet.watch() as seen, proxy.tunnel("allowed.test:443") as tunnel:
        answer = tunnel.get(path)

    assert answer.status in {400, 403}
    assert seen.exchanges == []


def test_an_allowed_path_and_its_query_arrive_as_written(proxy: Proxy, internet: Internet) -> None:
    target = "/ok/a%20b/(c)'!?q=../x&r=%2e%2e//;\\\\"

    with internet.watch() as seen, proxy.tunnel("paths.test:443") as tunnel:
        answer = tunnel.get(target)

    assert answer.status in {200, 400}
    assert seen.targets() == ([target] if answer.status == 200 else [])


def test_encoded_slashes_arrive_as_written_where_paths_are_not_limited(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen, proxy.tunnel("other.test:443") as tunnel:
        tunnel.get("/@scope%2Fname//x/../y;z")

    assert seen.targets() == ["/@scope%2Fname//x/../y;z"]


def test_the_clients_field_order_and_case_arrive(proxy: Proxy, internet: Internet) -> None:
    fields = ["X-B: 1", "accept: */*", "X-A: 2", "uSER-aGENT: odd", "X-B: 3"]

    with internet.watch() as seen, proxy.tunnel("allowed.test:443") as tunnel:
        tunnel.get("/echo", *fields)

    names = [f"{name}: {value}" for name, value in seen.exchanges[0].headers]
    assert [name for name in names if not name.lower().startswith("host")] == fields


def test_what_is_between_client_and_proxy_does_not_arrive(proxy: Proxy, internet: Internet) -> None:
    with internet.watch() as seen, proxy.tunnel("allowed.test:443") as tunnel:
        tunnel.get(
            "/echo",
            "Proxy-Authorization: Basic c2VjcmV0",
            "Proxy-Connection: keep-alive",
            "Keep-Alive: timeout=5",
            "Connection: keep-alive, X-Named",
            "X-Named: only for the next hop",
            "TE: trailers",
            "X-Kept: yes",
        )

    names = {name.lower() for name, _ in seen.exchanges[0].headers}
    assert "x-kept" in names
    assert not names & {"proxy-authorization", "proxy-connection", "keep-alive", "x-named"}


def test_connection_cannot_name_a_field_that_was_judged(proxy: Proxy, internet: Internet) -> None:
    with internet.watch() as seen, proxy.tunnel("allowed.test:443") as tunnel:
        tunnel.send(
            head(
                "POST /echo HTTP/1.1", HOST, "Connection: Host, Content-Length", "Content-Length: 2"
            )
            + b"ok"
        )
        answer = tunnel.read("POST")

    if answer.status == 200:
        (exchange,) = seen.exchanges
        assert exchange.header("Host") == "allowed.test"
        assert exchange.body == b"ok"
    else:
        assert seen.exchanges == []


def test_the_host_in_the_tunnel_may_carry_the_default_port(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen, proxy.tunnel("allowed.test:443") as tunnel:
        answer = tunnel.request("GET", "/echo", host="Allowed.TEST.:443")

    assert answer.status == 200
    assert len(seen.exchanges) == 1


def test_a_request_of_http_1_0_gets_the_host_that_was_judged(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen:
        status = first_status(proxy, "allowed.test", head("GET /x HTTP/1.0"))

    assert status == 200
    assert seen.exchanges[0].header("Host") == "allowed.test"


def test_absolute_form_to_the_tunnels_own_host_goes_on_in_origin_form_or_not_at_all(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen:
        status = first_status(
            proxy, "allowed.test", head("GET https://allowed.test/x HTTP/1.1", HOST)
        )

    assert seen.targets() == (["/x"] if status == 200 else [])


def test_bytes_beyond_ascii_in_a_value_arrive_as_they_are(proxy: Proxy, internet: Internet) -> None:
    value = bytes(range(0x80, 0x100))

    with internet.watch() as seen, proxy.tunnel("allowed.test:443") as tunnel:
        tunnel.send(b"GET /echo HTTP/1.1\r\nHost: allowed.test\r\nX-Raw: " + value + b"\r\n\r\n")
        tunnel.read()

    assert b"X-Raw: " + value + b"\r\n" in seen.exchanges[0].head


TRAILERS = [
    "Host: denied.test",
    "Transfer-Encoding: chunked",
    "Content-Length: 9",
    "Authorization: x",
]


@pytest.mark.parametrize("trailer", TRAILERS)
def test_a_trailer_that_speaks_of_framing_or_routing_does_not_arrive(
    proxy: Proxy, internet: Internet, trailer: str
) -> None:
    request = head("POST /echo HTTP/1.1", HOST, "Transfer-Encoding: chunked")

    with internet.watch() as seen, proxy.tunnel("allowed.test:443") as tunnel:
        tunnel.send(request + f"1\r\nx\r\n0\r\n{trailer}\r\n\r\n".encode())
        answer = tunnel.read()

    assert answer.status in {200, 400}
    assert not any(exchange.trailers for exchange in seen.exchanges)


def test_a_switch_of_protocols_that_nobody_asked_for_is_a_502(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen, proxy.tunnel("broken.test:443") as tunnel:
        answer = tunnel.get("/switch")

    assert answer.status == 502
    assert "raw" not in answer.text()
    assert len(seen.exchanges) == 1


def test_an_upgrade_is_judged_like_any_request(proxy: Proxy, internet: Internet) -> None:
    fields = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )

    with internet.watch() as seen:
        for host, path in (("paths.test", "/web-socket"), ("allowed.test", "/forbidden/ws")):
            with proxy.tunnel(f"{host}:443") as tunnel:
                assert tunnel.get(path, *fields).status == 403

    assert seen.exchanges == []


def test_plain_requests_on_one_connection_each_go_to_their_own_host(
    proxy: Proxy, internet: Internet
) -> None:
    hosts = ["plain.test", "second-plain.test", "plain.test"]

    with internet.watch() as seen, Tunnel(proxy.connect(), "") as tunnel:
        for host in hosts:
            assert tunnel.request("GET", f"http://{host}/of/{host}", host=host).status == 200

    for exchange, host in zip(seen.exchanges, hosts, strict=True):
        assert exchange.header("Host") == host
        assert exchange.target == f"/of/{host}"
        assert exchange.arrival.address == internet.site(host)


def test_plain_http_is_judged_by_its_target_not_by_its_host(
    proxy: Proxy, internet: Internet
) -> None:
    requests = [
        head("GET http://denied.test/ HTTP/1.1", "Host: plain.test"),
        head("GET http://plain.test/ HTTP/1.1", "Host: denied.test"),
        head("GET http://plain.test:8080/ HTTP/1.1", "Host: plain.test:8080"),
        head("GET http://allowed.test/ HTTP/1.1", "Host: allowed.test"),
        head("GET http://allowed.test:443/ HTTP/1.1", "Host: allowed.test:443"),
        head("GET https://allowed.test/ HTTP/1.1", "Host: allowed.test"),
        head("GET ftp://plain.test/ HTTP/1.1", "Host: plain.test"),
        head("GET http://plain.test@denied.test/ HTTP/1.1", "Host: plain.test"),
        head("GET http://denied.test\\@plain.test/ HTTP/1.1", "Host: plain.test"),
        head("GET / HTTP/1.1", "Host: plain.test"),
        head("GET http:///x HTTP/1.1", "Host: plain.test"),
        head("DELETE http://read-only.test/ HTTP/1.1", "Host: read-only.test"),
        head("TRACE http://plain.test/ HTTP/1.1", "Host: plain.test"),
    ]

    for request in requests:
        with internet.watch() as seen, proxy.connect() as connection:
            connection.sendall(request)
            status = int(connection.recv(4096).split()[1])

        assert status in {400, 403}, request
        assert seen.nothing(), request


def test_a_connect_after_a_plain_request_is_judged_too(proxy: Proxy, internet: Internet) -> None:
    with internet.watch() as seen, Tunnel(proxy.connect(), "") as tunnel:
        first = tunnel.request("GET", "http://plain.test/first", host="plain.test")
        second = tunnel.request("CONNECT", "denied.test:443", host="denied.test:443")

    assert (first.status, second.status) == (200, 403)
    assert len(seen.dialled()) == 1


def test_what_follows_a_denied_connect_is_not_read(proxy: Proxy, internet: Internet) -> None:
    follow = head("GET http://plain.test/follows HTTP/1.1", "Host: plain.test")

    with internet.watch() as seen:
        answer = proxy.ask(
            head("CONNECT denied.test:443 HTTP/1.1", "Host: denied.test:443") + follow
        )

    assert answer.count(b"HTTP/1.1 ") == 1
    assert seen.nothing()


@pytest.mark.parametrize("field", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_a_connect_with_a_body_opens_nothing_that_can_be_misread(
    proxy: Proxy, internet: Internet, field: str
) -> None:
    request = head("CONNECT plain.test:80 HTTP/1.1", "Host: plain.test:80", field)
    inside = head("GET /smuggled HTTP/1.1", "Host: denied.test")

    with internet.watch() as seen, proxy.connect() as connection:
        connection.sendall(request + b"hello" + inside)
        connection.shutdown(socket.SHUT_WR)
        read_all(connection)

    assert seen.exchanges == []


def test_plain_http_to_an_allowed_host_is_forwarded_in_origin_form(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen, Tunnel(proxy.connect(), "plain.test:80") as tunnel:
        first = tunnel.request("GET", "http://plain.test/first?q=1", host="plain.test")
        second = tunnel.request("GET", "http://denied.test/second", host="denied.test")

    assert (first.status, second.status) == (200, 403)
    assert seen.targets() == ["/first?q=1"]
    assert seen.dialled() == {(seen.exchanges[0].arrival.address, 80)}


def test_a_tunnel_to_a_plain_port_opens_only_for_plain_http_that_is_allowed(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen:
        for first in (
            b"SSH-2.0-x\r\n",
            b"\x16\x03\x01\x00\x05hello",
            b"GET / HTTP/1.1\r\nHost: denied.test\r\n\r\n",
        ):
            with proxy.connect() as connection:
                connection.sendall(b"CONNECT plain.test:80 HTTP/1.1\r\nHost: plain.test:80\r\n\r\n")
                connection.recv(4096)
                connection.sendall(first)
                connection.shutdown(socket.SHUT_WR)
                read_all(connection)

    assert seen.exchanges == []
    assert not any(arrival.first for arrival in seen.arrivals)
