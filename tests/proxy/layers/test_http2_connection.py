"""The laws of one HTTP/2 connection: windows kept, turns shared, faults kept to their stream."""

from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamReset
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame, SettingsFrame

from claude_proxy.proxy.layers.http2_connection import GoAway, Http2Connection
from claude_proxy.proxy.layers.http2_frames import Http2Error
from claude_proxy.proxy.layers.http2_windows import FIRST_WINDOW, WindowBudget

HEAD = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")]
ANSWER = [(b":status", b"200")]


class Talk:
    """A connection with a client, which the h2 library plays."""

    def __init__(self) -> None:
        self.peer = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.peer.initiate_connection()
        self.taken: dict[int, int] = {}
        self.ours = Http2Connection(
            client_side=False, head_limit=4096, budget=WindowBudget(), taken=self._took
        )
        self.pump()

    def _took(self, number: int, size: int) -> None:
        self.taken[number] = self.taken.get(number, 0) + size

    def pump(self, data: bytes = b"") -> list[Any]:
        """Exchange bytes until both wait; return what the client saw."""
        seen: list[Any] = []
        self.events: list[Any] = []
        self.ours.feed(data)
        while True:
            self.ours.feed(self.peer.data_to_send())
            while (several := self.ours.next()) is not None:
                self.events += several
            out = self.ours.take()
            if not out:
                return seen
            seen += self.peer.receive_data(out)

    def asks(self, *, end: bool = True) -> int:
        number = self.peer.get_next_available_stream_id()
        self.peer.send_headers(number, HEAD, end_stream=end)
        self.pump()
        return number


@pytest.fixture
def talk() -> Talk:
    return Talk()


def size_of(seen: list[Any], number: int) -> int:
    return sum(
        len(event.data)
        for event in seen
        if isinstance(event, DataReceived) and event.stream_id == number
    )


def test_content_waits_for_the_peers_window_and_is_told_when_it_goes(talk: Talk) -> None:
    number = talk.asks()
    talk.ours.send_head(number, ANSWER, end=False)
    talk.ours.send(number, bytes(100_000), end=True)
    first = size_of(talk.pump(), number)
    waiting = talk.ours.queued(number), talk.ours.all_queued
    talk.peer.increment_flow_control_window(100_000)
    talk.peer.increment_flow_control_window(100_000, number)
    second = size_of(talk.pump(), number)

    assert (first, second) == (65_535, 100_000 - 65_535)
    assert waiting == (100_000 - 65_535, 100_000 - 65_535)
    assert talk.taken == {number: 100_000}
    assert talk.ours.all_queued == 0


def test_streams_take_turns_in_the_window_of_the_connection(talk: Talk) -> None:
    talk.peer.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**20})
    numbers = [talk.asks() for _ in range(3)]
    for number in numbers:
        talk.ours.send_head(number, ANSWER, end=False)
        talk.ours.send(number, bytes(200_000))
    talk.pump()
    talk.peer.increment_flow_control_window(3 * 16_384)
    seen = talk.pump()

    assert [size_of(seen, number) for number in numbers] == [16_384] * 3


def test_trailers_come_after_what_waits(talk: Talk) -> None:
    number = talk.asks()
    talk.ours.send_head(number, ANSWER, end=False)
    talk.ours.send(number, bytes(70_000))
    talk.ours.finish(number, [(b"x-sum", b"1")])
    early = [type(event).__name__ for event in talk.pump()]
    talk.peer.increment_flow_control_window(70_000)
    talk.peer.increment_flow_control_window(70_000, number)
    late = [type(event).__name__ for event in talk.pump()]

    assert "TrailersReceived" not in early
    assert late[-2:] == ["TrailersReceived", "StreamEnded"]


def test_a_peer_may_send_one_window_until_it_was_passed_on(talk: Talk) -> None:
    number = talk.asks(end=False)
    before = talk.peer.local_flow_control_window(number)
    talk.peer.send_data(number, bytes(16_384))
    talk.pump()
    talk.ours.passed_on(number, FIRST_WINDOW // 2, at_once=False)
    talk.pump()

    assert before == min(FIRST_WINDOW, talk.peer.outbound_flow_control_window + 16_384)
    assert talk.peer.local_flow_control_window(number) == FIRST_WINDOW + 16_384


def test_a_wrong_content_length_does_not_end_the_connection(talk: Talk) -> None:
    number = talk.peer.get_next_available_stream_id()
    talk.peer.send_headers(number, [*HEAD, (b"content-length", b"3")])
    talk.peer.send_data(number, b"12345", end_stream=True)

    talk.pump()

    assert any(isinstance(event, DataReceived) for event in talk.events)


def test_a_goaway_of_the_peer_leaves_open_streams_open(talk: Talk) -> None:
    number = talk.asks()

    talk.pump(GoAwayFrame(0, last_stream_id=0, error_code=0).serialize())
    events = talk.events
    talk.ours.send_head(number, ANSWER, end=True)

    assert events == [GoAway(0, 0)]
    assert [type(event).__name__ for event in talk.pump()] == ["ResponseReceived", "StreamEnded"]


def test_a_reset_stream_is_forgotten_with_what_waits(talk: Talk) -> None:
    number = talk.asks()
    talk.ours.send_head(number, ANSWER, end=False)
    talk.ours.send(number, bytes(100_000))
    talk.pump()
    talk.peer.reset_stream(number)
    talk.pump()
    talk.ours.send(number, b"more", end=True)

    assert any(isinstance(event, StreamReset) for event in talk.events)
    assert talk.ours.all_queued == 0
    assert talk.pump() == []


def test_the_encoders_table_stays_small_whatever_the_peer_allows(talk: Talk) -> None:
    talk.pump(SettingsFrame(0, settings={SettingCodes.HEADER_TABLE_SIZE: 2**31}).serialize())

    assert talk.ours._h2.encoder.header_table_size == 4096


def test_a_malformed_frame_ends_the_connection_with_goaway(talk: Talk) -> None:
    talk.ours.feed(b"\x00\x00\x01\x06\x00\x00\x00\x00\x00x")

    with pytest.raises(Http2Error) as caught:
        talk.ours.next()
    talk.ours.end(caught.value.code)

    assert talk.ours.over
    assert [type(event).__name__ for event in talk.peer.receive_data(talk.ours.take())] == [
        "ConnectionTerminated"
    ]


def test_nothing_is_sent_after_the_end(talk: Talk) -> None:
    number = talk.asks()
    talk.ours.end(ErrorCodes.NO_ERROR)
    talk.ours.take()

    talk.ours.send_head(number, ANSWER, end=False)
    talk.ours.send(number, b"x")
    talk.ours.reset(number, ErrorCodes.CANCEL)

    assert talk.ours.take() == b""
