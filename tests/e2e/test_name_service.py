"""What is denied is never looked up, and the address that was judged is the one that is dialled."""

import socket

import pytest

from tests.support.waiting import until

from .conftest import StartProxy
from .rig.client import Answer, CannotConnectError
from .rig.internet import Internet
from .rig.namespaces import SEARCH_DOMAIN
from .rig.proxy import Proxy

PUBLIC = "93.190.77.7"

FORBIDDEN = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:10.1.2.3",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:0:7f00:1::1",
    "fe80::1",
    "fd00::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001:db8::1",
    "10.99.0.2",  # this host itself
]

RULES = "allow: [turning.test]\n"


def get(proxy: Proxy, host: str) -> Answer:
    """Ask `host` for a page, and return the answer, whoever gave it and wherever."""
    try:
        with proxy.tunnel(f"{host}:443") as tunnel:
            return tunnel.get("/page")
    except CannotConnectError as refusal:
        return refusal.answer


def test_a_secret_in_a_denied_name_is_not_looked_up(proxy: Proxy, internet: Internet) -> None:
    with internet.watch() as seen:
        answer = get(proxy, "my-secret.evil.test")
        with proxy.connect() as connection:
            connection.sendall(
                b"GET http://my-secret.evil.test/ HTTP/1.1\r\nHost: my-secret.evil.test\r\n\r\n"
            )
            assert b" 403 " in connection.recv(4096)

    assert answer.status == 403
    assert seen.nothing()


def test_an_allowed_tunnel_that_stays_silent_looks_nothing_up(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen:
        proxy.tunnel("allowed.test:443").close()

    assert seen.exchanges == []
    assert seen.names in ([], ["allowed.test", "allowed.test"])


def test_a_denied_request_in_an_allowed_tunnel_dials_nothing(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen, proxy.tunnel("read-only.test:443") as tunnel:
        answer = tunnel.request("DELETE", "/")

    assert answer.status == 403
    assert seen.nothing()


@pytest.mark.parametrize("address", FORBIDDEN)
def test_a_name_that_leads_to_an_inner_address_is_not_dialled(
    proxy: Proxy, internet: Internet, address: str
) -> None:
    internet.names.answer("metadata.test", [address])

    with internet.watch() as seen:
        answer = get(proxy, "metadata.test")

    assert (answer.status, answer.reason) == (403, "address-not-allowed")
    assert seen.packets == []


def test_a_name_of_good_and_bad_addresses_is_not_dialled_at_the_bad_one(
    proxy: Proxy, internet: Internet
) -> None:
    for answers in ([PUBLIC, "127.0.0.1"], ["10.1.1.1", PUBLIC], [PUBLIC, "::ffff:10.1.1.1"]):
        internet.names.answer("mixed.test", answers)

        with internet.watch() as seen:
            answer = get(proxy, "mixed.test")

        assert answer.status == 403
        assert seen.dialled() <= {(PUBLIC, 443)}


def test_a_name_that_turns_inward_is_looked_up_and_judged_anew(
    start_proxy: StartProxy, internet: Internet
) -> None:
    internet.names.answer("turning.test", [PUBLIC], ["127.0.0.1"])
    trap = internet.host.listen("127.0.0.1", 443)
    trap.settimeout(0)
    proxy = start_proxy(RULES)

    with internet.watch() as seen, trap:
        answers = [get(proxy, "turning.test")]
        # What it resolved to is remembered for seconds, in which the judged address is dialled.
        until(lambda: _denied(proxy, "turning.test", answers), "the name to be looked up again")
        answers += [get(proxy, "turning.test") for _ in range(3)]
        with pytest.raises(BlockingIOError):
            trap.accept()

    statuses = [answer.status for answer in answers]
    assert statuses == [200] * statuses.count(200) + [403] * 4
    assert seen.dialled() == {(PUBLIC, 443)}
    assert {exchange.arrival.address for exchange in seen.exchanges} == {PUBLIC}


def test_requests_of_the_same_seconds_share_a_look_up(
    start_proxy: StartProxy, internet: Internet
) -> None:
    internet.names.answer("turning.test", [PUBLIC])
    proxy = start_proxy(RULES)

    until(lambda: _dials_more_often_than_it_asks(proxy, internet), "a dial without a look-up")


def _denied(proxy: Proxy, host: str, answers: list[Answer]) -> bool:
    answers.append(get(proxy, host))
    return answers[-1].status == 403


def _dials_more_often_than_it_asks(proxy: Proxy, internet: Internet) -> bool:
    with internet.watch() as seen:
        for _ in range(3):
            assert get(proxy, "turning.test").status == 200
    assert seen.dialled() == {(PUBLIC, 443)}
    return len(seen.names) < 2 * len(seen.arrivals)  # a look-up asks for A and AAAA


def test_a_name_is_not_looked_for_below_a_search_domain(proxy: Proxy, internet: Internet) -> None:
    # Whoever runs the search domain (or a wildcard in it) would else answer for every name.
    internet.names.answer(f"no-such-name.test.{SEARCH_DOMAIN}", [PUBLIC])

    with internet.watch() as seen:
        answer = get(proxy, "no-such-name.test")

    assert (answer.status, answer.reason) == (502, "dns-failed")
    assert set(seen.names) == {"no-such-name.test"}
    assert seen.packets == []


def test_one_dial_looks_a_name_up_once(start_proxy: StartProxy, internet: Internet) -> None:
    # Were the name looked up a second time between judging and dialling, it would lead inward.
    internet.names.answer("turning.test", [PUBLIC], ["10.6.6.6"])
    proxy = start_proxy(RULES)

    with internet.watch() as seen:
        answer = get(proxy, "turning.test")

    assert answer.status == 200
    assert seen.names == ["turning.test", "turning.test"]  # A and AAAA
    assert seen.dialled() == {(PUBLIC, 443)}


def test_a_public_address_of_this_very_host_is_not_dialled(
    proxy: Proxy, internet: Internet
) -> None:
    own = "93.199.0.1"
    internet.host.run(["ip", "addr", "add", f"{own}/32", "dev", "lo"])
    internet.names.answer("rebinding.test", [own])
    trap = internet.host.listen(own, 443)
    trap.settimeout(0)

    with trap:
        answer = get(proxy, "rebinding.test")
        with pytest.raises(BlockingIOError):
            trap.accept()

    assert (answer.status, answer.reason) == (403, "address-not-allowed")


def test_a_private_address_is_dialled_where_its_rule_names_it(
    proxy: Proxy, internet: Internet
) -> None:
    internet.names.answer("private.test", ["10.20.0.1"])

    with internet.watch() as seen:
        answer = get(proxy, "private.test")

    assert answer.status == 200
    assert seen.dialled() == {("10.20.0.1", 443)}


def test_a_private_address_beyond_those_its_rule_names_is_not_dialled(
    proxy: Proxy, internet: Internet
) -> None:
    internet.names.answer("beyond.test", ["10.21.0.1"])

    with internet.watch() as seen:
        answer = get(proxy, "beyond.test")

    assert (answer.status, answer.reason) == (403, "address-not-allowed")
    assert seen.packets == []


def test_an_ipv6_origin_is_reached(proxy: Proxy, internet: Internet) -> None:
    internet.names.answer("rebinding.test", ["2600:1f18::77"])

    with internet.watch() as seen:
        answer = get(proxy, "rebinding.test")

    assert answer.status == 200
    assert seen.dialled() == {("2600:1f18::77", 443)}


def test_the_audit_log_holds_the_address_that_was_dialled(proxy: Proxy, internet: Internet) -> None:
    internet.names.answer("logged.wild.test", [PUBLIC])

    get(proxy, "logged.wild.test")

    row = proxy.outcome("logged.wild.test:443", "/page")
    assert row.upstream == f"{PUBLIC}:443"


def test_a_resolve_option_takes_the_resolvers_place(
    start_proxy: StartProxy, internet: Internet
) -> None:
    rules = "allow: [{host: intranet.test, addresses: [10.77.0.0/16]}]\n"
    proxy = start_proxy(rules, "--resolve", "intranet.test:443:10.77.0.1")

    with internet.watch() as seen:
        answer = get(proxy, "intranet.test")

    assert answer.status == 200
    assert seen.names == []
    assert seen.dialled() == {("10.77.0.1", 443)}


@pytest.mark.parametrize(
    "rules",
    [
        "allow: []\n",
        "allow: [intranet.test]\n",
        "allow: [{host: intranet.test, addresses: [10.77.0.0/16]}]\ndeny: [10.0.0.0/8]\n",
    ],
)
def test_a_resolve_option_allows_nothing_by_itself(
    start_proxy: StartProxy, internet: Internet, rules: str
) -> None:
    proxy = start_proxy(rules, "--resolve", "intranet.test:443:10.77.0.1")

    with internet.watch() as seen:
        answer = get(proxy, "intranet.test")

    assert answer.status == 403
    assert seen.nothing()


def test_a_name_server_that_is_silent_holds_up_nobody_else(
    start_proxy: StartProxy, internet: Internet
) -> None:
    internet.names.mute("unanswered.test")
    proxy = start_proxy("allow: [unanswered.test, allowed.test]\n", "--connect-timeout", "5s")
    waiting = [proxy.tunnel("unanswered.test:443") for _ in range(8)]
    for tunnel in waiting:
        tunnel.send(b"GET / HTTP/1.1\r\nHost: unanswered.test\r\n\r\n")

    answer = get(proxy, "allowed.test")

    assert answer.status == 200
    for tunnel in waiting:
        assert tunnel.read().status in {502, 504}
        tunnel.stream.shutdown(socket.SHUT_RDWR)
        tunnel.close()
