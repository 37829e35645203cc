"""Bytes are copied between two sockets completely, in order and in bounded memory, or a reset."""

import contextlib
import errno
import os
import resource
import select
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from claude_proxy.sandbox.relay import bridge as bridge_module
from claude_proxy.sandbox.relay.bridge import CHUNK, Bridge
from claude_proxy.sandbox.relay.relay_target import RelayTarget
from claude_proxy.sandbox.relay.tunnel_opening import TunnelOpening
from tests.support.waiting import until

WAIT_S = 30  # for what must come, on a busy machine

type Listen = Callable[[], socket.socket]

PATHS = (f"kind{number}.sock" for number in range(10**6))


def listening(family: socket.AddressFamily, directory: Path) -> socket.socket:
    listener = socket.socket(family)
    listener.bind(str(directory / next(PATHS)) if family == socket.AF_UNIX else ("127.0.0.1", 0))
    listener.listen(1024)
    listener.settimeout(WAIT_S)
    return listener


def upstream_of(listener: socket.socket) -> RelayTarget:
    return RelayTarget("the proxy", listener.family, listener.getsockname())


def joined(listener: socket.socket) -> socket.socket:
    client = socket.socket(listener.family)
    client.settimeout(WAIT_S)
    try:
        client.connect(listener.getsockname())
    except OSError:
        client.close()
        raise
    return client


def accepted(listener: socket.socket) -> socket.socket:
    peer, _ = listener.accept()
    peer.settimeout(WAIT_S)
    return peer


def everything_from(peer: socket.socket) -> bytes:
    got = b""
    while data := peer.recv(1 << 16):
        got += data
    return got


def exactly(peer: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        data = peer.recv(size - len(got))
        assert data, f"the end came after {got!r}"
        got += data
    return got


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def descriptors() -> int:
    return len([*Path("/dev/fd").iterdir()])


class Running:
    """A bridge in a thread, between a listener of its own and a fake upstream."""

    def __init__(self, listener: socket.socket, upstream: RelayTarget, **options: object) -> None:
        self.listener = listener
        self.said: list[str] = []
        self.bridge = Bridge([listener], upstream, report=self.said.append, **options)  # type: ignore[arg-type]
        self._inside, self._outside = socket.socketpair()
        self.bridge.loop.watch(
            self._inside.fileno(), 0, selectors.EVENT_READ, lambda _events: self.bridge.loop.stop()
        )
        self._thread = threading.Thread(target=self.bridge.run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._outside.close()
        self._thread.join()
        self._inside.close()
        self.listener.close()

    def client(self) -> socket.socket:
        return joined(self.listener)


FAMILIES = [
    pytest.param((socket.AF_INET, socket.AF_UNIX), id="tcp-unix"),
    pytest.param((socket.AF_UNIX, socket.AF_INET), id="unix-tcp"),
    pytest.param((socket.AF_INET, socket.AF_INET), id="tcp-tcp"),
    pytest.param((socket.AF_UNIX, socket.AF_UNIX), id="unix-unix"),
]


class Pair:
    """A client and the upstream's end of its connection, with the bridge between them."""

    def __init__(self, running: Running, upstream: socket.socket) -> None:
        self.running = running
        self.client = running.client()
        self.peer = accepted(upstream)

    def close(self) -> None:
        self.client.close()
        self.peer.close()


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")  # short: it becomes part of a socket's address


@pytest.fixture(params=FAMILIES)
def pair(request: pytest.FixtureRequest, directory: Path) -> Iterator[Pair]:
    near, far = request.param
    with (
        listening(far, directory) as upstream,
        Running(listening(near, directory), upstream_of(upstream)) as running,
        contextlib.closing(Pair(running, upstream)) as pair,
    ):
        yield pair


@pytest.fixture
def upstream(directory: Path) -> Iterator[socket.socket]:
    with listening(socket.AF_UNIX, directory) as listener:
        yield listener


@pytest.fixture
def running(upstream: socket.socket, directory: Path) -> Iterator[Running]:
    with Running(listening(socket.AF_INET, directory), upstream_of(upstream)) as running:
        yield running


# Bytes and their ends


def test_bytes_go_both_ways(pair: Pair) -> None:
    pair.client.sendall(b"question")
    assert exactly(pair.peer, 8) == b"question"

    pair.peer.sendall(b"answer")

    assert exactly(pair.client, 6) == b"answer"


def test_an_upstream_may_send_first(pair: Pair) -> None:
    pair.peer.sendall(b"220 hello")

    assert exactly(pair.client, 9) == b"220 hello"


def test_a_client_that_half_closed_still_gets_the_response(pair: Pair) -> None:
    pair.client.sendall(b"all of it")
    pair.client.shutdown(socket.SHUT_WR)
    assert everything_from(pair.peer) == b"all of it"

    pair.peer.sendall(b"late answer")
    pair.peer.close()

    assert everything_from(pair.client) == b"late answer"


def test_an_upstream_that_half_closed_still_gets_the_clients_bytes(pair: Pair) -> None:
    pair.peer.shutdown(socket.SHUT_WR)
    assert everything_from(pair.client) == b""

    pair.client.sendall(b"more")
    pair.client.close()

    assert everything_from(pair.peer) == b"more"


def test_a_client_that_sends_nothing_is_an_orderly_end(pair: Pair) -> None:
    pair.client.shutdown(socket.SHUT_WR)

    assert everything_from(pair.peer) == b""


def test_many_bytes_arrive_complete_in_both_directions_at_the_same_time(pair: Pair) -> None:
    up, down = os.urandom(3_000_000), os.urandom(3_000_000)
    got: dict[str, bytes] = {}

    def send(end: socket.socket, data: bytes) -> None:
        end.sendall(data)
        end.shutdown(socket.SHUT_WR)

    def exchange(name: str, end: socket.socket, data: bytes) -> None:
        sender = threading.Thread(target=send, args=(end, data))
        sender.start()
        got[name] = everything_from(end)
        sender.join()

    far = threading.Thread(target=exchange, args=("up", pair.peer, down))
    far.start()
    exchange("down", pair.client, up)
    far.join()

    assert got == {"up": up, "down": down}


def test_both_sides_are_closed_when_both_have_ended(pair: Pair) -> None:
    pair.client.close()
    assert everything_from(pair.peer) == b""
    pair.peer.close()

    until(lambda: pair.running.bridge.connections == 0)


def test_the_header_precedes_the_clients_bytes(upstream: socket.socket, directory: Path) -> None:
    near = listening(socket.AF_INET, directory)
    with (
        Running(near, upstream_of(upstream), header=b"HEADER") as running,
        running.client() as client,
    ):
        with accepted(upstream) as peer:
            assert exactly(peer, 6) == b"HEADER"  # before the client has said a word
        with running.client() as second:
            second.sendall(b"one")
            with accepted(upstream) as peer:
                assert exactly(peer, 9) == b"HEADERone"
        client.close()


# Readers that do not read


def fill(sender: socket.socket, bridge: Bridge) -> int:
    """Send until nothing more is taken, as the other side does not read; return how much was."""
    sent, stood_still, deadline = 0, 0, time.monotonic() + WAIT_S
    sender.settimeout(0.1)
    while stood_still < 3:  # once alone, the bridge may just not have had its turn
        try:
            sent += sender.send(b"x" * CHUNK)
            stood_still = 0
        except TimeoutError:
            assert time.monotonic() < deadline
            stood_still = stood_still + 1 if bridge.held else 0
    sender.settimeout(WAIT_S)
    return sent


def test_a_client_that_stops_reading_stops_the_upstream(pair: Pair) -> None:
    sent = fill(pair.peer, pair.running.bridge)

    assert 0 < pair.running.bridge.held <= CHUNK
    pair.peer.close()
    assert len(everything_from(pair.client)) == sent


def test_an_upstream_that_stops_reading_stops_the_client(pair: Pair) -> None:
    sent = fill(pair.client, pair.running.bridge)

    assert 0 < pair.running.bridge.held <= CHUNK
    pair.client.close()
    assert len(everything_from(pair.peer)) == sent


def test_a_connection_that_stops_reading_does_not_delay_others(
    running: Running, upstream: socket.socket
) -> None:
    with running.client() as _stopped, accepted(upstream) as busy:
        fill(busy, running.bridge)
        with running.client() as client, accepted(upstream) as peer:
            client.sendall(b"ping")

            assert exactly(peer, 4) == b"ping"


# Ends that are no proper ones


def test_an_upstream_that_is_reset_resets_the_client(directory: Path) -> None:
    with (
        listening(socket.AF_INET, directory) as upstream,
        Running(listening(socket.AF_INET, directory), upstream_of(upstream)) as running,
        running.client() as client,
    ):
        peer = accepted(upstream)
        peer.sendall(b"half of it")
        assert exactly(client, 10) == b"half of it"

        reset(peer)

        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_client_that_is_reset_ends_its_upstream(
    running: Running, upstream: socket.socket
) -> None:
    client = running.client()
    with accepted(upstream) as peer:
        reset(client)

        assert everything_from(peer) == b""
        until(lambda: running.bridge.connections == 0)


def test_an_early_response_arrives_although_the_upstream_closes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a proxy does that denies an upload by its head."""
    monkeypatch.setattr(bridge_module, "_LINGER_S", WAIT_S)  # however late we read
    sent = fill(pair.client, pair.running.bridge)
    assert sent > CHUNK
    pair.peer.sendall(b"403")
    pair.peer.close()  # with all of the upload unread, which is a reset

    assert everything_from(pair.client) == b"403"


def test_a_client_that_sends_endlessly_to_a_closed_upstream_is_closed(
    running: Running, upstream: socket.socket
) -> None:
    with running.client() as client:
        fill(client, running.bridge)
        accepted(upstream).close()

        with contextlib.suppress(OSError):
            while True:
                client.send(b"x" * CHUNK)

    until(lambda: running.bridge.connections == 0)


def hung_up(client: socket.socket) -> bool:
    poll = select.poll()
    poll.register(client, 0)
    return bool(poll.poll(0))


@pytest.mark.parametrize("sent", [b"", b"SSH-2.0-x\r\n"])
def test_a_client_that_only_waits_is_hung_up_on_when_its_upstream_has_closed_for_good(
    running: Running, upstream: socket.socket, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(bridge_module, "_HANG_UP_S", 0)
    monkeypatch.setattr(bridge_module, "_LINGER_S", 0)
    with running.client() as client:
        client.sendall(sent)
        peer = accepted(upstream)
        assert exactly(peer, len(sent)) == sent
        peer.shutdown(socket.SHUT_WR)
        assert everything_from(client) == b""

        peer.close()

        until(lambda: hung_up(client))
        until(lambda: running.bridge.connections == 0)


def test_what_a_client_has_not_read_survives_the_hang_up(
    running: Running, upstream: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "_HANG_UP_S", 0)
    monkeypatch.setattr(bridge_module, "_LINGER_S", 0)
    with running.client() as client:
        peer = accepted(upstream)
        peer.sendall(b"x" * CHUNK)
        peer.close()
        until(lambda: hung_up(client))

        assert everything_from(client) == b"x" * CHUNK


def test_an_upstream_that_only_half_closed_is_not_taken_for_gone(
    running: Running, upstream: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "_HANG_UP_S", 0)
    looks: list[bool] = []
    has_hung_up = bridge_module._has_hung_up

    def look(stream: socket.socket) -> bool:
        looks.append(has_hung_up(stream))
        return looks[-1]

    monkeypatch.setattr(bridge_module, "_has_hung_up", look)
    with running.client() as client, accepted(upstream) as peer:
        peer.shutdown(socket.SHUT_WR)
        assert everything_from(client) == b""
        until(lambda: len(looks) > 2)

        client.sendall(b"late")

        assert exactly(peer, 4) == b"late"
    assert not any(looks[:2])


def test_an_upstream_that_closes_immediately_is_an_orderly_end(
    running: Running, upstream: socket.socket
) -> None:
    with running.client() as client:
        accepted(upstream).close()

        assert everything_from(client) == b""


def test_remaining_connections_are_reset_when_the_bridge_ends(
    upstream: socket.socket, directory: Path
) -> None:
    near = listening(socket.AF_INET, directory)
    with Running(near, upstream_of(upstream)) as running:
        client, peer = running.client(), accepted(upstream)
        peer.sendall(b"part")
        assert exactly(client, 4) == b"part"

    with client, peer:
        assert everything_from(peer) == b""
        with pytest.raises(ConnectionResetError):
            client.recv(1)


# Upstreams that are not there


GET = b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"


def test_a_client_waits_for_an_upstream_that_is_just_restarting(directory: Path) -> None:
    path = directory / "proxy.sock"
    near = listening(socket.AF_INET, directory)
    restarting = RelayTarget("it", socket.AF_UNIX, str(path), patience_s=WAIT_S)
    with Running(near, restarting) as running, running.client() as client:
        client.sendall(b"early bytes")
        until(lambda: running.bridge.held == len(b"early bytes"))

        with socket.socket(socket.AF_UNIX) as late:
            late.bind(str(path))
            late.listen()
            late.settimeout(WAIT_S)
            with accepted(late) as peer:
                assert exactly(peer, 11) == b"early bytes"


def test_an_unreachable_upstream_gets_an_error_response(directory: Path) -> None:
    near = listening(socket.AF_INET, directory)
    missing = RelayTarget("it", socket.AF_UNIX, str(directory / "gone"), patience_s=0)
    with Running(near, missing) as running:
        with running.client() as client:
            client.sendall(GET)
            assert everything_from(client).startswith(b"HTTP/1.1 502 Bad Gateway")
        with running.client() as client:
            client.sendall(b"\x05\x01\x00")
            assert exactly(client, 2) == b"\x05\x00"
            client.sendall(b"\x05\x01\x00\x03\x06a.test\x01\xbb")
            assert everything_from(client) == b"\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00"
        with running.client() as client:
            client.sendall(b"\x16\x03\x01")
            assert everything_from(client) == b""

    assert running.said == ["cannot reach it (no such file or directory)"]


def test_every_connection_dials_the_upstream_again(
    upstream: socket.socket, running: Running
) -> None:
    path = str(upstream.getsockname())
    with running.client() as client, accepted(upstream) as peer:
        client.sendall(b"1")
        assert exactly(peer, 1) == b"1"
    upstream.close()
    with running.client() as client:
        client.sendall(GET)
        assert b" 502 " in everything_from(client)
    Path(path).unlink()

    with socket.socket(socket.AF_UNIX) as again:
        again.bind(path)
        again.listen()
        again.settimeout(WAIT_S)
        with running.client() as client, accepted(again) as peer:
            client.sendall(b"2")
            assert exactly(peer, 1) == b"2"
            assert running.said[-1] == "the proxy is reachable again"


def test_a_client_that_sends_one_byte_and_stops_uses_no_processor_time(directory: Path) -> None:
    near = listening(socket.AF_INET, directory)
    missing = RelayTarget("it", socket.AF_UNIX, str(directory / "gone"), patience_s=WAIT_S)
    with Running(near, missing) as running, running.client() as client:
        client.sendall(b"G")
        until(lambda: running.bridge.held == 1)
        missing.patience_s = 0
        client.shutdown(socket.SHUT_WR)

        assert everything_from(client) == b""


def test_no_more_than_a_head_is_held_for_an_unreachable_upstream(directory: Path) -> None:
    near = listening(socket.AF_INET, directory)
    missing = RelayTarget("it", socket.AF_UNIX, str(directory / "gone"), patience_s=WAIT_S)
    with Running(near, missing) as running, running.client() as client:
        client.sendall(b"POST http://a.test/ HTTP/1.1\r\nX: " + b"x" * 100_000)

        until(lambda: running.bridge.held > 0)
        assert running.bridge.held <= 16 * 1024
        missing.patience_s = 0
        assert b" 502 " in everything_from(client)


def test_a_socket_never_connects_to_itself(directory: Path) -> None:
    # Before the port is free: it must not become the bridge's own.
    near = listening(socket.AF_INET, directory)
    with listening(socket.AF_INET, directory) as gone:
        upstream = upstream_of(gone)
    upstream.patience_s = 0
    with Running(near, upstream) as running, running.client() as client:
        client.sendall(GET)

        assert b" 502 " in everything_from(client)


# Crowds


def test_two_hundred_concurrent_clients_each_get_their_own_bytes(
    running: Running, upstream: socket.socket
) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(running.client()) for _ in range(200)]
        for number, client in enumerate(clients):
            client.sendall(b"%04d" % number)
        for _ in clients:
            peer = stack.enter_context(accepted(upstream))
            peer.sendall(exactly(peer, 4) * 2)

        answers = [exactly(client, 8) for client in clients]

    assert answers == [b"%04d" % number * 2 for number in range(200)]
    until(lambda: running.bridge.connections == 0)


def test_thousands_of_connections_leave_no_resources_behind(
    running: Running, upstream: socket.socket
) -> None:
    before = descriptors()

    for _ in range(2000):
        running.client().close()
        upstream.accept()[0].close()

    until(lambda: running.bridge.connections == 0)
    assert descriptors() <= before


def test_a_client_above_the_limit_waits_until_another_one_ends(
    upstream: socket.socket, directory: Path
) -> None:
    near = listening(socket.AF_INET, directory)
    with Running(near, upstream_of(upstream), limit=1) as running:
        first = running.client()
        with accepted(upstream) as peer, running.client() as second:
            second.sendall(b"mine")
            first.sendall(b"x")
            assert exactly(peer, 1) == b"x"
            assert running.bridge.connections == 1
            first.close()
            assert everything_from(peer) == b""
        with accepted(upstream) as peer:
            assert exactly(peer, 4) == b"mine"


def test_without_descriptors_clients_wait_without_a_busy_loop(
    running: Running, upstream: socket.socket
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with running.client() as first, accepted(upstream) as peer:
        late = socket.socket()
        late.settimeout(WAIT_S)
        highest = max(int(entry.name) for entry in Path("/dev/fd").iterdir())
        fillers = [os.dup(0) for _ in range(3)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.dup(0))
            late.connect(running.listener.getsockname())
            until(lambda: any("too many open files" in line for line in running.said))
            first.sendall(b"still served")
            assert exactly(peer, 12) == b"still served"
            told = len(running.said)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in fillers:
                os.close(descriptor)

        with late, accepted(upstream) as second:
            late.sendall(b"at last")
            assert exactly(second, 7) == b"at last"
        assert told < 100  # a pause before each


def test_without_descriptors_for_the_upstream_the_client_gets_an_error_response(
    running: Running,
) -> None:
    upstream = running.bridge.upstream

    class Exhausted(RelayTarget):
        def open(self, family: socket.AddressFamily) -> socket.socket:
            raise OSError(errno.EMFILE, f"no descriptor is left for {family}")

    running.bridge.upstream = Exhausted(upstream.name, upstream.family, upstream.address)
    with running.client() as client:
        client.sendall(GET)

        assert b" 502 " in everything_from(client)


# Clients that know of no proxy

GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.fixture
def tunnels(directory: Path) -> Iterator[tuple[Running, socket.socket]]:
    """A bridge that asks for a tunnel to db:5432 for each client, and the proxy that it asks."""
    with (
        listening(socket.AF_UNIX, directory) as proxy,
        Running(
            listening(socket.AF_INET, directory),
            upstream_of(proxy),
            header=b"[header]",
            opening_for=lambda _client: TunnelOpening("db:5432"),
        ) as running,
    ):
        yield running, proxy


def asked(peer: socket.socket) -> bytes:
    return exactly(peer, len(b"[header]" + TunnelOpening("db:5432").request))


def test_a_tunnel_is_asked_for_and_nothing_of_the_client_goes_before_the_answer(
    tunnels: tuple[Running, socket.socket],
) -> None:
    running, proxy = tunnels
    with running.client() as client, accepted(proxy) as peer:
        client.sendall(b"early")

        assert asked(peer) == b"[header]" + TunnelOpening("db:5432").request
        assert not select.select([peer], [], [], 0)[0]
        peer.sendall(GRANTED)
        assert exactly(peer, 5) == b"early"


def test_a_server_that_speaks_first_is_heard_first(tunnels: tuple[Running, socket.socket]) -> None:
    running, proxy = tunnels
    with running.client() as client, accepted(proxy) as peer:
        asked(peer)
        peer.sendall(GRANTED + b"hello, ")
        peer.sendall(b"client")

        assert exactly(client, 13) == b"hello, client"


def test_a_client_that_ends_its_half_early_still_gets_the_whole_answer(
    tunnels: tuple[Running, socket.socket],
) -> None:
    running, proxy = tunnels
    with running.client() as client, accepted(proxy) as peer:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        asked(peer)
        peer.sendall(GRANTED)

        assert everything_from(peer) == b"question"
        peer.sendall(b"answer")
        peer.close()
        assert everything_from(client) == b"answer"


def test_a_refused_tunnel_resets_the_client_and_is_reported_once(
    tunnels: tuple[Running, socket.socket],
) -> None:
    running, proxy = tunnels
    for _ in range(2):
        with running.client() as client, accepted(proxy) as peer:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            asked(peer)
            peer.sendall(b"HTTP/1.1 403 Denied\r\nX-Claude-Proxy-Reason: no-rule\r\n\r\nwhy")

            with pytest.raises(ConnectionResetError):
                everything_from(client)

    assert running.said == ["the proxy opens no tunnel to db:5432: no-rule"]


def test_a_proxy_that_says_nothing_and_closes_opens_no_tunnel(
    tunnels: tuple[Running, socket.socket],
) -> None:
    running, proxy = tunnels
    with running.client() as client, accepted(proxy) as peer:
        asked(peer)
        peer.close()

        with pytest.raises(ConnectionResetError):
            everything_from(client)
    assert running.said == ["the proxy opens no tunnel to db:5432: it closed the connection"]


def test_a_client_that_leaves_before_the_answer_is_forgotten(
    tunnels: tuple[Running, socket.socket],
) -> None:
    running, proxy = tunnels
    with running.client() as client, accepted(proxy) as peer:
        asked(peer)
        reset(client)

        assert peer.recv(1) == b""
    until(lambda: running.bridge.connections == 0)


def test_a_client_for_whom_there_is_no_tunnel_is_reset_and_the_proxy_not_asked(
    directory: Path,
) -> None:
    with (
        listening(socket.AF_UNIX, directory) as proxy,
        Running(
            listening(socket.AF_INET, directory),
            upstream_of(proxy),
            opening_for=lambda _client: None,
        ) as running,
    ):
        for _ in range(3):
            with pytest.raises(ConnectionResetError), running.client() as client:
                client.recv(1)

        assert not select.select([proxy], [], [], 0)[0]
        assert running.bridge.connections == 0


def test_a_listener_can_be_added_while_others_are_served(directory: Path) -> None:
    inside, outside = socket.socketpair()
    with (
        inside,
        outside,
        listening(socket.AF_UNIX, directory) as proxy,
        listening(socket.AF_INET, directory) as listener,
        Running(
            listening(socket.AF_INET, directory),
            upstream_of(proxy),
            header=b"[header]",
            opening_for=lambda _client: TunnelOpening("db:5432"),
        ) as running,
        running.client() as first,
        accepted(proxy) as peer,
    ):

        def add(_events: int) -> None:
            inside.recv(1)
            running.bridge.add(listener)

        running.bridge.loop.watch(inside.fileno(), 0, selectors.EVENT_READ, add)
        asked(peer)
        outside.sendall(b"!")

        with joined(listener) as client, accepted(proxy) as other:
            asked(other)
            other.sendall(GRANTED + b"hello")
            assert exactly(client, 5) == b"hello"
        peer.sendall(GRANTED + b"hello")
        assert exactly(first, 5) == b"hello"


def test_a_refused_client_of_plain_http_gets_the_answer_of_the_proxy(directory: Path) -> None:
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\n"
    with (
        listening(socket.AF_UNIX, directory) as proxy,
        Running(
            listening(socket.AF_INET, directory),
            upstream_of(proxy),
            opening_for=lambda _client: TunnelOpening("web:80"),
        ) as running,
        running.client() as client,
        accepted(proxy) as peer,
    ):
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        exactly(peer, len(TunnelOpening("web:80").request))
        peer.sendall(answer)
        peer.sendall(b"why.")
        peer.close()

        assert everything_from(client) == answer + b"why."
