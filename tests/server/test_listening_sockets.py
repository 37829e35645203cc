"""Listening sockets are opened all or none, are private, and are removed at the end."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.config.settings import (
    Base,
    Gateway,
    InheritedListen,
    Listen,
    Settings,
    TcpListen,
    UnixListen,
)
from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.binding import Injection
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.request import Scheme
from claude_proxy.server import listening_sockets
from claude_proxy.server.listening_sockets import OpenListener, bind, bind_all, opened
from claude_proxy.system import peer_credentials, unix_socket
from claude_proxy.wire.authority import Authority
from tests.system.sockets import answers, refusal, settings, unix

ANY = TcpListen("127.0.0.1", 0)


def test_a_bound_socket_listens() -> None:
    with bind(ANY) as sock, socket.create_connection(sock.getsockname()) as client:
        assert client.getpeername() == sock.getsockname()
        assert sock.proto == socket.IPPROTO_TCP  # else Nagle's algorithm stays on


def test_a_busy_port_is_a_clear_error() -> None:
    with bind(ANY) as sock:
        port = sock.getsockname()[1]

        with pytest.raises(ConfigError) as caught:
            bind(TcpListen("127.0.0.1", port))

    error = caught.value
    assert error.exit_code == 2
    assert error.what == f"cannot listen on 127.0.0.1 port {port}: address already in use"
    assert error.where == f"127.0.0.1:{port}"
    assert error.fix == "stop what listens there, or choose another port with --port"


def test_an_address_of_another_machine_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1 port 9051") as caught:
        bind(TcpListen("192.0.2.1", 9051))

    assert caught.value.fix == "name an address of this machine; `ip address` shows them"


def test_an_ipv6_socket_accepts_only_ipv6() -> None:
    with bind(TcpListen("::1", 0)) as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_workers_have_a_socket_each_on_one_port() -> None:
    with opened(settings(ANY, workers=3)) as (door,):
        ports = {sock.getsockname()[1] for sock in door.sockets}
        own = door.socket_of(1)

        assert len(set(door.sockets)) == 3
        assert len(ports) == 1
        assert [sock.fileno() >= 0 for sock in door.sockets] == [False, True, False]
        assert own is door.sockets[1]


def test_one_process_shares_its_port_with_nobody() -> None:
    (sock,) = bind_all(ANY, 1)

    with sock:
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_a_shared_port_must_be_free_first() -> None:
    with bind(ANY, shared=True) as sock, pytest.raises(ConfigError):
        bind_all(TcpListen("127.0.0.1", sock.getsockname()[1]), 2)


def test_each_listener_is_told_by_its_address() -> None:
    with opened(settings(ANY, TcpListen("::1", 0))) as (four, six):
        assert four.address is not None
        assert six.address is not None
        assert four.name == f"tcp 127.0.0.1:{four.address.port}"
        assert four.url == f"http://127.0.0.1:{four.address.port}"
        assert six.url == f"http://[::1]:{six.address.port}"
        assert not four.beyond_loopback
        assert not six.beyond_loopback


def test_what_other_machines_reach_is_beyond_loopback() -> None:
    with opened(settings(TcpListen("0.0.0.0", 0))) as (door,):
        assert door.beyond_loopback


def test_a_proxy_without_a_listener_is_an_error() -> None:
    assert refusal(settings()).what == "there is nothing to listen on"


def test_one_listener_that_cannot_be_opened_closes_the_others(place: Path) -> None:
    with bind(ANY) as sock:
        busy = TcpListen("127.0.0.1", sock.getsockname()[1])

        refusal(settings(UnixListen(place / "p.sock"), busy))

    assert list(place.iterdir()) == []


def test_processes_share_one_unix_socket(place: Path) -> None:
    with opened(unix(place / "p.sock", workers=3)) as (door,):
        own = door.socket_of(2)

        assert len(set(door.sockets)) == 1
        assert own.fileno() >= 0


def test_a_failure_while_running_removes_the_socket_file(place: Path) -> None:
    with pytest.raises(ZeroDivisionError), opened(unix(place / "p.sock")):
        raise ZeroDivisionError

    assert list(place.iterdir()) == []


@pytest.mark.parametrize("others", [0, 2], ids=["alone", "beside threads"])
def test_a_signal_during_opening_leaves_no_file_behind(
    place: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    class ToldError(BaseException):
        pass

    def told(*_: object) -> None:
        raise ToldError

    give_name = unix_socket._give_name

    def interrupted(partial: Path, path: Path) -> None:
        give_name(partial, path)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(unix_socket, "_give_name", interrupted)
    before, done = signal.signal(signal.SIGTERM, told), threading.Event()
    with ThreadPoolExecutor(others or 1) as pool:
        for _ in range(others):
            pool.submit(done.wait)
        try:
            with pytest.raises(ToldError), opened(unix(place / "p.sock")):
                pass
        finally:
            done.set()
            signal.signal(signal.SIGTERM, before)

    assert list(place.iterdir()) == []


def test_a_listener_may_be_opened_on_any_thread(place: Path) -> None:
    def look() -> bool:
        with opened(unix(place / "p.sock")):
            return answers(place / "p.sock")

    with ThreadPoolExecutor() as pool:
        assert pool.submit(look).result()
    assert list(place.iterdir()) == []


def test_the_overflow_uid_cannot_be_admitted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_credentials, "overflow_uid", lambda: 65534)

    error = refusal(unix(place / "p.sock", uids=frozenset({65534, os.geteuid()})))

    assert "uid 65534 represents every user" in error.what


def handed(sock: socket.socket, name: str = "", **changes: Any) -> Settings:
    return settings(InheritedListen(sock.detach(), name), **changes)


def test_an_inherited_tcp_socket_is_used() -> None:
    sock = bind(ANY)
    port = sock.getsockname()[1]
    sock.setblocking(True)

    with opened(handed(sock, workers=2)) as (door,):
        assert door.name == f"tcp 127.0.0.1:{port}"
        assert str(door.address) == f"127.0.0.1:{port}"
        assert not os.get_inheritable(door.sockets[0].fileno())
        assert not door.sockets[0].getblocking()
        assert door.sockets[0] is door.sockets[1]


def test_an_inherited_unix_socket_is_used_and_its_file_kept(place: Path) -> None:
    path = place / "p.sock"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()

    with opened(handed(sock)) as (door,):
        assert (door.name, door.url) == (f"unix {path}", f"unix:{path}")
        assert door.uids == {os.geteuid()}

    assert path.exists()


def test_a_name_that_was_given_is_kept() -> None:
    with opened(handed(bind(ANY), "claude-proxy.socket")) as (door,):
        assert door.name == "claude-proxy.socket"


@pytest.mark.skipif(sys.platform != "linux", reason="the abstract namespace is Linux's alone")
def test_a_socket_without_a_file_is_shown_by_its_name() -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(b"\0claude-proxy-test-%d" % os.getpid())
    sock.listen()

    with opened(handed(sock)) as (door,):
        assert door.url == f"unix:@claude-proxy-test-{os.getpid()}"


def test_a_socket_that_never_got_a_name_is_shown_as_that() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert listening_sockets._unix_name(sock) == "(unnamed)"


def test_an_inherited_socket_beyond_loopback_must_be_allowed() -> None:
    error = refusal(handed(bind(TcpListen("0.0.0.0", 0))))
    assert "can be reached from other machines" in error.what

    with opened(handed(bind(TcpListen("0.0.0.0", 0)), allow_remote=True)) as (door,):
        assert door.beyond_loopback


def _closed() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    return reading


def _connected() -> int:
    one, _ = socket.socketpair()
    return one.detach()


UNUSABLE: dict[str, tuple[Callable[[], int], str]] = {
    "closed": (_closed, "is not a socket"),
    "file": (lambda: os.open("/dev/null", os.O_RDONLY), "is not a socket"),
    "datagrams": (
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach(),
        "is not a stream socket",
    ),
    "connected": (_connected, "is not listening"),
    "silent": (lambda: socket.socket(socket.AF_INET6).detach(), "is not listening"),
    "netlink": (
        lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).detach(),
        "is not a stream socket",
    ),
}


@pytest.mark.parametrize(("make", "said"), UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_descriptor_that_is_no_listening_socket_is_refused(
    make: Callable[[], int], said: str
) -> None:
    error = refusal(settings(InheritedListen(make(), "")))

    assert said in error.what


def test_a_listener_without_a_file_has_nothing_to_remove() -> None:
    OpenListener("tcp 127.0.0.1:1", "http://127.0.0.1:1", ()).remove()


def gateway(*listen: Listen, token: str | None = None) -> Gateway:
    upstream = Base(Scheme.HTTPS, Authority.of("llm.test", 443))
    return Gateway(listen, upstream, Injection(EnvironmentSource("KEY"), strips=True), token=token)


def test_the_gateways_listeners_are_distinguished(place: Path) -> None:
    both = gateway(ANY, UnixListen(place / "g.sock"))

    with opened(settings(ANY, gateway=both)) as doors:
        assert [door.gateway for door in doors] == [False, True, True]
        assert [door.name.startswith("gateway ") for door in doors] == [False, True, True]
        assert answers(place / "g.sock")

    assert not (place / "g.sock").exists()


def test_a_gateway_alone_opens_nothing_else(place: Path) -> None:
    with opened(settings(gateway=gateway(UnixListen(place / "g.sock")))) as (door,):
        assert door.address is None
        assert door.url == f"unix:{place}/g.sock"
        assert door.uids == {os.geteuid()}


def test_a_second_gateway_at_one_place_is_a_clear_error(place: Path) -> None:
    with opened(settings(gateway=gateway(ANY, UnixListen(place / "g.sock")))) as (tcp, _):
        assert tcp.address is not None
        port = TcpListen("127.0.0.1", tcp.address.port)

        assert "address already in use" in refusal(settings(gateway=gateway(port))).what
        again = gateway(UnixListen(place / "g.sock"))
        assert "listens" in refusal(settings(gateway=again)).what

        assert answers(place / "g.sock")


def test_the_socket_that_a_killed_gateway_left_behind_is_replaced(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(place / "g.sock"))

    with opened(settings(gateway=gateway(UnixListen(place / "g.sock")))):
        assert answers(place / "g.sock")


def test_what_cannot_be_opened_for_the_gateway_closes_the_proxys_own(place: Path) -> None:
    with bind(ANY) as taken:
        port = TcpListen("127.0.0.1", taken.getsockname()[1])
        refusal(settings(UnixListen(place / "p.sock"), gateway=gateway(port)))

    assert not (place / "p.sock").exists()


def test_an_inherited_socket_of_the_gateway_is_named_so() -> None:
    def named(name: str) -> str:
        listen = InheritedListen(bind(ANY).detach(), name)
        with opened(settings(gateway=gateway(listen))) as (door,):
            assert door.gateway
            return door.name

    assert named("gateway") == "gateway"
    assert named("llm.socket") == "gateway llm.socket"
    assert named("").startswith("gateway tcp 127.0.0.1:")


def test_other_machines_reach_an_inherited_gateway_socket_only_with_a_token() -> None:
    def handed_over(token: str | None = None, *, allow: bool = True) -> Settings:
        listen = InheritedListen(bind(TcpListen("0.0.0.0", 0)).detach(), "")
        return settings(gateway=gateway(listen, token=token), allow_remote=allow)

    assert "no token is required" in refusal(handed_over()).what
    assert "other machines" in refusal(handed_over("token", allow=False)).what
    with opened(handed_over("token")) as (door,):
        assert door.beyond_loopback
