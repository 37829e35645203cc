"""Speaks HTTP/2 with a stage from memory, by the h2 library: a client, and an origin."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from tests.proxy.layers.stage import Stage
from tests.proxy.layers.tls_peers import TlsOrigin

type Field = tuple[str, str]


@dataclass
class Message:
    """What came on one stream."""

    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    over: bool = False
    reset: bool = False
    code: int | None = None  # of the reset
    names: list[str] = field(default_factory=list)  # of the fields, each time that they came
    interim: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return int(self.fields[":status"])

    @property
    def reason(self) -> str:
        return self.fields.get("x-claude-proxy-reason", "")


def _configuration(*, client: bool) -> H2Configuration:
    # Without its checks: what a polite client would not send is what is tested.
    return H2Configuration(
        client_side=client,
        header_encoding=None,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
        validate_inbound_headers=False,
    )


def _fields_of(headers: Iterable[tuple[bytes | str, bytes | str]] | None) -> dict[str, str]:
    return {bytes(name).decode(): bytes(value).decode() for name, value in headers or ()}  # type: ignore[arg-type]


class _End:
    """One end of an HTTP/2 connection."""

    def __init__(self, *, client: bool, reads: bool) -> None:
        self._reads = reads  # and so opens the window again
        self.h2 = H2Connection(_configuration(client=client))
        self.h2.initiate_connection()
        self.messages: defaultdict[int, Message] = defaultdict(Message)
        self.terminated: int | None = None  # the code of GOAWAY

    def _note(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case RequestReceived() | ResponseReceived():
                    message = self.messages[event.stream_id]
                    message.fields = _fields_of(event.headers)
                    message.names = [bytes(name).decode() for name, _ in event.headers or ()]
                case InformationalResponseReceived():
                    self.messages[event.stream_id].interim = _fields_of(event.headers)
                case TrailersReceived():
                    self.messages[event.stream_id].trailers = _fields_of(event.headers)
                case DataReceived():
                    self.messages[event.stream_id].body += event.data or b""
                    self._taken(event)
                case StreamEnded():
                    self.messages[event.stream_id].over = True
                case StreamReset():
                    self.messages[event.stream_id].reset = True
                    self.messages[event.stream_id].code = int(event.error_code or 0)
                case ConnectionTerminated():
                    self.terminated = int(event.error_code or 0)

    def _taken(self, event: DataReceived) -> None:
        if self._reads:
            self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)

    def pump(self) -> None:
        raise NotImplementedError

    def sends_all_it_may(self, stream: int, *, most: int = 2**23) -> int:
        """Send content until the windows are shut; return how much went."""
        sent = 0
        while sent < most:
            window = self.h2.local_flow_control_window(stream)
            piece = min(window, self.h2.max_outbound_frame_size)
            if not piece:
                break
            self.h2.send_data(stream, bytes(piece))
            self.pump()
            sent += piece
        return sent


class Http2Client(_End):
    """A client that speaks HTTP/2 to a lane."""

    def __init__(self, stage: Stage, *, reads: bool = True) -> None:
        super().__init__(client=True, reads=reads)
        self._stage = stage
        self.pump(stage.client.take())

    def pump(self, data: bytes = b"") -> None:
        """Exchange bytes with the proxy until both are waiting."""
        if data:
            self._note(self.h2.receive_data(data))
        while out := self.h2.data_to_send():
            if got := self._stage.says(out):
                self._note(self.h2.receive_data(got))

    def ask(self, *fields: Field, end: bool = True, body: bytes = b"") -> int:
        """Begin a request; return the number of its stream."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, list(fields), end_stream=end and not body)
        if body:
            self.h2.send_data(stream, body, end_stream=end)
        self.pump()
        return stream

    def sends(self, stream: int, body: bytes, *, end: bool = False) -> None:
        self.h2.send_data(stream, body, end_stream=end)
        self.pump()

    def get(self, *fields: Field, path: str = "/", host: str = "example.com") -> int:
        return self.ask(*pseudo("GET", path, host), *fields)


def pseudo(method: str, path: str = "/", host: str = "example.com") -> tuple[Field, ...]:
    """Return the fields that every request begins with."""
    return (":method", method), (":scheme", "https"), (":authority", host), (":path", path)


class Http2Origin(_End):
    """An origin that speaks HTTP/2, on the connection that was dialled last."""

    def __init__(
        self, tls: TlsOrigin, client: Http2Client, *, reads: bool = True, pumps: bool = True
    ) -> None:
        super().__init__(client=False, reads=reads)
        self._tls = tls
        self._client = client
        if pumps:
            self.pump()

    def sends_raw(self, data: bytes) -> None:
        """Send bytes that the h2 library would not."""
        self._client.pump(self._tls.answers(data))
        self.pump()

    def pump(self) -> None:
        """Exchange bytes with the proxy until both are waiting."""
        while True:
            if got := self._tls.gets():
                self._note(self.h2.receive_data(got))
            out = self.h2.data_to_send()
            if not out:
                return
            self._client.pump(self._tls.answers(out))

    def answer(self, stream: int, *fields: Field, body: bytes = b"", end: bool = True) -> None:
        self.h2.send_headers(stream, [(":status", "200"), *fields], end_stream=end and not body)
        if body:
            self.h2.send_data(stream, body, end_stream=end)
        self.pump()
