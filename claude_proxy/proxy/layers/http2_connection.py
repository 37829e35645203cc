"""One HTTP/2 connection with a client or an origin: frames in, events out; over the h2 library.

Laws kept: no work over all streams for one frame; what waits for a peer's window is bounded by the
window of its source; a fault of one stream is no fault of the connection. Sans-io.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError, StreamClosedError, StreamIDTooLowError
from h2.settings import SettingCodes
from h2.stream import H2Stream
from hyperframe.frame import Frame as HyperFrame
from hyperframe.frame import RstStreamFrame

from claude_proxy.policy.request import RawField
from claude_proxy.proxy.layers.http2_flood import FloodMeter
from claude_proxy.proxy.layers.http2_frames import (
    GOAWAY,
    MAX_FRAME,
    FrameReader,
    Http2Error,
)
from claude_proxy.proxy.layers.http2_windows import FIRST_WINDOW, ReceiveWindow, WindowBudget

MAX_STREAMS: Final = 100  # that a client may have open at once
# The window of the connection bounds nothing: those of its streams do, and one stream that is not
# read must not stop the others.
_LARGEST_WINDOW: Final = 2**31 - 1
_GIVE_BACK: Final = 2**30
# RFC 7541 section 4.2: the peer's setting is the most our encoder may use. It is searched from end
# to end for each field, so it stays at the size that every peer must take.
_TABLE: Final = 4096
_GOAWAY_PAYLOAD: Final = 17  # bytes of a GOAWAY frame up to its debug data


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer opens no further streams, and has worked off none above `last_stream`."""

    last_stream: int
    code: int


class _TolerantStream(H2Stream):
    """A stream whose Content-Length is not looked at: h2 would end the whole connection for it."""

    def _initialize_content_length(self, headers: object) -> None:
        pass


class _Connection(H2Connection):
    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        super()._begin_new_stream(stream_id, allowed_ids)
        stream = _TolerantStream(
            stream_id,
            config=self.config,
            inbound_window_size=self.local_settings.initial_window_size,
            outbound_window_size=self.remote_settings.initial_window_size,
        )
        stream.max_outbound_frame_size = self.max_outbound_frame_size
        self.streams[stream_id] = stream
        return stream

    def _receive_frame(self, frame: HyperFrame) -> list[Event]:
        """Do as h2 does, but without its log line, for which all bytes are written in hex."""
        try:
            frames, events = self._frame_dispatch_table[frame.__class__](frame)
        except StreamClosedError as error:
            if not self._stream_is_closed_by_reset(error.stream_id):
                raise
            return self._answer_late(error.stream_id, error.error_code, error._events)  # noqa: SLF001 - as above
        except StreamIDTooLowError as error:
            if self._stream_is_closed_by_reset(error.stream_id):
                return self._answer_late(error.stream_id, ErrorCodes.STREAM_CLOSED, [])
            if self._stream_is_closed_by_end(error.stream_id):
                raise StreamClosedError(error.stream_id) from error
            raise
        self._prepare_for_sending(frames)
        return list(events)

    def _answer_late(self, number: int, code: ErrorCodes | int, events: list[Event]) -> list[Event]:
        """Reset a stream again on which a frame came after its reset."""
        frame = RstStreamFrame(number)
        frame.error_code = code
        self._prepare_for_sending([frame])
        return events


@dataclass(slots=True, eq=False)
class _Stream:
    """What is known of one open stream beside the h2 library."""

    window: ReceiveWindow
    queue: deque[memoryview] = field(default_factory=deque)  # waits for the peer's window
    queued: int = 0
    ending: bool = False  # nothing follows the queue but its end
    trailers: Sequence[RawField] | None = None
    sent_all: bool = False
    got_all: bool = False


class Http2Connection:
    """Frames of one peer; `taken` gets each stream's bytes that have left its queue."""

    def __init__(
        self,
        *,
        client_side: bool,
        head_limit: int,
        budget: WindowBudget,
        taken: Callable[[int, int], None],
    ) -> None:
        self._h2 = _Connection(
            H2Configuration(
                client_side=client_side,
                header_encoding=None,
                # What is malformed is a fault of its stream, and found in `http2_fields`.
                validate_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_inbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._budget = budget
        self._taken = taken
        # A list that is a little too long is answered; one that is far too long ends everything.
        most = 2 * head_limit
        self._frames = FrameReader(server=not client_side, block_limit=head_limit)
        self._meter = FloodMeter()
        self._streams: dict[int, _Stream] = {}
        # Streams with bytes that only the window of the connection holds back, in turn.
        self._ready: dict[int, None] = {}
        # Streams that were answered before their end; True: for some time.
        self._unwanted: dict[int, bool] = {}
        self._queued = 0
        self._received = 0  # bytes that the connection's window was not given back
        self.settings_seen = False
        self.over = False
        self._offer(client_side=client_side, head_limit=head_limit, most=most)

    def _offer(self, *, client_side: bool, head_limit: int, most: int) -> None:
        settings = self._h2.local_settings
        settings.initial_window_size = FIRST_WINDOW
        settings.max_frame_size = MAX_FRAME
        settings[SettingCodes.MAX_HEADER_LIST_SIZE] = head_limit
        settings[SettingCodes.MAX_CONCURRENT_STREAMS] = MAX_STREAMS
        if client_side:
            settings.enable_push = 0
        # Else h2 offers them only after the first SETTINGS were acknowledged.
        settings.acknowledge()
        self._h2.max_inbound_frame_size = MAX_FRAME
        self._h2.decoder.max_header_list_size = most
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(
            _LARGEST_WINDOW - self._h2.inbound_flow_control_window
        )

    # --- what the peer sends

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer; `next` returns what they mean."""
        self._frames.feed(data)

    @property
    def unread(self) -> int:
        """The bytes of the peer that are not worked off."""
        return self._frames.waiting

    def next(self) -> list[Event | GoAway] | None:
        """Work off one frame; None: there is no whole one. Http2Error ends the connection."""
        frame = self._frames.next()
        if frame is None:
            return None
        self._meter.received(frame)
        if frame.kind == GOAWAY and len(frame.raw) >= _GOAWAY_PAYLOAD and not frame.stream:
            # Not for h2: it would take no further frame, though open streams go on.
            last = int.from_bytes(frame.raw[9:13]) & 0x7FFF_FFFF
            return [GoAway(last, int.from_bytes(frame.raw[13:17]))]
        try:
            events = self._h2.receive_data(frame.raw)
        except ProtocolError as error:
            self._give_up()  # h2 has sent GOAWAY
            raise Http2Error(error.error_code, f"HTTP/2 protocol error: {error}") from error
        except (ValueError, IndexError, KeyError, AssertionError) as error:
            raise Http2Error(ErrorCodes.PROTOCOL_ERROR, "a frame is malformed") from error
        return [event for event in events if self._is_for_others(event)]

    def _is_for_others(self, event: Event) -> bool:
        match event:
            case RequestReceived():
                self._streams[event.stream_id] = _Stream(ReceiveWindow(self._budget))
            case DataReceived():
                self._count_received(event.flow_controlled_length or 0)
            case StreamEnded():
                if (stream := self._streams.get(event.stream_id)) is not None:
                    stream.got_all = True
                    self._forget_if_done(event.stream_id, stream)
            case StreamReset():
                if event.stream_id in self._streams:
                    self._forget(event.stream_id)
                    self._meter.reset()
            case WindowUpdated():
                self._window_opened(event.stream_id)
                return False
            case RemoteSettingsChanged():
                self._settings_changed(event)
        return True

    def _count_received(self, size: int) -> None:
        self._received += size
        if self._received >= _GIVE_BACK:
            self._h2.increment_flow_control_window(self._received)
            self._received = 0

    def _settings_changed(self, event: RemoteSettingsChanged) -> None:
        self.settings_seen = True
        if SettingCodes.HEADER_TABLE_SIZE in event.changed_settings:
            encoder = self._h2.encoder
            encoder.header_table_size = min(encoder.header_table_size, _TABLE)
        if SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
            for number in list(self._streams):
                self._pump(number)

    @property
    def peer_max_streams(self) -> int:
        """How many streams the peer lets us have open at once."""
        return self._h2.remote_settings.max_concurrent_streams if self.settings_seen else 1

    def passed_on(self, number: int, size: int, *, at_once: bool) -> None:
        """Let the peer send `size` more bytes on a stream, as so many were passed on."""
        stream = self._streams.get(number)
        if stream is None or stream.got_all or self.over:
            return
        increment = stream.window.passed_on(size, at_once=at_once)
        if increment:
            with suppress(ProtocolError):  # the stream may have ended in the same frame
                self._h2.increment_flow_control_window(increment, number)

    # --- what is sent to the peer

    def open(self, fields: Sequence[RawField], *, end: bool) -> int:
        """Open a stream by a request's head; return its number."""
        number = self._h2.get_next_available_stream_id()
        self._streams[number] = _Stream(ReceiveWindow(self._budget))
        self.send_head(number, fields, end=end)
        return number

    def send_head(self, number: int, fields: Sequence[RawField], *, end: bool) -> None:
        """Send a head; `end`: nothing follows it."""
        stream = self._streams.get(number)
        if stream is None or self.over:
            return
        self._h2.send_headers(number, fields, end_stream=end)
        if end:
            self._sent_all(number, stream)

    def send(self, number: int, data: bytes, *, end: bool = False) -> None:
        """Send content as far as the peer's windows allow, and queue the rest."""
        stream = self._streams.get(number)
        if stream is None or stream.ending or stream.sent_all or self.over:
            return
        if data:
            stream.queue.append(memoryview(data))
            stream.queued += len(data)
            self._queued += len(data)
        stream.ending = end
        if len(stream.queue) <= 1 or end:
            self._pump(number)

    def finish(self, number: int, trailers: Sequence[RawField] = ()) -> None:
        """End what we send on a stream, by trailers if there are any."""
        stream = self._streams.get(number)
        if stream is None or stream.ending or stream.sent_all or self.over:
            return
        stream.ending = True
        stream.trailers = trailers or None
        self._pump(number)

    @property
    def all_queued(self) -> int:
        """The bytes of all streams that wait for the peer's window."""
        return self._queued

    def is_ending(self, number: int) -> bool:
        """Whether all of a stream has come, and its end waits behind what is queued."""
        stream = self._streams.get(number)
        return stream is not None and stream.got_all and stream.ending

    def queued(self, number: int) -> int:
        """Return the bytes of a stream that wait for the peer's window."""
        stream = self._streams.get(number)
        return 0 if stream is None else stream.queued

    def reset(self, number: int, code: ErrorCodes) -> None:
        """Reset a stream."""
        if number not in self._streams or self.over:
            return
        self._forget(number)
        with suppress(ProtocolError):
            self._h2.reset_stream(number, code)

    @property
    def has_unwanted(self) -> bool:
        """Whether a client still sends requests that were answered."""
        return bool(self._unwanted)

    def still_wanted(self, number: int) -> None:
        """Note that a request that was answered goes on, and that the upstream takes it."""
        if number in self._unwanted:
            self._unwanted[number] = False

    def stop_unwanted(self) -> list[int]:
        """Have a client stop what it still sends of requests that were answered before last time.

        Returns the streams that were stopped.

        RFC 9113 section 8.1: the answer is complete, so this is no error. Some clients (curl) wait
        for it, as they send nothing more and leave the request's end open; but not before they
        have read the answer, which a reset in the same read would take from them.
        """
        before, self._unwanted = self._unwanted, {}
        stopped = []
        for number, is_old in before.items():
            if is_old and number in self._streams:
                self.reset(number, ErrorCodes.NO_ERROR)
                stopped.append(number)
            elif number in self._streams:
                self._unwanted[number] = True
        return stopped

    def end(self, code: ErrorCodes | int = ErrorCodes.NO_ERROR) -> None:
        """Send GOAWAY; nothing is sent after it."""
        if self.over:
            return
        self._give_up()
        with suppress(ProtocolError):
            self._h2.close_connection(code)

    def _give_up(self) -> None:
        self.over = True
        for number in list(self._streams):
            self._forget(number)

    def take(self) -> bytes:
        """Return the bytes for the peer."""
        return self._h2.data_to_send()

    def renew(self) -> None:
        """Begin the next window of the flood meter."""
        self._meter.renew()

    @property
    def is_quiet(self) -> bool:
        """Whether the flood meter has nothing to forget."""
        return self._meter.is_zero

    # --- queues

    def _window_opened(self, number: int) -> None:
        if number:
            self._pump(number)
            return
        while self._ready and self._h2.outbound_flow_control_window > 0:
            # In turn, a frame each: the first must not take the whole window.
            self._pump(next(iter(self._ready)), frames=1)

    def _pump(self, number: int, *, frames: int | None = None) -> None:
        """Send what the windows allow of a stream's queue, at most so many frames."""
        self._ready.pop(number, None)
        stream = self._streams.get(number)
        if stream is None or stream.sent_all:
            return
        sent = 0
        try:
            while stream.queue and frames != 0:
                window = self._h2.local_flow_control_window(number)
                if window <= 0:
                    break
                sent += self._send_piece(number, stream, window)
                frames = None if frames is None else frames - 1
            if not stream.queue and stream.ending and not stream.sent_all:
                self._send_end(number, stream)
        except ProtocolError:  # it was reset in the same turn
            self._forget(number)
        if stream.queue and self._h2.streams[number].outbound_flow_control_window > 0:
            self._ready[number] = None  # only the window of the connection is shut
        if sent:
            self._taken(number, sent)

    def _send_piece(self, number: int, stream: _Stream, window: int) -> int:
        piece = stream.queue[0]
        size = min(len(piece), window, self._h2.max_outbound_frame_size)
        if size == len(piece):
            stream.queue.popleft()
        else:
            stream.queue[0] = piece[size:]
            piece = piece[:size]
        stream.queued -= size
        self._queued -= size
        last = stream.ending and not stream.queue and stream.trailers is None
        self._h2.send_data(number, piece, end_stream=last)
        self._meter.sent_data()
        if last:
            self._sent_all(number, stream)
        return size

    def _send_end(self, number: int, stream: _Stream) -> None:
        if stream.trailers is None:
            self._h2.end_stream(number)
        else:
            self._h2.send_headers(number, stream.trailers, end_stream=True)
        self._sent_all(number, stream)

    def _sent_all(self, number: int, stream: _Stream) -> None:
        stream.sent_all = True
        self._forget_if_done(number, stream)
        if number in self._streams and not self._h2.config.client_side:
            self._unwanted[number] = False

    def _forget_if_done(self, number: int, stream: _Stream) -> None:
        if stream.sent_all and stream.got_all:
            self._forget(number)

    def _forget(self, number: int) -> None:
        self._ready.pop(number, None)
        if (stream := self._streams.pop(number, None)) is not None:
            self._queued -= stream.queued
            stream.queue.clear()
            stream.queued = 0
            stream.window.close()
