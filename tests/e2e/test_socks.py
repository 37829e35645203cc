"""By SOCKS5 the same laws hold as by HTTP, and the reply says what came of the dial."""

import contextlib
import json
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

from claude_proxy.wire.tls_alerts import ACCESS_DENIED
from tests.support.audit import Row
from tests.support.waiting import until

from .conftest import SHARED_ALLOWLIST, StartProxy
from .rig.client import CannotConnectError, Tunnel, open_tunnel
from .rig.corporate_proxy import PASSWORD, USER, CorporateProxy
from .rig.hello import client_hello, with_encrypted_hello, with_two_names
from .rig.internet import Internet
from .rig.proxy import LOOPBACK, Proxy, read_all
from .rig.socks import (
    BIND,
    DENIED,
    FAILED,
    GRANTED,
    GREETING,
    NO_ADDRESS,
    NO_COMMAND,
    NO_LOGIN,
    REFUSED,
    UDP,
    UNREACHABLE,
    SocksError,
    address_request,
    login,
    open_socks_tunnel,
    read_exactly,
    reply,
    request,
)

CANNOT_COMPLETE = 97  # curl's exit code for a proxy that says no
AUTH = "user:pass word"
WITH_LOGIN = "user:pass%20word"

type OpenTunnel = Callable[..., Tunnel]


def curl(
    proxy: Proxy, url: str, *options: str | Path, way: str | None = None, ca: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run curl with `socks5h` or another way in."""
    way = way or f"socks5h://{LOOPBACK}:{proxy.port}"
    arguments = ("-sS", "--max-time", "60", "--proxy", way, "--cacert", ca or proxy.ca_file)
    return proxy.place.run("curl", *arguments, *options, url)


def raw(proxy: Proxy, *pieces: bytes, half_close: bool = False) -> bytes:
    """Send pieces after the greeting and return all that follows its answer."""
    with proxy.connect() as connection:
        connection.sendall(GREETING + b"".join(pieces))
        with contextlib.suppress(OSError):
            if half_close:
                connection.shutdown(1)
        assert read_exactly(connection, 2) == NO_LOGIN
        return read_all(connection)


def decisions(proxy: Proxy) -> list[Row]:
    """Return every decision, the steps on the way too."""
    return [row for row in proxy.audit("--steps") if row.phase != "notice"]


@contextlib.contextmanager
def arrival_in_silence(internet: Internet) -> Iterator[None]:
    """Expect that a connection comes to the origin, and ends without a byte."""
    with internet.watch() as seen:
        before = len(internet.origin.arrivals)
        yield
        until(lambda: len(internet.origin.arrivals) > before, "the connection to arrive")
        internet.wait_until_all_closed()
    assert {arrival.first for arrival in seen.arrivals} == {b""}


# --- real curl


def test_curl_reaches_an_allowed_host_over_intercepted_tls(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen:
        ran = curl(proxy, "https://origin.test/echo", "-d", "by socks")

    assert json.loads(ran.stdout)["body"] == "by socks", ran.stderr
    assert len(seen.arrivals) == 1  # the connection that the reply told of is the one that is used
    row = proxy.outcome("origin.test:443", "/echo")
    assert (row.allowed, row.method, row.status) == (True, "POST", 200)


def test_curl_has_the_same_by_its_other_name(proxy: Proxy) -> None:
    ran = proxy.place.run(
        *("curl", "-sS", "--socks5-hostname", f"{LOOPBACK}:{proxy.port}"),
        *("--cacert", proxy.ca_file, "https://allowed.test/echo"),
    )

    assert json.loads(ran.stdout)["method"] == "GET", ran.stderr


def test_curl_speaks_http2_to_the_origin(proxy: Proxy, internet: Internet) -> None:
    with internet.watch() as seen:
        ran = curl(proxy, "https://h2.test/echo", "--http2", "-d", "by socks")

    assert json.loads(ran.stdout)["body"] == "by socks", ran.stderr
    assert [exchange.version for exchange in seen.exchanges] == ["HTTP/2"]
    assert len(seen.arrivals) == 1


def test_curl_speaks_plain_http_where_a_rule_says_so(proxy: Proxy, internet: Internet) -> None:
    with internet.watch() as seen:
        ran = curl(proxy, "http://plain.test/echo")

    assert json.loads(ran.stdout)["method"] == "GET", ran.stderr
    assert [arrival.port for arrival in seen.arrivals] == [80]


def test_curl_sees_the_certificate_of_a_passed_through_host(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen:
        ran = curl(proxy, "https://through.test/echo", ca=internet.pki.root_file)

    assert json.loads(ran.stdout)["method"] == "GET", ran.stderr
    assert len(seen.arrivals) == 1

    def ended() -> Row | None:
        row = [row for row in proxy.decisions("through.test:443") if row.method == "SOCKS"][-1]
        return row if row.duration_ms is not None else None

    row = until(ended, "the end of the tunnel to be in the log")
    assert row is not None
    assert (row.allowed, row.scheme, row.status) == (True, "tls", 200)


def test_curl_is_told_of_a_denial_and_no_name_is_asked_for(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen:
        ran = curl(proxy, "https://denied.test/")

    assert (ran.returncode, "(2)" in ran.stderr) == (CANNOT_COMPLETE, True), ran.stderr
    assert seen.nothing()
    row = proxy.decisions("denied.test:443")[-1]
    assert (row.allowed, row.reason, row.method) == (False, "no-rule", "SOCKS")


def test_a_denied_request_inside_a_tunnel_says_why(proxy: Proxy, internet: Internet) -> None:
    with internet.watch() as seen:
        ran = curl(proxy, "https://read-only.test/", "-X", "DELETE")

    assert "reason: method-not-allowed" in ran.stdout
    assert seen.exchanges == []
    internet.wait_until_all_closed()


def test_the_log_shows_what_came_by_socks(proxy: Proxy) -> None:
    curl(proxy, "https://denied.test/")
    curl(proxy, "https://through.test/echo", ca=proxy.internet.pki.root_file)

    shown = proxy.place.claude_proxy("log", "--limit", "1000").stdout

    lines = [line.split() for line in shown.splitlines()]
    assert ["Denied", "SOCKS", "denied.test:443"] in [line[2:5] for line in lines]
    assert ["Allowed", "SOCKS", "through.test:443"] in [line[2:5] for line in lines]


def test_curl_finds_the_proxy_on_a_unix_socket(start_proxy: StartProxy, tmp_path: Path) -> None:
    path = tmp_path / "door" / "proxy.sock"
    path.parent.mkdir(mode=0o700)
    proxy = start_proxy("allow: [allowed.test]\n", "--listen", f"unix:{path}")

    ran = curl(proxy, "https://allowed.test/echo", way=f"socks5h://localhost{path}")
    denied = curl(proxy, "https://denied.test/", way=f"socks5h://localhost{path}")

    assert json.loads(ran.stdout)["method"] == "GET", ran.stderr
    assert "(2)" in denied.stderr


# --- one decision, by whichever way in


TABLE = [
    # target, server name, method, path -> what is recorded last
    ("origin.test:443", "origin.test", "GET", "/echo", "rule-matched"),
    ("origin.test:443", "denied.test", "GET", "/", "sni-mismatch"),
    ("origin.test:80", None, "GET", "/", "port-not-allowed"),
    ("read-only.test:443", "read-only.test", "DELETE", "/", "method-not-allowed"),
    ("paths.test:443", "paths.test", "GET", "/ok/../secret", "ambiguous-path"),
    ("plain.test:80", None, "GET", "/echo", "rule-matched"),
    ("plain.test:80", "plain.test", "GET", "/", "scheme-not-allowed"),
    ("through.test:443", None, "GET", "/", "not-tls"),
    ("denied.test:443", "denied.test", "GET", "/", "no-rule"),
    ("127.1:443", None, "GET", "/", "invalid-target"),
    ("metadata-host.test:443", "metadata-host.test", "GET", "/", "address-not-allowed"),
]


def test_the_same_request_gets_the_same_decision_by_any_way_in(
    start_proxy: StartProxy, internet: Internet, tmp_path: Path
) -> None:
    internet.names.answer("metadata-host.test", ["169.254.169.254"])
    path = tmp_path / "door" / "proxy.sock"
    path.parent.mkdir(mode=0o700)
    rules = SHARED_ALLOWLIST.replace("deny:", "  - metadata-host.test\ndeny:")
    proxy = start_proxy(rules, "--listen", f"unix:{path}")

    def by_unix() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        connection.connect(str(path))
        return connection

    ways: dict[str, tuple[Callable[[], socket.socket], OpenTunnel]] = {
        "HTTP by TCP": (proxy.connect, open_tunnel),
        "SOCKS by TCP": (proxy.connect, open_socks_tunnel),
        "HTTP by a Unix socket": (by_unix, open_tunnel),
        "SOCKS by a Unix socket": (by_unix, open_socks_tunnel),
    }
    for target, name, method, asked, _ in TABLE:
        context = proxy.tls() if name else None
        for connect, open_ in ways.values():
            with (
                contextlib.suppress(OSError, CannotConnectError, SocksError, HTTPException),
                open_(connect(), target, context, server_name=name) as tunnel,
            ):
                tunnel.request(method, asked, host=target.removesuffix(":80"))

    # Each attempt had a connection of its own; what was decided last on it is what it came to.
    expected = [row[-1] for row in TABLE for _ in ways]

    def last_words() -> list[str]:
        return list({row.connection: row.reason for row in decisions(proxy)}.values())

    until(lambda: len(last_words()) >= len(expected), "every attempt to be in the audit")
    assert last_words() == expected
    internet.wait_until_all_closed()


# --- the request


UNREADABLE = {
    "nothing": b"",
    "a NUL": b"allowed.test\x00.denied.test",
    "a NUL before": b"denied.test\x00.allowed.test",
    "a NUL at the end": b"allowed.test\x00",
    "CR and LF": b"allowed.test\r\nx",
    "percent": b"allowed%2etest",
    "a space": b" allowed.test",
    "254 bytes": b"a." * 125 + b"test",
    "255 bytes": b"a" * 250 + b".test",
    "brackets": b"[allowed.test]",
    "an address in brackets": b"[2600:1f18::99]",
    "a zone id": b"2600:1f18::99%eth0",
    "octal": b"0135.190.1.1",
    "short": b"93.190.257",
    "one number": b"1572733185",
    "hexadecimal": b"0x5dbe0101",
    "mapped": b"::ffff:93.190.1.1",
    "a port": b"allowed.test:443",
    "not ASCII": "bücher.test".encode(),
    "full-width": "ａllowed.test".encode(),
}


@pytest.mark.parametrize("name", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_name_with_more_than_one_meaning_is_denied_without_a_look_up(
    proxy: Proxy, internet: Internet, name: bytes
) -> None:
    with internet.watch() as seen:
        answer = raw(proxy, request(name, 443))

    assert answer == reply(DENIED)
    assert seen.nothing()


@pytest.mark.parametrize(
    "asked",
    [
        address_request("93.190.1.2", 443),
        address_request("169.254.169.254", 80),
        address_request("127.0.0.1", 443),
        address_request("::1", 443),
        address_request("::ffff:93.190.1.1", 443),
        address_request("64:ff9b::5dbe:101", 443),
        request("93.190.1.2:443"),
        request("127.0.0.1:443"),
        request("localhost:443"),
        request("allowed.test:8443"),
        request("allowed.test", 0),
        request("notallowed.test:443"),
        request("allowed.test.denied.test:443"),
    ],
)
def test_what_no_rule_names_is_denied_without_a_look_up(
    proxy: Proxy, internet: Internet, asked: bytes
) -> None:
    with internet.watch() as seen:
        answer = raw(proxy, asked)

    assert answer == reply(DENIED)
    assert seen.nothing()


@pytest.mark.parametrize("address", ["93.190.1.1", "2600:1f18::99"])
def test_an_address_is_the_same_in_either_form(
    proxy: Proxy, internet: Internet, address: str
) -> None:
    for asked in (address_request(address, 443), request(address.encode(), 443)):
        with internet.watch() as seen, arrival_in_silence(internet), proxy.connect() as connection:
            connection.sendall(GREETING + asked)
            answer = read_exactly(connection, 12)

        assert answer == NO_LOGIN + reply(GRANTED)
        assert seen.names == []


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (request("allowed.test:443", command=BIND), NO_COMMAND),
        (request("allowed.test:443", command=UDP), NO_COMMAND),
        (request("allowed.test:443", command=0xF0), NO_COMMAND),
        (b"\x05\x01\x00\x02\x7f\x00\x00\x01\x01\xbb", NO_ADDRESS),
        (b"\x05\x01\x00\x00", NO_ADDRESS),
        (b"\x05\x01\xff\x03", FAILED),
        (b"\x04\x01\x01\xbb", FAILED),
        (b"CONNECT allowed.test:443 HTTP/1.1\r\n\r\n", FAILED),
    ],
)
def test_what_is_not_done_is_told(
    proxy: Proxy, internet: Internet, asked: bytes, code: int
) -> None:
    with internet.watch() as seen:
        answer = raw(proxy, asked)

    assert answer == reply(code)
    assert seen.nothing()


# --- the reply


def test_the_reply_tells_how_a_dial_failed(start_proxy: StartProxy, internet: Internet) -> None:
    internet.names.answer("silent.test", ["93.202.0.1"])
    internet.names.answer("far.test", ["93.203.0.1"])
    internet.names.answer("inward.test", ["169.254.169.254"])
    internet.names.answer("mixed-inward.test", ["93.190.1.1", "10.0.0.1"])
    internet.namespace.run(["ip", "route", "replace", "blackhole", "93.202.0.0/24"])
    internet.host.run(["ip", "route", "replace", "unreachable", "93.203.0.0/24"])
    names = "silent.test, far.test, inward.test, mixed-inward.test, no-such-name.test"
    rules = f"allow: [{names}, {{host: refusing.test, ports: [9999]}}]\n"
    proxy = start_proxy(rules, "--connect-timeout", "3s")

    targets = ("silent", "far", "inward", "mixed-inward", "no-such-name")
    codes = {name: raw(proxy, request(f"{name}.test:443")) for name in targets}
    codes["refusing"] = raw(proxy, request("refusing.test:9999"))

    assert codes == {
        "silent": reply(UNREACHABLE),
        "far": reply(UNREACHABLE),
        "inward": reply(DENIED),
        "mixed-inward": reply(DENIED),
        "no-such-name": reply(UNREACHABLE),
        "refusing": reply(REFUSED),
    }

    def words_of_failed() -> dict[str, str]:
        rows = [row for row in decisions(proxy) if row.error is not None]
        return {row.host.removesuffix(".test"): row.error for row in rows}

    until(lambda: len(words_of_failed()) == len(codes), "every dial's end to be in the log")
    words = words_of_failed()
    assert words["refusing"] == "connect-refused"
    assert words["no-such-name"] == "dns-failed"
    assert words["silent"] == "connect-timeout"


def test_curl_is_told_that_a_host_refuses(proxy: Proxy) -> None:
    ran = curl(proxy, "https://refusing.test:9999/")

    assert (ran.returncode, "(5)" in ran.stderr) == (CANNOT_COMPLETE, True), ran.stderr


LOOPS = {
    "a name": ("myself.test", "{host: myself.test, ports: [$PORT], addresses: [127.0.0.0/8]}"),
    "an address": ("10.99.0.2", "{host: 10.99.0.2, ports: [$PORT]}"),
}


@pytest.mark.parametrize(("host", "rule"), LOOPS.values(), ids=LOOPS.keys())
def test_what_leads_back_to_the_proxy_makes_no_loop_although_it_is_listed(
    start_proxy: StartProxy, internet: Internet, host: str, rule: str
) -> None:
    internet.names.answer("myself.test", ["127.0.0.1"])
    proxy = start_proxy(f"allow: [{rule}]\n", "--host", "0.0.0.0", "--allow-remote")

    assert raw(proxy, request(f"{host}:{proxy.port}")) == reply(DENIED)


# --- inside the tunnel


@pytest.mark.parametrize("host", ["allowed.test", "through.test"])
@pytest.mark.parametrize(
    "first",
    [
        client_hello("denied.test"),
        client_hello("other.test"),
        client_hello(None),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        GREETING + request("allowed.test:443"),
        b"\x00" * 600,
        b"\x16\x03\x01\xff\xff" + bytes(70_000),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_what_disagrees_or_is_no_tls_sends_nothing(
    proxy: Proxy, internet: Internet, host: str, first: bytes, *, together: bool
) -> None:
    with arrival_in_silence(internet), proxy.connect() as connection:
        if together:
            connection.sendall(GREETING + request(f"{host}:443") + first)
            answer = read_exactly(connection, 12)
        else:
            connection.sendall(GREETING + request(f"{host}:443"))
            answer = read_exactly(connection, 12)
            connection.sendall(first)
        rest = read_all(connection)

    assert answer == NO_LOGIN + reply(GRANTED)
    assert rest[:1] in {b"", b"\x15"}  # nothing, or an alert


@pytest.mark.parametrize("host", ["allowed.test", "through.test"])
def test_a_hello_of_two_minds_sends_nothing(proxy: Proxy, internet: Internet, host: str) -> None:
    honest = client_hello(host)
    hidden = with_encrypted_hello(client_hello(host if host == "through.test" else "denied.test"))
    for hello in (hidden, with_two_names(honest, "denied.test")):
        with arrival_in_silence(internet):
            answer = raw(proxy, request(f"{host}:443"), hello)

        assert answer.startswith(reply(GRANTED))


def test_a_forged_host_inside_is_denied(proxy: Proxy, internet: Internet) -> None:
    with open_socks_tunnel(proxy.connect(), "allowed.test:443", proxy.tls()) as tunnel:
        with internet.watch() as seen:
            forged = tunnel.request("GET", "/", host="other.test")
        honest = tunnel.get("/echo")

    assert (forged.status, forged.reason) == (403, "host-mismatch")
    assert seen.exchanges == []
    assert honest.status == 200


def test_a_greeting_a_request_and_a_hello_may_come_in_one_packet(
    proxy: Proxy, internet: Internet
) -> None:
    with arrival_in_silence(internet), proxy.connect() as connection:
        connection.sendall(GREETING + request("allowed.test:443") + client_hello("allowed.test"))
        answer = read_exactly(connection, 13)

    assert answer == NO_LOGIN + reply(GRANTED) + b"\x16"


def test_bytes_are_clean_in_a_passed_through_tunnel(proxy: Proxy, internet: Internet) -> None:
    context = ssl.create_default_context(cafile=internet.pki.root_file)
    body = bytes(range(256)) * 4096

    with open_socks_tunnel(proxy.connect(), "through.test:443", context) as tunnel:
        answer = tunnel.request("POST", "/sink", body=body)

    assert answer.status == 200
    exchange = [seen for seen in internet.origin.exchanges if seen.target == "/sink"][-1]
    assert exchange.body_bytes == len(body)


def test_plain_http_may_come_along_and_the_client_say_no_more(
    proxy: Proxy, internet: Internet
) -> None:
    ask = b"GET /echo HTTP/1.1\r\nHost: plain.test\r\n\r\n"

    with internet.watch() as seen:
        answer = raw(proxy, request("plain.test:80"), ask, half_close=True)

    assert answer.startswith(reply(GRANTED) + b"HTTP/1.1 200 OK\r\n")
    assert len(seen.exchanges) == 1


@pytest.mark.parametrize("host", ["allowed.test", "through.test"])
def test_a_client_that_leaves_takes_the_upstream_along(
    proxy: Proxy, internet: Internet, host: str
) -> None:
    with arrival_in_silence(internet):
        open_socks_tunnel(proxy.connect(), f"{host}:443").close()


# --- time


@pytest.mark.parametrize("protocol", ["socks", "unfinished", "one byte"])
def test_a_handshake_that_stands_still_is_closed(start_proxy: StartProxy, protocol: str) -> None:
    proxy = start_proxy("allow: [allowed.test]\n", "--head-timeout", "300ms")
    sent = {
        "socks": GREETING,
        "unfinished": GREETING + request("allowed.test:443")[:-1],
        "one byte": b"\x05",
    }

    with proxy.connect() as connection:
        connection.sendall(sent[protocol])
        answer = read_all(connection)

    assert answer in {b"", NO_LOGIN}


def test_a_tunnel_that_stands_still_is_closed_with_its_upstream(
    start_proxy: StartProxy, internet: Internet
) -> None:
    proxy = start_proxy("allow: [allowed.test]\n", "--handshake-timeout", "300ms")

    with arrival_in_silence(internet):
        answer = raw(proxy, request("allowed.test:443"))

    assert answer == reply(GRANTED)


@pytest.mark.parametrize(
    "first",
    [
        b"\x04\x01\x01\xbb\x00\x00\x00\x01me\x00allowed.test\x00",
        b"\x00",
        b"\x06\x01\x00",
    ],
)
def test_what_is_none_of_the_protocols_gets_an_answer(proxy: Proxy, first: bytes) -> None:
    assert proxy.ask(first).startswith(b"HTTP/1.1 400 ")


def test_tls_to_the_proxy_itself_gets_an_alert(proxy: Proxy) -> None:
    assert proxy.ask(client_hello(LOOPBACK)) == ACCESS_DENIED


# --- credentials


@pytest.fixture
def guarded(start_proxy: StartProxy) -> Proxy:
    """A proxy that lets in who knows the password."""
    rules = "allow: [origin.test, {host: plain.test, scheme: http, ports: [80]}]\n"
    return start_proxy(rules, CLAUDE_PROXY_AUTH=AUTH)


@pytest.mark.parametrize("way", ["socks5h", "http"])
@pytest.mark.parametrize("url", ["https://origin.test/echo", "http://plain.test/echo"])
def test_curl_is_let_in_with_the_right_password(
    guarded: Proxy, internet: Internet, way: str, url: str
) -> None:
    door = f"{way}://{WITH_LOGIN}@{LOOPBACK}:{guarded.port}"

    with internet.watch() as seen:
        ran = curl(guarded, url, way=door)

    assert json.loads(ran.stdout)["method"] == "GET", ran.stderr
    assert seen.exchanges[0].header("Proxy-Authorization") is None
    assert "pass" not in "".join(map(str, guarded.audit("--steps"))) + guarded.stdout()


@pytest.mark.parametrize("way", ["socks5h", "http"])
@pytest.mark.parametrize("who", ["", "user:wrong@", "user:@", "other:pass%20word@"])
def test_curl_is_turned_away_without_it(
    guarded: Proxy, internet: Internet, way: str, who: str
) -> None:
    with internet.watch() as seen:
        tunnelled = curl(
            guarded, "https://origin.test/", way=f"{way}://{who}{LOOPBACK}:{guarded.port}"
        )
        plain = curl(
            *(guarded, "http://plain.test/", "-w", "%{http_code}"),
            way=f"{way}://{who}{LOOPBACK}:{guarded.port}",
        )

    assert tunnelled.returncode != 0
    assert plain.returncode != 0 or "407" in plain.stdout
    assert seen.nothing()
    rows = decisions(guarded)
    assert {row.reason for row in rows} == {"client-not-authenticated"}
    assert {row.phase for row in rows} == {"client"}


def test_curl_tries_again_on_the_same_connection(guarded: Proxy) -> None:
    ran = curl(
        *(guarded, "http://plain.test/echo", "--proxy-anyauth"),
        way=f"http://{WITH_LOGIN}@{LOOPBACK}:{guarded.port}",
    )

    assert json.loads(ran.stdout)["method"] == "GET", ran.stderr
    first, second = decisions(guarded)
    assert (first.reason, second.reason) == ("client-not-authenticated", "rule-matched")
    assert first.connection == second.connection


def test_curl_tries_again_for_a_tunnel_too(guarded: Proxy) -> None:
    ran = curl(
        *(guarded, "https://origin.test/echo", "--proxy-anyauth"),
        way=f"http://{WITH_LOGIN}@{LOOPBACK}:{guarded.port}",
    )

    assert json.loads(ran.stdout)["method"] == "GET", ran.stderr


def test_a_socks_client_that_offers_no_password_is_told_so(guarded: Proxy) -> None:
    assert guarded.ask(GREETING + request("origin.test:443")) == b"\x05\xff"
    assert guarded.ask(b"\x05\x01\x02" + login("user", "wrong")) == b"\x05\x02\x01\x01"


def test_a_password_that_nobody_asked_for_is_no_hindrance(proxy: Proxy) -> None:
    for way in ("socks5h", "http"):
        door = f"{way}://any:thing@{LOOPBACK}:{proxy.port}"
        ran = curl(proxy, "https://allowed.test/echo", way=door)

        assert json.loads(ran.stdout)["method"] == "GET", ran.stderr
    insisting = b"\x05\x01\x02" + login("any", "thing") + request("denied.test:443")
    assert proxy.ask(insisting) == b"\x05\x02\x01\x00" + reply(DENIED)


# --- through a corporate proxy

CORPORATE = ("93.187.0.1", 3128)


@pytest.fixture(scope="module")
def corporate(internet: Internet) -> Iterator[CorporateProxy]:
    """The company's proxy."""
    hosts = ("origin.test", "plain.test", "through.test")
    names = {host: internet.site(host) for host in hosts}
    proxy = CorporateProxy(internet.namespace, *CORPORATE, names)
    yield proxy
    proxy.close()


def test_a_corporate_proxy_is_asked_once_and_its_answer_told(
    start_proxy: StartProxy, corporate: CorporateProxy, internet: Internet
) -> None:
    host, port = CORPORATE
    password = PASSWORD.replace(" ", "%20")
    proxy = start_proxy(
        "allow: [origin.test, unknown.test, {host: through.test, tls: passthrough},"
        " {host: plain.test, scheme: http, ports: [80]}]\n",
        CLAUDE_PROXY_UPSTREAM_PROXY=f"http://{USER}:{password}@{host}:{port}",
    )

    with internet.watch() as seen:
        ran = [
            curl(proxy, "https://origin.test/echo"),
            curl(proxy, "https://through.test/echo", ca=internet.pki.root_file),
            curl(proxy, "http://plain.test/echo"),
        ]
        unknown = raw(proxy, request("unknown.test:443"))

    assert [json.loads(one.stdout)["method"] for one in ran] == ["GET"] * 3
    assert unknown == reply(FAILED)
    assert seen.names == []
    assert [head.split(b" HTTP")[0] for head in corporate.heads] == [
        b"CONNECT origin.test:443",
        b"CONNECT through.test:443",
        b"GET http://plain.test/echo",
        b"CONNECT unknown.test:443",
    ]
