"""A client that opens tunnels in bursts, as Claude Code does, finds a connection for each."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from claude_proxy.proxy.warm_demand import MOST_AT_ONCE
from tests.support.waiting import until

from .conftest import StartProxy
from .rig.client import Tunnel
from .rig.internet import Internet
from .rig.origin import Arrival, Exchange
from .rig.proxy import Proxy

HOST = "bursts.test"


@pytest.fixture
def proxy(start_proxy: StartProxy, internet: Internet) -> Proxy:
    """A proxy for the one host."""
    internet.site(HOST)
    return start_proxy(f"allow: [{HOST}]\n", "--warm-upstreams")


def burst(proxy: Proxy, internet: Internet, size: int) -> list[Exchange]:
    """Send a first request over so many tunnels at once; return what the origin saw."""
    before = len(internet.origin.exchanges)
    tunnels = [proxy.tunnel(f"{HOST}:443") for _ in range(size)]
    with ThreadPoolExecutor(size) as pool:
        statuses = list(pool.map(_status, tunnels))
    assert statuses == [200] * size
    return internet.origin.exchanges[before:]


def _status(tunnel: Tunnel) -> int:
    with tunnel:
        return tunnel.get("/page").status


def waiting(internet: Internet) -> list[Arrival]:
    """Return the connections to the host that are open, and on which nothing was asked."""
    asked = {exchange.arrival.number for exchange in internet.origin.exchanges}
    return [
        arrival
        for arrival in internet.origin.arrivals
        if arrival.server_name == HOST and arrival.secured and not arrival.closed
        if arrival.number not in asked
    ]


def test_a_burst_finds_a_connection_for_each(proxy: Proxy, internet: Internet) -> None:
    def finds_all() -> bool:
        burst(proxy, internet, 3)
        until(lambda: waiting(internet), "a connection that waits")
        ready = {arrival.number for arrival in waiting(internet)}
        return {exchange.arrival.number for exchange in burst(proxy, internet, 3)} <= ready

    # On a slow machine what is meant as one burst may be none, and what is opened come too late.
    until(finds_all, "a burst for which all was ready")


def test_no_burst_is_so_large_that_more_than_a_few_wait(proxy: Proxy, internet: Internet) -> None:
    most = 0
    for _ in range(3):
        burst(proxy, internet, 12)
        until(lambda: waiting(internet), "a connection that waits")
        most = max(most, len(waiting(internet)))

    assert 1 <= most <= MOST_AT_ONCE


def test_no_connection_that_carried_a_request_carries_another_clients(
    proxy: Proxy, internet: Internet
) -> None:
    exchanges = [exchange for _ in range(4) for exchange in burst(proxy, internet, 3)]

    numbers = [exchange.arrival.number for exchange in exchanges]
    assert len(set(numbers)) == len(numbers)
