"""DNS probes see a resolver that can be asked."""

import sys

from tests.doctor.cage import (
    got_through,
    routed,
    run_probe,
)


def test_a_resolver_that_can_be_asked_is_seen() -> None:
    tries = run_probe("name-lookups", around=routed())

    assert "a query to 192.0.2.53" in got_through(tries)


def test_a_resolver_that_answers_is_seen() -> None:
    answering = (
        "import os, signal, socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 53))\n"
        "if os.fork():\n"
        "    os.execvp(sys.argv[1], sys.argv[1:])\n"
        "signal.alarm(60)\n"  # nobody may ask; it holds the pipes that the test reads
        "data, who = s.recvfrom(512); s.sendto(data, who)\n"
    )

    around = [*routed(), sys.executable, "-c", answering]
    tries = run_probe("name-lookups", around=around, change="dns.DIRECT_S = 3")

    assert "a query to 127.0.0.1" in got_through(tries)


def test_a_name_that_is_known_is_seen() -> None:
    assert "getaddrinfo localhost" in got_through(
        run_probe("name-lookups", denied_host="localhost")
    )
