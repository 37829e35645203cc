"""The probes of a pod: what answers is a way out, and what only stays silent is not."""

import socket
import threading

import pytest

from tests.doctor.cage import FakeProxy, run_probe

NO_CANARIES: dict[str, list[list[object]]] = {"tcp": [], "udp": []}
SHORT = "from claude_proxy.doctor.attack.probes import pod; pod.DIRECT_S = 0.2"
# Nothing outside of this machine is asked.
ALONE = (
    f"{SHORT}; pod.resolvers = lambda: (); pod._METADATA = pod._DOCUMENTATION = (); "
    "pod._FOREIGN_RESOLVER = '127.0.0.1'"
)
EMPTY_NAMESPACE = ("unshare", "--net", "--map-root-user", "--")


def test_a_datagram_that_is_answered_is_a_way_out() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        place = list(server.getsockname())
        answering = threading.Thread(target=answer_once, args=(server,), daemon=True)
        answering.start()

        tries = run_probe("pod-udp", change=ALONE, canaries={"tcp": [], "udp": [place]})

        answering.join()
    assert tries[0][1] == "through"


def test_a_canary_that_accepts_is_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = list(server.getsockname())

        tries = run_probe("pod-tcp", change=ALONE, canaries={"tcp": [place], "udp": []})

    assert [row[1] for row in tries] == ["through"]


def answer_once(server: socket.socket) -> None:
    data, client = server.recvfrom(512)
    server.sendto(data, client)


@pytest.mark.parametrize("name", ["pod-tcp", "pod-udp", "pod-ping"])
def test_in_an_empty_namespace_everything_is_stopped(name: str) -> None:
    canaries = {"tcp": [["192.0.2.9", 443]], "udp": [["192.0.2.9", 53]]}

    tries = run_probe(name, around=EMPTY_NAMESPACE, change=SHORT, canaries=canaries)

    assert tries
    assert {row[1] for row in tries} == {"stopped"}


def test_names_are_not_found_in_an_empty_namespace() -> None:
    tries = run_probe("pod-names", around=EMPTY_NAMESPACE, lookups=["denied.example.test"])

    assert [row[1] for row in tries] == ["stopped"]


def test_the_proxy_works_if_it_denies_with_a_reason() -> None:
    with FakeProxy(b"HTTP/1.1 403 No\r\nX-Claude-Proxy-Reason: no-rule\r\n\r\n", socks=2) as proxy:
        tries = run_probe("pod-proxy", proxy=proxy.place, canaries=NO_CANARIES)

    assert [row[1] for row in tries] == ["through"]


def test_the_proxy_does_not_work_if_it_asks_for_a_login() -> None:
    with FakeProxy(b"HTTP/1.1 407 Login\r\n\r\n", socks=2) as proxy:
        tries = run_probe("pod-proxy", proxy=proxy.place, canaries=NO_CANARIES)

    assert [row[1] for row in tries] == ["stopped"]


def test_raw_sockets_are_tried() -> None:
    assert len(run_probe("pod-raw")) == 3
