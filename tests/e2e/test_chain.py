"""Through a corporate proxy the same laws hold, and its password is seen by it alone."""

from collections.abc import Iterator

import pytest

from .conftest import StartProxy
from .rig.client import CannotConnectError, connect_head
from .rig.corporate_proxy import PASSWORD, USER, CorporateProxy
from .rig.hello import client_hello
from .rig.internet import Internet
from .rig.proxy import Proxy, read_all

ADDRESS, PORT = "93.186.0.1", 3128
RULES = """\
allow:
  - inside.test
  - exempt.test
  - {host: through.test, tls: passthrough}
  - {host: plain.test, scheme: http, ports: [80]}
  - 10.1.2.3
"""


@pytest.fixture(scope="module")
def corporate(internet: Internet) -> Iterator[CorporateProxy]:
    """The company's proxy; only it can resolve the company's names."""
    plain = internet.site("plain.test")
    through = internet.site("through.test")
    names = {"inside.test": "10.50.0.1", "plain.test": plain, "through.test": through}
    internet.site("exempt.test")
    internet.names.answer("corp-proxy.test", [ADDRESS])
    proxy = CorporateProxy(internet.namespace, ADDRESS, PORT, names)
    yield proxy
    proxy.close()


@pytest.fixture
def chained(start_proxy: StartProxy, corporate: CorporateProxy) -> Proxy:
    """A proxy behind the company's."""
    del corporate
    password = PASSWORD.replace(" ", "%20")
    return start_proxy(
        RULES,
        "--no-upstream-proxy",
        "exempt.test,10.0.0.0/8",
        CLAUDE_PROXY_UPSTREAM_PROXY=f"http://{USER}:{password}@corp-proxy.test:{PORT}",
    )


def test_an_allowed_host_is_reached_through_it(
    chained: Proxy, corporate: CorporateProxy, internet: Internet
) -> None:
    asked = len(corporate.heads)

    with internet.watch() as seen, chained.tunnel("inside.test:443") as tunnel:
        answer = tunnel.get("/echo", "Proxy-Authorization: Basic bXk6b3du")

    assert answer.status == 200
    assert seen.dialled() == {(ADDRESS, PORT)}
    assert set(seen.names) == {"corp-proxy.test"}
    (head,) = corporate.heads[asked:]
    assert head.startswith(b"CONNECT inside.test:443 HTTP/1.1\r\n")
    assert b"bXk6b3du" not in head
    assert seen.exchanges[0].header("Proxy-Authorization") is None


def test_a_denied_host_is_not_even_asked_of_it(
    chained: Proxy, corporate: CorporateProxy, internet: Internet
) -> None:
    asked = len(corporate.heads)

    with internet.watch() as seen, pytest.raises(CannotConnectError):
        chained.tunnel("denied.test:443")

    assert seen.nothing()
    assert corporate.heads[asked:] == []


def test_a_forged_server_name_does_not_reach_it(
    chained: Proxy, corporate: CorporateProxy, internet: Internet
) -> None:
    asked = len(corporate.heads)

    with internet.watch() as seen:
        for host in ("inside.test", "through.test"):
            with chained.connect() as connection:
                connection.sendall(connect_head(f"{host}:443"))
                connection.recv(4096)
                connection.sendall(client_hello("denied.test"))
                read_all(connection)

    assert seen.nothing()
    assert corporate.heads[asked:] == []


def test_an_exception_is_dialled_directly(
    chained: Proxy, corporate: CorporateProxy, internet: Internet
) -> None:
    asked = len(corporate.heads)

    with internet.watch() as seen, chained.tunnel("exempt.test:443") as tunnel:
        answer = tunnel.get("/echo")

    assert answer.status == 200
    assert (ADDRESS, PORT) not in seen.dialled()
    assert corporate.heads[asked:] == []


def test_plain_http_goes_through_it_with_the_password(
    chained: Proxy, corporate: CorporateProxy, internet: Internet
) -> None:
    asked = len(corporate.heads)

    with internet.watch() as seen:
        answer = chained.ask(
            b"GET http://plain.test/echo HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n"
        )

    assert answer.split()[1] == b"200"
    assert seen.dialled() == {(ADDRESS, PORT)}
    (head,) = corporate.heads[asked:]
    assert b"proxy-authorization: basic " in head.lower()
    assert seen.exchanges[0].header("Proxy-Authorization") is None


def test_a_passed_through_host_goes_through_it(
    chained: Proxy, corporate: CorporateProxy, internet: Internet
) -> None:
    with internet.watch() as seen, chained.connect() as connection:
        connection.sendall(connect_head("through.test:443") + client_hello("through.test"))
        received = b""
        while b"\x16\x03\x03" not in received:
            piece = connection.recv(4096)
            assert piece, received
            received += piece

    assert seen.dialled() == {(ADDRESS, PORT)}
    assert corporate.heads[-1].startswith(b"CONNECT through.test:443 ")


def test_an_allowed_address_of_the_inside_is_not_asked_of_it_by_mistake(
    chained: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen, chained.tunnel("10.1.2.3:443") as tunnel:
        tunnel.get("/")

    assert seen.dialled() == {("10.1.2.3", 443)}


def test_a_wrong_password_is_a_502_that_does_not_show_it(
    start_proxy: StartProxy, corporate: CorporateProxy
) -> None:
    del corporate
    proxy = start_proxy(
        RULES, CLAUDE_PROXY_UPSTREAM_PROXY=f"http://{USER}:wrong-secret@corp-proxy.test:{PORT}"
    )
    try:
        with proxy.tunnel("inside.test:443") as tunnel:
            answer = tunnel.get("/")
    except CannotConnectError as refusal:
        answer = refusal.answer

    assert answer.status == 502
    assert "wrong-secret" not in answer.text() + proxy.stdout() + proxy.stderr()


def test_a_proxy_that_is_away_is_a_502(start_proxy: StartProxy, internet: Internet) -> None:
    proxy = start_proxy(RULES, "--upstream-proxy", f"http://{ADDRESS}:3129")

    with internet.watch() as seen:
        try:
            with proxy.tunnel("inside.test:443") as tunnel:
                answer = tunnel.get("/")
        except CannotConnectError as refusal:
            answer = refusal.answer

    assert answer.status == 502
    # No way around it is tried.
    assert seen.dialled() == {(ADDRESS, 3129)}
