"""Network probes see a way to other machines, and say what stops it."""

import sys

from claude_proxy.doctor.attack.canaries import Canaries
from tests.doctor.cage import (
    got_through,
    outcomes,
    routed,
    run_probe,
)

SERVING = (
    "import os, signal, socket, sys\n"
    "s = socket.create_server(('127.0.0.1', 443))\n"
    "if os.fork():\n"
    "    os.execvp(sys.argv[1], sys.argv[1:])\n"
    "signal.alarm(60)\n"
    "s.accept()\n"
)


def test_a_route_to_other_machines_is_seen() -> None:
    tcp = run_probe("direct-tcp", around=routed())
    udp = run_probe("direct-udp", around=routed())

    assert got_through(tcp)[:3] == ["192.0.2.1:443", "198.51.100.1:80", "203.0.113.1:53"]
    assert outcomes(udp) == {"through"}


def test_raw_sockets_are_seen() -> None:
    assert "raw IP" in got_through(run_probe("raw-ip", around=routed()))
    assert "AF_PACKET raw" in got_through(run_probe("packet-sockets", around=routed()))


def test_listeners_of_the_host_that_can_be_reached_are_seen(canaries: Canaries) -> None:
    # All of them answer, however late on a busy machine.
    patient = "network.DIRECT_S = 60"
    tries = run_probe("host-loopback", canaries=canaries.facts(), change=patient)

    assert outcomes(tries) == {"through"}
    assert any("UDP" in what for what in got_through(tries))
    assert canaries.seen("loopback")


def test_a_machine_that_answers_or_refuses_has_been_reached() -> None:
    """Where other machines are: here, by loopback, one port is open and one is not."""
    around = [*routed(), sys.executable, "-c", SERVING]
    change = "network.DOCUMENTATION = ('127.0.0.1',) * 3"

    tries = run_probe("direct-tcp", around=around, change=change)

    assert [saw for _, _, _, saw in tries[:2]] == [
        "connected",
        "a packet was sent: Connection refused",
    ]
