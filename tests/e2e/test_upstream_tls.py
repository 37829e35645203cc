"""An upstream that cannot prove its name gives the client a clear 502, never its content."""

import certifi
import pytest

from .conftest import StartProxy
from .rig.client import Answer, CannotConnectError
from .rig.internet import Internet
from .rig.proxy import Proxy

BAD = [
    "self-signed.test",
    "expired.test",
    "future.test",
    "wrong-name.test",
    "common-name-only.test",
]


def get(proxy: Proxy, host: str) -> Answer:
    """Ask `host` for a page, and return the answer, whoever gave it."""
    try:
        with proxy.tunnel(f"{host}:443") as tunnel:
            return tunnel.get("/echo", "Authorization: Bearer secret")
    except CannotConnectError as refusal:
        return refusal.answer


@pytest.mark.parametrize("host", BAD)
def test_a_bad_certificate_is_a_502_and_gets_no_request(
    proxy: Proxy, internet: Internet, host: str
) -> None:
    with internet.watch() as seen:
        answer = get(proxy, host)

    assert answer.status == 502
    assert answer.reason is not None
    assert seen.exchanges == []
    row = proxy.outcome(f"{host}:443", "/echo")
    assert row.error == answer.reason


def test_a_name_whose_host_proves_another_is_looked_up_again(
    start_proxy: StartProxy, internet: Internet
) -> None:
    proxy = start_proxy("allow: [wrong-name.test]\n")

    with internet.watch() as seen:
        assert [get(proxy, "wrong-name.test").status for _ in range(2)] == [502, 502]

    assert seen.names == ["wrong-name.test"] * 4  # A and AAAA, each time


def test_a_root_that_nobody_named_is_not_trusted(
    start_proxy: StartProxy, internet: Internet
) -> None:
    # An option given again takes the first one's place.
    proxy = start_proxy("allow: [allowed.test]\n", "--upstream-ca", certifi.where())

    with internet.watch() as seen:
        answer = get(proxy, "allowed.test")

    assert answer.status == 502
    assert seen.exchanges == []


def test_a_good_certificate_is_asked_for_by_the_name_that_was_judged(
    proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen:
        answer = get(proxy, "allowed.test")

    assert answer.status == 200
    assert [arrival.server_name for arrival in seen.arrivals] == ["allowed.test"]
