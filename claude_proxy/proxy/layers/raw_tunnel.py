"""Raw tunnel: bytes of any protocol to one host and port, by a rule with scheme tcp.

Law kept: agreement. TLS must name the target, and plain HTTP does not pass, as its Host field could
name another host of the same server; to a service of this machine that the run was given by its
port, both pass. Only what a client sends first is looked at: TLS that begins
later, as after STARTTLS, is not looked at. The upstream may speak first, as
servers of mail and databases do, so it is dialled at once: the tunnel itself was allowed. Either
side may end its half first.
"""

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands
from mitmproxy.proxy.context import Context

from claude_proxy.policy.reason import Reason
from claude_proxy.policy.rules import Tls
from claude_proxy.proxy.dialer import DialError
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.layers.passthrough import Passthrough
from claude_proxy.proxy.layers.session import Commands, PauseReading, Session
from claude_proxy.proxy.upstream_errors import UpstreamError
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.client_hello import ClientHello, HelloUnreadableError
from claude_proxy.wire.first_bytes import FirstBytes, HttpFoundError
from claude_proxy.wire.tls_alerts import ACCESS_DENIED, DECODE_ERROR


class RawTunnel(Passthrough):
    """A tunnel whose first bytes from the client are judged, whatever they are."""

    def __init__(
        self, context: Context, session: Session, target: Authority, attempt: Attempt
    ) -> None:
        super().__init__(context, session, target, attempt, b"")
        self._first = FirstBytes()
        if attempt.decision.opaque:
            self._first.release()
        self._has_ended = False  # the upstream sends no more
        session.raw = True

    def _opened(self, error: DialError | UpstreamError | str | None) -> Commands:
        yield from super()._opened(error)
        if error is None:  # after SOCKS5 it is held until now
            yield PauseReading(self._upstream.server, hold=False)

    def _upstream_ended(self) -> Commands:
        client, server = self.context.client, self._upstream.server
        half = client.state is ConnectionState.OPEN and server.state is ConnectionState.CAN_WRITE
        if not half or not self._upstream.ended_well:
            yield from super()._upstream_ended()
            return
        self._has_ended = True
        yield from self._release_first_bytes()
        yield commands.CloseTcpConnection(client, half_close=True)

    def _client_closed(self) -> Commands:
        if self._has_ended:
            yield from self._close(None)
        else:
            yield from super()._client_closed()

    def _up(self, data: bytes) -> Commands:
        if self._has_ended and self._upstream.server.state is ConnectionState.CLOSED:
            yield from self._close(None)  # nobody reads it any more
            return
        if self._first.is_over:
            yield from super()._up(data)
            return
        try:
            found = self._first.feed(data)
        except HttpFoundError:
            yield from self._deny(Reason.NOT_TLS, b"")
        except HelloUnreadableError:
            yield from self._deny(Reason.HELLO_UNREADABLE, DECODE_ERROR)
        else:
            if isinstance(found, ClientHello):
                yield from self._judge(found)
            elif found:
                yield from super()._up(found)

    def _judge(self, hello: ClientHello) -> Commands:
        session = self._session
        denied = session.gate.hello(
            session.client_info,
            self._target,
            hello.sni,
            encrypted=hello.encrypted,
            tls=Tls.PASSTHROUGH,
        )
        if denied is None:
            yield from super()._up(self._first.release())
        else:
            session.gate.end(denied)
            yield from self._refuse(denied.decision.reason, ACCESS_DENIED)

    def _deny(self, reason: Reason, alert: bytes) -> Commands:
        session = self._session
        session.gate.refuse_first_bytes(session.client_info, self._attempt, reason, self._target)
        yield from self._refuse(reason, alert)

    def _refuse(self, reason: Reason, alert: bytes) -> Commands:
        self._first.release()
        if alert:
            yield commands.SendData(self.context.client, alert)
        yield from self._close(reason.value)
