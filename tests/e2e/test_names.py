"""No spelling of a target leads past the list: what is denied is neither looked up nor dialled."""

import socket

import pytest

from tests.support.waiting import until

from .rig.client import connect_head
from .rig.hello import client_hello
from .rig.internet import Internet
from .rig.origin import Arrival
from .rig.proxy import Proxy, read_all

LOOKALIKES = [
    "allowed.test.denied.test",
    "notallowed.test",
    "xallowed.test",
    "allowed.test.",  # with a port that is not allowed, below
    "allowed-test",
    "allowed",
    "test",
    "wild.test",  # the pattern "*.wild.test" is about its subdomains
    "xwild.test",
    ".wild.test",
    "*.wild.test",
    "denied.test.",
    "DENIED.TEST",
    "xn--llowed-4nf.test",  # its first letter is Cyrillic
]

ADDRESSES = [
    "1.1.1.1",
    "93.190.1.2",  # the neighbour of one that is listed
    "127.0.0.1",
    "169.254.169.254",
    "0.0.0.0",
    "2130706433",
    "2852039166",
    "0x7f.1",
    "0x7f000001",
    "127.1",
    "0177.0.0.1",
    "010.0.0.1",
    "93.190.1.1.",
    "93.190.257",
    "0x5d.190.1.1",  # the listed address in another spelling
    "[::1]",
    "[::]",
    "[::ffff:169.254.169.254]",
    "[::ffff:93.190.1.1]",
    "[::ffff:5dbe:101]",
    "[::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1%25eth0]",
    "[fe80::1%eth0]",
    "[::1%25x.allowed.test]",
    "[fd99::1]",
]

UNREADABLE = [
    b"[denied.test]:443",
    b"[allowed.test]:443",
    b"allowed.test",
    b"allowed.test:",
    b":443",
    b"allowed.test:0",
    b"allowed.test:0443",
    b"allowed.test:+443",
    b"allowed.test:65979",  # 443 modulo 65536
    b"allowed.test:443:443",
    b"allowed.test:443/",
    b"allowed.test:443?x",
    b"allowed.test:443#x",
    b"allowed.test:4 43",
    b"allowed.test:\xef\xbc\x94\xef\xbc\x94\xef\xbc\x93",
    b"user@allowed.test:443",
    b"denied.test@allowed.test:443",
    b"allowed.test@denied.test:443",
    b"https://allowed.test:443",
    b"//allowed.test:443",
    b"allowed.test%00.denied.test:443",
    b"denied.test%00.allowed.test:443",
    b"denied.test\x00.allowed.test:443",
    b"denied.test\x00.wild.test:443",
    b"denied.test\t.wild.test:443",
    b"denied.test%2f.wild.test:443",
    b"denied.test\\.wild.test:443",
    b"denied.test/.wild.test:443",
    b"denied.test#.wild.test:443",
    b"denied.test?.wild.test:443",
    b"denied.test;.wild.test:443",
    b"denied.test,.wild.test:443",
    b"denied.test\x7f.wild.test:443",
    b"denied.test\x1b[2J.wild.test:443",
    b"-.wild.test:443",
    b"a..wild.test:443",
    b"..wild.test:443",
    b"one.wild.test..:443",
    b"x" * 64 + b".wild.test:443",
    b".".join([b"x" * 50] * 6) + b".wild.test:443",
    "\u0430llowed.test:443".encode(),  # Cyrillic, raw
    "allowed\u3002test:443".encode(),  # an ideographic full stop
    "\uff11\uff12\uff17.0.0.1:443".encode(),  # full-width digits
    b"xn--.wild.test:443",
    b"127.0.0.1%20:443",
    b"[::1:443",
    b"::1:443",
    b"[]:443",
    b"[::1]443",
    b"[::1]]:443",
    b"[::ffff:0x7f.1]:443",
    b"*:443",
]


def answered(proxy: Proxy, head: bytes) -> int:
    """Return the status of the answer to raw bytes."""
    with proxy.connect() as connection:
        connection.sendall(head)
        line = b""
        while b"\r\n" not in line and (piece := connection.recv(4096)):
            line += piece
    return int(line.split()[1])


@pytest.mark.parametrize("name", LOOKALIKES)
def test_a_name_like_an_allowed_one_is_denied(proxy: Proxy, internet: Internet, name: str) -> None:
    port = 444 if name == "allowed.test." else 443

    with internet.watch() as seen:
        status = answered(proxy, connect_head(f"{name}:{port}"))

    assert status in {400, 403}
    assert seen.nothing()


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_denied_unless_listed_as_it_is_spelled(
    proxy: Proxy, internet: Internet, address: str
) -> None:
    with internet.watch() as seen:
        status = answered(proxy, connect_head(f"{address}:443"))

    assert status in {400, 403}
    assert seen.nothing()


@pytest.mark.parametrize("target", UNREADABLE)
def test_a_target_that_cannot_be_read_in_one_way_is_refused(
    proxy: Proxy, internet: Internet, target: bytes
) -> None:
    with internet.watch() as seen:
        status = answered(proxy, b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, target))

    assert status in {400, 403}
    assert seen.nothing()


@pytest.mark.parametrize("port", [22, 80, 444, 8443, 53, 65535])
def test_another_port_of_an_allowed_host_is_denied(
    proxy: Proxy, internet: Internet, port: int
) -> None:
    with internet.watch() as seen:
        status = answered(proxy, connect_head(f"allowed.test:{port}"))

    assert status == 403
    assert seen.nothing()


@pytest.mark.parametrize("target", ["Allowed.TEST:443", "allowed.test.:443", "ALLOWED.test.:443"])
def test_case_and_one_trailing_dot_do_not_matter(
    proxy: Proxy, internet: Internet, target: str
) -> None:
    with internet.watch() as seen, proxy.tunnel(target, server_name="allowed.test") as tunnel:
        answer = tunnel.get("/echo")

    assert answer.status == 200
    assert seen.targets() == ["/echo"]


def test_every_depth_below_a_wildcard_is_allowed(proxy: Proxy, internet: Internet) -> None:
    internet.site("two.one.wild.test")

    for name in ("one.wild.test", "two.one.wild.test"):
        with proxy.tunnel(f"{name}:443") as tunnel:
            assert tunnel.get("/").status == 200


def test_a_listed_port_is_dialled(proxy: Proxy, internet: Internet) -> None:
    with internet.watch() as seen, proxy.tunnel("ports.test:8443") as tunnel:
        answer = tunnel.get("/echo")

    assert answer.status == 200
    assert {port for _, port in seen.dialled()} == {8443}


def test_a_listed_address_is_dialled(proxy: Proxy, internet: Internet) -> None:
    # No certificate of the origin's is for an address, so TLS with it fails: the dial is the fact.
    with internet.watch() as seen:
        answered(proxy, connect_head("93.190.1.1:443"))
        with proxy.connect() as connection:
            connection.sendall(connect_head("93.190.1.1:443"))
            assert b" 200 " in connection.recv(4096)
            context = proxy.tls()
            with context.wrap_socket(connection, server_hostname="93.190.1.1") as stream:
                stream.sendall(b"GET / HTTP/1.1\r\nHost: 93.190.1.1\r\n\r\n")
                assert b" 502 " in stream.recv(4096)

    assert seen.dialled() == {("93.190.1.1", 443)}
    assert seen.names == []


def test_a_listed_ipv6_address_is_dialled(proxy: Proxy, internet: Internet) -> None:
    target = "[2600:1f18::99]:443"

    with internet.watch() as seen, proxy.tunnel(target) as tunnel:
        answer = tunnel.get("/")

    assert answer.status == 502  # as above
    assert seen.dialled() == {("2600:1f18::99", 443)}


def test_an_address_inside_a_listed_network_is_dialled_and_no_other(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen:
        with proxy.tunnel("10.30.7.7:443") as tunnel:
            tunnel.get("/")
        statuses = [
            answered(proxy, connect_head(f"{a}:443")) for a in ("10.31.0.1", "10.29.255.255")
        ]

    assert statuses == [403, 403]
    assert seen.dialled() == {("10.30.7.7", 443)}


def test_an_address_with_an_allowed_server_name_is_not_dialled(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen:
        for address in ("93.190.1.1", "10.30.7.7"):
            with proxy.connect() as connection:
                connection.sendall(connect_head(f"{address}:443") + client_hello("allowed.test"))
                read_all(connection)

    assert seen.nothing()


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_an_international_name_is_reached_by_its_ascii_form(
    proxy: Proxy, internet: Internet, protocol: str
) -> None:
    option = "--http2" if protocol == "h2" else "--http1.1"

    with internet.watch() as seen:
        ran = proxy.place.run(
            "curl", "-sS", option, "https://xn--bcher-kva.test/echo", environment=proxy.env()
        )

    assert seen.targets() == ["/echo"], ran.stdout + ran.stderr
    assert set(seen.names) <= {"xn--bcher-kva.test"}  # it may be remembered


def test_a_trap_on_this_host_is_never_touched(proxy: Proxy, internet: Internet) -> None:
    trap = internet.host.listen("127.0.0.1", 443)
    trap.settimeout(0)

    with trap:
        for target in ("127.0.0.1:443", "localhost:443", "127.1:443", "[::ffff:127.0.0.1]:443"):
            answered(proxy, connect_head(target))

        with pytest.raises(BlockingIOError):
            trap.accept()


def test_every_refused_target_is_in_the_audit_log(proxy: Proxy) -> None:
    def denials() -> int:
        rows = [row for row in proxy.audit() if row.fields.get("phase") == "connect"]
        return sum(row.fields.get("count", 1) for row in rows if not row.allowed)

    before = denials()
    targets = [f"{name}:443" for name in LOOKALIKES] + [f"{address}:443" for address in ADDRESSES]

    for target in targets:
        answered(proxy, connect_head(target))

    # "allowed.test." is allowed on this port.
    until(lambda: denials() - before >= len(targets) - 1, "all denials")


def test_a_hidden_arrival_would_be_seen(internet: Internet) -> None:
    """The judge itself is tested: a connection that does leave is seen in every way."""
    with internet.watch() as seen:
        connection = internet.host.connect("93.190.9.9", 80)
        connection.sendall(b"GET /leak HTTP/1.0\r\n\r\n")
        connection.recv(1)
        connection.close()
        datagram = internet.host.new_socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagram.sendto(b"leak", ("8.8.8.8", 53))
        datagram.close()

    assert seen.dialled() == {("93.190.9.9", 80)}
    assert [packet.address for packet in seen.packets] == ["93.190.9.9", "8.8.8.8"]
    assert seen.targets() == ["/leak"]
    assert isinstance(seen.arrivals[0], Arrival)
