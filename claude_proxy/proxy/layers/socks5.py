"""Speaks SOCKS5 with a client until its tunnel is open (RFC 1928, RFC 1929).

Laws 3, 5 and 6: the request is judged before a name is looked up. SOCKS5 tells its client in the
reply whether the target was reached, so an allowed one is dialled before the reply; the open
connection is then the first that the tunnel's lane uses, and none is dialled beside it.
"""

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from claude_proxy.events import Phase
from claude_proxy.policy.reason import Reason
from claude_proxy.proxy.dialer import Dialer, DialError, Failure
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.layers.client_auth import login_admits
from claude_proxy.proxy.layers.session import (
    Commands,
    PauseReading,
    RuleRevoked,
    Session,
    TimedOut,
    Waiting,
)
from claude_proxy.proxy.layers.tunnel_start import ReplaceWith, TunnelStart
from claude_proxy.proxy.layers.upstream import UpstreamServer
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.socks5 import (
    SocksCommand,
    SocksError,
    SocksMethod,
    SocksReply,
    SocksRequest,
    login_answer,
    method_choice,
    read_login,
    read_methods,
    read_request,
    reply,
)

METHOD = "SOCKS"  # in the audit, where a tunnel by HTTP has CONNECT
_OTHER_METHODS: dict[int, str] = {
    SocksCommand.BIND: "BIND",
    SocksCommand.UDP_ASSOCIATE: "UDP",
}

# What the audit notes as the status: the one that a client of HTTP would have got.
_STATUS = {
    SocksReply.GRANTED: 200,
    SocksReply.DENIED: 403,
    SocksReply.UNREACHABLE: 502,
    SocksReply.REFUSED: 502,
    SocksReply.FAILED: 502,
}
_REPLIES = {
    Failure.DENIED: SocksReply.DENIED,
    Failure.UNRESOLVED: SocksReply.UNREACHABLE,
    Failure.REFUSED: SocksReply.REFUSED,
    Failure.UNREACHABLE: SocksReply.UNREACHABLE,
    Failure.TIMEOUT: SocksReply.UNREACHABLE,
    Failure.PROXY: SocksReply.FAILED,
}


class Socks5Layer(layer.Layer):
    """The conversation from the greeting to the reply."""

    def __init__(
        self, context: Context, session: Session, dialer: Dialer, give_way: ReplaceWith
    ) -> None:
        super().__init__(context)
        self._session = session
        self._dialer = dialer
        self._give_way = give_way
        self._in = bytearray()
        self._step = self._greeting
        self._passage: Attempt | None = None  # once the request is judged
        self._server: UpstreamServer | None = None  # while it is dialled
        self._spoilt = False  # it spoke or left before it was asked anything
        self._over = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if self._over:
            return
        if isinstance(event, events.ConnectionEvent) and event.connection is self._server:
            self._spoilt = True
        elif isinstance(event, events.DataReceived):
            self._in += event.data
            yield from self._advance()
        elif isinstance(event, events.ConnectionClosed):
            yield from self._client_closed()
        elif isinstance(event, events.OpenConnectionCompleted):
            yield from self._dialled(event.reply)
        elif isinstance(event, TimedOut):
            yield from self._give_up("connect-timeout", SocksReply.UNREACHABLE)
        elif isinstance(event, RuleRevoked):
            yield from self._give_up(Reason.RULE_WITHDRAWN.value, SocksReply.DENIED)

    def _advance(self) -> Commands:
        while self._in and self._passage is None and not self._over:
            before = len(self._in)
            try:
                yield from self._step()
            except SocksError as error:
                yield from self._refuse(Phase.CONNECT, Reason.BAD_REQUEST, error.answer)
            if len(self._in) == before:
                return

    # --- who the client is

    def _greeting(self) -> Commands:
        methods = read_methods(self._in)
        if methods is None:
            return
        # Without credentials of ours a client that insists on showing its own is let in, whatever
        # they are: curl with a user in the URL offers nothing else.
        wanted = self._session.credentials is not None
        if SocksMethod.NONE in methods and not wanted:
            self._step = self._request
            choice = SocksMethod.NONE
        elif SocksMethod.PASSWORD in methods:
            self._step = self._login
            choice = SocksMethod.PASSWORD
        else:
            refused = method_choice(SocksMethod.NO_ACCEPTABLE)
            yield from self._refuse(Phase.CLIENT, Reason.CLIENT_NOT_AUTHENTICATED, refused)
            return
        yield commands.SendData(self.context.client, method_choice(choice))

    def _login(self) -> Commands:
        login = read_login(self._in)
        if login is None:
            return
        wanted = self._session.credentials
        if wanted is not None and not login_admits(wanted, login):
            refused = login_answer(passed=False)
            yield from self._refuse(Phase.CLIENT, Reason.CLIENT_NOT_AUTHENTICATED, refused)
            return
        self._step = self._request
        yield commands.SendData(self.context.client, login_answer(passed=True))

    # --- what it wants

    def _request(self) -> Commands:
        request = read_request(self._in)
        if request is None:
            return
        if request.command != SocksCommand.CONNECT:
            refused = reply(SocksReply.COMMAND_NOT_SUPPORTED)
            yield from self._refuse(Phase.CONNECT, Reason.METHOD_REFUSED, refused, request)
            return
        try:
            target = Authority.of(request.host, request.port)
        except ValueError:
            refused = reply(SocksReply.DENIED)
            yield from self._refuse(Phase.CONNECT, Reason.INVALID_TARGET, refused, request)
            return
        session = self._session
        self._passage = passage = session.gate.connect(session.client_info, target, method=METHOD)
        if not passage.decision.allowed:
            yield from self._answer(passage, SocksReply.DENIED, None)
            return
        yield from self._dial(target, passage)

    def _dial(self, target: Authority, passage: Attempt) -> Commands:
        session = self._session
        session.target = target
        session.wait(Waiting.UPSTREAM)
        # Through another proxy, plain HTTP needs no tunnel, which many give to port 443 alone.
        self._server = UpstreamServer(
            address=(target.host, target.port), tunnel=passage.decision.secure
        )
        opening = commands.OpenConnection(self._server)
        # The client may leave meanwhile, and be heard: nothing here pauses.
        opening.blocking = self  # type: ignore[assignment]
        yield PauseReading(self.context.client, hold=True)
        yield opening

    def _dialled(self, error: DialError | str | None) -> Commands:
        server, passage, target = self._server, self._passage, self._session.target
        if server is None or passage is None or target is None:
            return
        self._server = None
        if error is not None:
            failure = error.failure if isinstance(error, DialError) else Failure.UNREACHABLE
            word = failure.value
            if isinstance(error, DialError) and error.decision is not None:
                word = error.decision.reason.value
            yield from self._answer(passage, _REPLIES[failure], word)
            return
        if self._spoilt:
            yield commands.CloseConnection(server)
        else:
            self._session.preconnected = server
        passage.status = _STATUS[SocksReply.GRANTED]
        yield commands.SendData(self.context.client, reply(SocksReply.GRANTED))
        yield PauseReading(self.context.client, hold=False)
        inside = TunnelStart(
            self.context,
            self._session,
            passage,
            self._give_way,
            target=target,
            dialer=None if server.tunnel else self._dialer,
        )
        yield from self._give_way(inside, bytes(self._in))

    # --- ends

    def _refuse(
        self, phase: Phase, reason: Reason, answer: bytes, request: SocksRequest | None = None
    ) -> Commands:
        """Deny what no rule needs to be asked about."""
        session = self._session
        target, method = "", METHOD
        if request is not None:
            target = request.shown()
            method = _OTHER_METHODS.get(request.command, METHOD)
        passage = session.gate.refuse(session.client_info, phase, reason, target, method=method)
        session.gate.end(passage)
        yield commands.SendData(self.context.client, answer)
        yield from self._close()

    def _answer(self, passage: Attempt, code: SocksReply, word: str | None) -> Commands:
        """Say that there will be no tunnel."""
        passage.status = _STATUS[code]
        self._session.gate.end(passage, word)
        yield commands.SendData(self.context.client, reply(code))
        yield from self._close()

    def _give_up(self, word: str, code: SocksReply) -> Commands:
        if self._passage is None:
            yield from self._close()  # a handshake that did not come in time
        else:
            yield from self._answer(self._passage, code, word)

    def _client_closed(self) -> Commands:
        if self._passage is not None:
            self._session.gate.end(self._passage, "client-closed")
        yield from self._close()

    def _close(self) -> Commands:
        self._over = True
        self._in.clear()
        if self._server is not None:
            yield commands.CloseConnection(self._server)
        yield commands.CloseConnection(self.context.client)
