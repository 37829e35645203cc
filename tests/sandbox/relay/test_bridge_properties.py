"""The laws of a relayed connection hold whatever its two sides do, in any order."""

import contextlib
import errno
import socket
import struct
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from claude_proxy.sandbox.relay.bridge import Bridge
from claude_proxy.sandbox.relay.relay_target import RelayTarget

_RESET = struct.pack("ii", 1, 0)
_WAIT = {errno.EAGAIN, errno.EWOULDBLOCK}
_ROUNDS = 8  # of the loop after each action: enough for bytes to cross both sockets


@dataclass
class Side:
    """One end of the relayed connection, what it said and what it heard."""

    socket: socket.socket
    mark: bytes
    sent: int = 0
    heard: bytearray = field(default_factory=bytearray)
    has_ended: bool = False
    was_reset: bool = False
    is_closed: bool = False
    heard_end: bool = False
    heard_reset: bool = False

    def send(self, size: int) -> None:
        if not self.has_ended:
            try:
                self.sent += self.socket.send(self.mark * size)
            except OSError as error:
                # A reset is told once: reading would take it for an end afterwards.
                self.heard_reset = self.heard_reset or error.errno not in _WAIT

    def end(self) -> None:
        if not self.has_ended:
            self.has_ended = True
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)

    def hear(self) -> None:
        while not (self.is_closed or self.heard_end):
            try:
                data = self.socket.recv(1 << 20)
            except OSError as error:
                if error.errno not in _WAIT:
                    self.close()
                return
            self.heard += data
            self.heard_end = not data and not self.heard_reset
            if self.heard_reset and not data:
                return

    def close(self) -> None:
        """Close; with unread bytes the kernel makes a reset of it."""
        self.has_ended = self.is_closed = True
        self.socket.close()

    def reset(self) -> None:
        if not self.is_closed:
            self.was_reset = not self.has_ended
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close()


class Relayed:
    """A client and an upstream with a bridge between them, moved on step by step."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()
        near, far = (self._listening() for _ in range(2))
        near.setblocking(False)
        self.bridge = Bridge([near], RelayTarget("the proxy", far.family, far.getsockname()))
        self.loop = self.bridge.loop
        self.stack.callback(self.loop.close)
        self.time_s = 0.0
        self.loop.now = lambda: self.time_s
        self.loop.running = True
        self.bridge._accept_more()
        self.idle = len(self.loop._selector.get_map())
        client = socket.create_connection(near.getsockname())
        self.move_on()
        upstream, _ = far.accept()
        for each in (client, upstream):
            each.setblocking(False)
            self.stack.callback(each.close)
        self.client, self.upstream = Side(client, b"c"), Side(upstream, b"u")

    def _listening(self) -> socket.socket:
        listener = self.stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        return listener

    def move_on(self, seconds: float = 0.0) -> None:
        self.time_s += seconds
        for _ in range(_ROUNDS):
            self.loop.step(0)

    def end(self) -> None:
        """Let both sides hear what there is, end, and wait past every limit."""
        for _ in range(200):
            heard = len(self.client.heard), len(self.upstream.heard)
            self.client.hear()
            self.upstream.hear()
            self.move_on()
            if heard == (len(self.client.heard), len(self.upstream.heard)):
                break
        self.client.end()
        self.upstream.end()
        for _ in range(3):
            self.move_on()
            self.client.hear()
            self.upstream.hear()
        self.client.close()
        self.upstream.close()
        self.move_on()
        self.move_on(3600)
        for _ in range(200):  # megabytes that the kernel holds take many rounds
            if self.bridge.connections:
                self.move_on()


sides = st.sampled_from(["client", "upstream"])
actions = st.one_of(
    st.tuples(st.just("send"), sides, st.sampled_from([1, 1000, 70_000, 3_000_000])),
    st.tuples(st.sampled_from(["end", "hear", "close", "reset", "wait"]), sides, st.just(0)),
)


def play(relayed: Relayed, script: list[tuple[str, str, int]]) -> None:
    for name, of_whom, size in script:
        side = relayed.client if of_whom == "client" else relayed.upstream
        if name == "send":
            side.send(size)
        elif name == "wait":
            relayed.move_on(1.0)
        elif not side.is_closed:
            getattr(side, name)()
        relayed.move_on()


def closed_early(side: Side, other: Side) -> bool:
    """Whether it closed with bytes unread, by which the kernel may take back what it had sent."""
    return len(side.heard) < other.sent


# A reset that a failed send has told of, while what came before it is still unread.
@example([("send", "client", 3_000_000), ("reset", "client", 0), ("send", "upstream", 1)])
@example([("close", "upstream", 0), ("send", "client", 3_000_000), ("send", "client", 3_000_000)])
@settings(max_examples=60, deadline=None)
@given(st.lists(actions, max_size=8))
def test_a_part_never_passes_for_the_whole_and_every_connection_ends(
    script: list[tuple[str, str, int]],
) -> None:
    relayed = Relayed()
    with relayed.stack:
        play(relayed, script)
        relayed.end()
        client, upstream = relayed.client, relayed.upstream

        # What is heard is what was said, from its beginning and in order.
        assert upstream.heard == client.mark * len(upstream.heard)
        assert client.heard == upstream.mark * len(client.heard)
        assert len(upstream.heard) <= client.sent
        assert len(client.heard) <= upstream.sent
        # An orderly end is that of everything.
        if upstream.heard_end:
            assert not client.was_reset
            assert len(upstream.heard) == client.sent
        if client.heard_end and not upstream.was_reset and not closed_early(upstream, client):
            assert len(client.heard) == upstream.sent
        # Nothing is left of the connection: no socket that is waited for, no bytes, no client.
        assert relayed.bridge.connections == 0
        assert relayed.bridge.held == 0
        assert len(relayed.loop._selector.get_map()) == relayed.idle


@settings(max_examples=40, deadline=None)
@given(st.lists(actions, max_size=6))
def test_no_more_than_one_chunk_is_held_in_each_direction(
    script: list[tuple[str, str, int]],
) -> None:
    relayed = Relayed()
    with relayed.stack:
        for action in script:
            play(relayed, [action])
            assert relayed.bridge.held <= 2 * len(relayed.bridge.scratch)
        relayed.end()
