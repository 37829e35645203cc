"""Takes a client's first bytes: tells the protocols apart and judges a CONNECT before all else.

Law 3: HTTP, SOCKS5 and a relay's announcement come in by one port, and each way in ends at the
gate. A denied CONNECT is answered here, before any TLS and before any of mitmproxy's HTTP.
"""

from dataclasses import replace

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from claude_proxy.events import Phase
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.dialer import Dialer
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.layers.client_auth import head_admits
from claude_proxy.proxy.layers.http1_proxy import proxy_lane
from claude_proxy.proxy.layers.session import Commands, RuleRevoked, Session, TimedOut
from claude_proxy.proxy.layers.socks5 import Socks5Layer
from claude_proxy.proxy.layers.tunnel_start import TunnelStart
from claude_proxy.proxy.responses import Refusal, bad_request, denial, unauthenticated
from claude_proxy.wire import proxy_protocol, socks5
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.head import BadMessage, RequestHead
from claude_proxy.wire.http1.request import read_request_head

_CONNECT = b"CONNECT "
_SOCKS5 = bytes((socks5.VERSION,))
_PLAIN_PORT = 80
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class ProtocolDetection(layer.Layer):
    """The first layer of every connection; gives way to another once it knows which."""

    def __init__(self, context: Context, session: Session, dialer: Dialer) -> None:
        super().__init__(context)
        self._session = session
        self._dialer = dialer
        self._in = bytearray()
        # Once, before anything else, and from this machine alone: a header that comes later was
        # written by whoever the relay speaks for.
        self._may_announce = session.local
        self._over = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if self._over:
            return
        if isinstance(event, events.DataReceived):
            self._in += event.data
            yield from self._advance()
        elif isinstance(event, events.ConnectionClosed):
            if self.context.client.state is ConnectionState.CLOSED:
                self._over = True
            else:
                yield from self._close()
        elif isinstance(event, (TimedOut, RuleRevoked)):
            yield from self._expired()

    def _advance(self) -> Commands:
        if self._may_announce:
            try:
                known = self._announcement_is_over()
            except ValueError:
                text = "the PROXY protocol header is malformed"
                yield from self._refuse(None, Reason.BAD_REQUEST, bad_request(text))
                return
            if not known:
                return
        if self._in:
            yield from self._choose()

    def _choose(self) -> Commands:
        """Give way to whom the first bytes are for, once they tell."""
        if self._in.startswith(_SOCKS5):
            socks = Socks5Layer(self.context, self._session, self._dialer, self._become)
            yield from self._become(socks, self._taken())
        elif self._in.startswith(_CONNECT):
            yield from self._connect()
        elif not _CONNECT.startswith(self._in):
            lane = proxy_lane(
                self.context, self._session, scheme=Scheme.HTTP, target=None, dialer=self._dialer
            )
            yield from self._become(lane, self._taken())

    def _announcement_is_over(self) -> bool:
        """Take in whom a relay speaks for, if it says so; tell whether that is settled."""
        signature = proxy_protocol.SIGNATURE
        if not self._in.startswith(signature):
            # HTTP may begin with an empty line, as the signature does.
            self._may_announce = signature.startswith(self._in)
            return not self._may_announce
        announcement = proxy_protocol.read(self._in)
        if announcement is None:
            return False
        self._may_announce = False
        session = self._session
        if any(announcement):
            shown = f"{session.client_info.client}, run {announcement.name}: {announcement.command}"
            session.client_info = replace(session.client_info, client=shown)
        return True

    # --- CONNECT

    def _connect(self) -> Commands:
        session = self._session
        try:
            head = read_request_head(self._in, session.head_limit)
        except BadMessage as error:
            yield from self._refuse(None, Reason.BAD_REQUEST, bad_request(error.text, error.status))
            return
        if head is None:
            return
        if session.credentials is not None and not head_admits(session.credentials, head):
            refusal = unauthenticated(f"CONNECT {head.target}")
            reason = Reason.CLIENT_NOT_AUTHENTICATED
            yield from self._refuse(head, reason, refusal, Phase.CLIENT)
            return
        try:
            target = Authority.parse(head.authority)
        except ValueError:
            yield from self._refuse(head, Reason.INVALID_TARGET, None)
            return
        if not _agrees(head, target):
            yield from self._refuse(head, Reason.HOST_MISMATCH, None)
            return
        passage = session.gate.connect(session.client_info, target)
        if not passage.decision.allowed:
            reason_word = passage.decision.reason.value
            scheme = Scheme.HTTP if target.port == _PLAIN_PORT else Scheme.HTTPS
            refusal = denial(reason_word, f"CONNECT {target}", target, scheme)
            yield from self._answer(head, passage, refusal)
            return
        session.target = target
        passage.status = 200
        yield commands.SendData(self.context.client, _ESTABLISHED)
        inside = TunnelStart(
            self.context, session, passage, self._become, target=target, dialer=self._dialer
        )
        yield from self._become(inside, self._taken())

    def _refuse(
        self,
        head: RequestHead | None,
        reason: Reason,
        refusal: Refusal | None,
        phase: Phase = Phase.CONNECT,
    ) -> Commands:
        session = self._session
        target, method = ("", "") if head is None else (head.target, "CONNECT")
        passage = session.gate.refuse(session.client_info, phase, reason, target, method=method)
        if refusal is None:
            refusal = denial(passage.decision.reason.value, f"CONNECT {target}", None)
        yield from self._answer(head, passage, refusal)

    def _answer(self, head: RequestHead | None, passage: Attempt, refusal: Refusal) -> Commands:
        passage.status = refusal.status
        self._session.gate.end(passage)
        accept = None if head is None else head.get(b"accept")
        yield commands.SendData(self.context.client, refusal.http1(accept=accept, close=True))
        yield from self._close()

    # --- giving way, and ends

    def _taken(self) -> bytes:
        data = bytes(self._in)
        self._in.clear()
        return data

    def _become(self, successor: layer.Layer, early: bytes) -> Commands:
        """Let `successor` have this connection and the bytes that were read of it."""

        def hand_on(event: events.Event) -> Commands:
            # Looked up anew each time: a TLS layer changes its own once its handshake is done.
            yield from successor.handle_event(event)

        self.handle_event = hand_on  # type: ignore[assignment, method-assign]
        yield from successor.handle_event(events.Start())
        if early:
            yield from successor.handle_event(events.DataReceived(self.context.client, early))

    def _expired(self) -> Commands:
        if self._in:
            refusal = Refusal(408, "bad-request", "The request head did not come in time.")
            yield commands.SendData(self.context.client, refusal.http1(close=True))
        yield from self._close()

    def _close(self) -> Commands:
        self._over = True
        yield commands.CloseConnection(self.context.client)


def _agrees(head: RequestHead, target: Authority) -> bool:
    """Tell whether a CONNECT's Host names its target (law 4); HTTP/1.0 may send none."""
    if head.host is None:
        return True
    try:
        return Authority.parse(head.host, default_port=target.port) == target
    except ValueError:
        return False
