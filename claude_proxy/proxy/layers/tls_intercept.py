"""TLS interception: the TLS server that a client sees, after its ClientHello was judged.

A client that leaves the handshake unfinished, or sends nothing after it, is distinguished from one
that trusts the certificate. An end that is no close_notify is never passed on as an orderly one.
"""

import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, context, events, layer

from claude_proxy.proxy.layers.session import TimedOut
from claude_proxy.proxy.openssl_words import CLOSED, words_of
from claude_proxy.proxy.tls_records import TlsRecords
from claude_proxy.wire.client_hello import ClientHello

type MakeLayer = Callable[[context.Context], layer.Layer]


class ClientWatch(Protocol):
    """Learns once how a client's TLS went."""

    def trusted(self) -> None:
        """Note that the client sent something through TLS, so it trusts the certificate."""

    def failed(self, error: str) -> None:
        """Note that the handshake failed, and why: in OpenSSL's words."""

    def left(self, error: str | None) -> None:
        """Note that the client left after the handshake, before it sent anything."""

    def timed_out(self) -> None:
        """Note that the handshake took too long."""

    def no_certificate(self) -> None:
        """Note that there is no certificate to show."""


@dataclass(slots=True, eq=False)
class _Inner:
    """What there is after the handshake."""

    layer: layer.Layer
    records: TlsRecords


class TlsIntercept(layer.Layer):
    """The TLS server that the client sees; inside is the layer of the protocol that it chose.

    It does not wait for replies, so none of the base class's pausing is needed.
    """

    def __init__(
        self,
        context: context.Context,
        hello: ClientHello,
        inner: MakeLayer,
        watch: ClientWatch,
        shows: ssl.SSLContext | None,
    ) -> None:
        super().__init__(context)
        self._client = client = context.client
        client.tls = True
        client.sni = hello.sni
        self._make = inner
        self._watch = watch
        self._records = None if shows is None else TlsRecords(shows, server=True)
        self._inner: _Inner | None = None  # once the handshake is done
        self._waiting: list[events.Event] = []  # of others, until then
        self._has_sent = False  # the client, through TLS, or it has left
        self._has_ended = False  # its half, by close_notify
        self._is_over = False

    def handle_event(self, event: events.Event) -> Iterable[commands.Command]:  # type: ignore[override]
        """Take an event; return what is to be done."""
        out: list[commands.Command] = []
        inner = self._inner
        of_client = isinstance(event, events.ConnectionEvent) and event.connection is self._client
        if self._is_over:
            pass
        elif inner is None:
            self._on_before(event, out)
        elif not of_client:
            self._pass_to(inner, event, out)
        elif isinstance(event, events.DataReceived):
            self._decrypt(inner, event.data, out)
        # After a close_notify the inner layer has been told already.
        elif not self._has_ended or self._client.state is ConnectionState.CLOSED:
            self._pass_to(inner, event, out)
        return out

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from self.handle_event(event)

    # --- the handshake

    def _on_before(self, event: events.Event, out: list[commands.Command]) -> None:
        if self._records is None:
            self._watch.no_certificate()
            self._give_up(out)
        elif isinstance(event, events.Start):
            pass
        elif isinstance(event, events.DataReceived):
            self._shake(self._records, event.data, out)
        elif isinstance(event, events.ConnectionClosed):
            self._watch.failed(CLOSED)
            self._give_up(out)
        elif isinstance(event, TimedOut):
            self._watch.timed_out()
        else:
            self._waiting.append(event)

    def _shake(self, records: TlsRecords, data: bytes, out: list[commands.Command]) -> None:
        try:
            done = records.shake(data)
        except ssl.SSLError as error:
            self._send(records.take(), out)  # an alert
            self._watch.failed(words_of(error))
            self._give_up(out)
            return
        # Also where it is only a ticket of TLS 1.3, which could go with the first response: OpenSSL
        # takes none any more on a connection that it has ended its half of.
        self._send(records.take(), out)
        if done:
            self._client.alpn = records.alpn
            self._begin(records, out)

    def _begin(self, records: TlsRecords, out: list[commands.Command]) -> None:
        """Start the layer of the protocol that was negotiated (ALPN)."""
        self._inner = inner = _Inner(self._make(self.context), records)
        waiting, self._waiting = self._waiting, []
        for event in (events.Start(), *waiting):
            self._pass_to(inner, event, out)
        self._decrypt(inner, b"", out)

    def _give_up(self, out: list[commands.Command]) -> None:
        self._is_over = True
        out.append(commands.CloseConnection(self._client))

    # --- after it

    def _decrypt(self, inner: "_Inner", data: bytes, out: list[commands.Command]) -> None:
        records, client = inner.records, self._client
        got = records.decrypt(data)
        if got.plain:
            self._pass_to(inner, events.DataReceived(client, got.plain), out)
        self._send(records.take(), out)
        if not got.ended:
            return
        self._has_ended = True
        if client.state & ConnectionState.CAN_READ:
            # Once broken, TLS carries nothing in the other direction either.
            broken = got.error is not None
            if broken:
                client.error = got.error
            client.state &= ConnectionState.CLOSED if broken else ConnectionState.CAN_WRITE
            self._pass_to(inner, events.ConnectionClosed(client), out)
            if broken:
                self._is_over = True
                out.append(commands.CloseConnection(client))

    def _pass_to(self, inner: "_Inner", event: events.Event, out: list[commands.Command]) -> None:
        """Pass an event to the inner layer, and encrypt what it sends in response."""
        client, records = self._client, inner.records
        if not self._has_sent:
            self._note(event)
        for command in inner.layer.handle_event(event):
            if isinstance(command, commands.ConnectionCommand) and command.connection is client:
                if isinstance(command, commands.SendData):
                    self._send(records.encrypt(command.data), out)
                    continue
                if isinstance(command, commands.CloseConnection):
                    self._send(records.end(), out)
            out.append(command)

    def _note(self, event: events.Event) -> None:
        """Note the first sign of whether the client trusts the certificate."""
        if isinstance(event, events.DataReceived):
            self._has_sent = True
            self._watch.trusted()
        elif isinstance(event, events.ConnectionClosed):
            self._has_sent = True
            self._watch.left(self._client.error)

    def _send(self, data: bytes, out: list[commands.Command]) -> None:
        if data:
            out.append(commands.SendData(self._client, data))
