"""Fake address probes see names that are a channel, and addresses that lead somewhere."""

import sys

from tests.doctor.cage import Tries, got_through, outcomes, routed, run_probe, tool

# Knows every name, and accepts what comes to any address.
ANSWERING = """
import os, signal, socket, sys, threading
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(('127.0.0.1', 53))
tcp = socket.create_server(('0.0.0.0', 4430))
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); echo.bind(('0.0.0.0', 4430))
os.system('ip addr add 198.18.0.0/15 dev lo; ip addr add 192.0.0.9/32 dev lo')
def names():
    while True:
        data, who = udp.recvfrom(512)
        end = data.index(b'\\0', 12) + 5
        answer = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4\\xc6\\x12\\0\\5'
        udp.sendto(data[:2] + b'\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0' + data[12:end] + answer, who)
def clients():
    while True:
        client, _ = tcp.accept()
        client.sendall(b'hello')
def datagrams():
    while True:
        data, who = echo.recvfrom(512)
        echo.sendto(data, who)
if os.fork():
    os.execvp(sys.argv[1], sys.argv[1:])
signal.alarm(60)
for work in (names, clients, datagrams):
    threading.Thread(target=work, daemon=True).start()
os.close(0), os.close(1), os.close(2)
signal.pause()
"""
ALLOWED = ["allowed.example.test", 4430]


def tries_with(code: str) -> Tries:
    around = [*routed(), sys.executable, "-c", code]
    return run_probe("fake-addresses", around=around, allowed=ALLOWED)


def test_a_resolver_that_knows_every_name_is_seen() -> None:
    found = got_through(tries_with(ANSWERING))

    assert "100 new names below *.names.example.test" in found
    assert "a label of 60 random letters" in found
    assert "data in a denied name" in found
    assert "a text record of allowed.example.test" in found


def test_addresses_that_lead_somewhere_are_seen() -> None:
    found = got_through(tries_with(ANSWERING))

    assert {"198.19.0.1:4430", "192.0.0.9:4430"} <= {*found}
    assert "UDP to the address of allowed.example.test" in found
    assert "no TLS at an address" in found


def test_without_a_resolver_and_a_route_everything_is_stopped() -> None:
    assert outcomes(run_probe("fake-addresses", around=[tool("unshare"), "-rn"])) == {"stopped"}
