"""SOCKS5 server layer, up to the open tunnel (RFC 1928, RFC 1929).

Laws kept: every exit is gated, silence before allow, judged is dialled. The request is judged
before its name is resolved. A SOCKS5 reply says whether the target was reached, so an allowed
target is dialled before the reply; the tunnel then uses that connection and does not dial again.
"""

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from claude_proxy.events import Phase
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.questions import Facts, subject_of_tunnel
from claude_proxy.policy.reason import Reason
from claude_proxy.proxy.dialer import Dialer, DialError, Failure
from claude_proxy.proxy.gate import Attempt
from claude_proxy.proxy.layers.asking import AnswerCame, AwaitAnswer, ended_unanswered
from claude_proxy.proxy.layers.client_auth import login_admits
from claude_proxy.proxy.layers.session import (
    Commands,
    PauseReading,
    RuleRevoked,
    Session,
    TimedOut,
    Waiting,
)
from claude_proxy.proxy.layers.tunnel_start import ReplaceWith, tunnel_to
from claude_proxy.proxy.layers.upstream import UpstreamServer
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.socks5 import (
    SocksCommand,
    SocksError,
    SocksMethod,
    SocksReply,
    SocksRequest,
    login_reply,
    method_choice,
    read_login,
    read_methods,
    read_request,
    reply,
)

METHOD = "SOCKS"  # in the audit log, where an HTTP tunnel has CONNECT
_EARLY_LIMIT = 64 * 1024  # bytes of a client that does not wait for the reply
_OTHER_METHODS: dict[int, str] = {
    SocksCommand.BIND: "BIND",
    SocksCommand.UDP_ASSOCIATE: "UDP",
}

# The status in the audit log: the one that an HTTP client would have received.
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
    Failure.NO_ROOM: SocksReply.FAILED,
}


class Socks5Layer(layer.Layer):
    """The exchange from the greeting to the reply."""

    def __init__(
        self, context: Context, session: Session, dialer: Dialer, replace_with: ReplaceWith
    ) -> None:
        super().__init__(context)
        self._session = session
        self._dialer = dialer
        self._replace_with = replace_with
        self._in = bytearray()
        self._step = self._greeting
        self._attempt: Attempt | None = None  # once the request is judged
        self._server: UpstreamServer | None = None  # while it is dialled
        # What the owner is asked about, as nobody will judge what is in its tunnel.
        self._awaited: tuple[AwaitAnswer, Authority] | None = None
        self._is_unusable = False  # the upstream sent or closed before it received anything
        self._is_over = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if self._is_over:
            return
        if isinstance(event, events.ConnectionEvent) and event.connection is self._server:
            self._is_unusable = True
        elif isinstance(event, events.DataReceived):
            yield from self._received(event.data)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._client_closed()
        elif isinstance(event, events.OpenConnectionCompleted):
            yield from self._dialled(event.reply)
        else:
            yield from self._on_rare(event)

    def _on_rare(self, event: events.Event) -> Commands:
        if isinstance(event, AnswerCame):
            yield from self._answer_came(event.command, event.reply)
        elif isinstance(event, TimedOut) and self._awaited is not None:
            yield from self._answer_came(self._awaited[0], Answer.NONE)
        elif isinstance(event, TimedOut):
            yield from self._fail("connect-timeout", SocksReply.UNREACHABLE)
        elif isinstance(event, RuleRevoked):
            yield from self._fail(Reason.RULE_WITHDRAWN.value, SocksReply.DENIED)

    def _received(self, data: bytes) -> Commands:
        self._in += data
        yield from self._advance()
        if self._awaited is not None and len(self._in) > _EARLY_LIMIT:
            yield PauseReading(self.context.client, hold=True)

    def _advance(self) -> Commands:
        while self._in and self._attempt is None and self._awaited is None and not self._is_over:
            before = len(self._in)
            try:
                yield from self._step()
            except SocksError as error:
                yield from self._refuse(Phase.CONNECT, Reason.BAD_REQUEST, error.answer)
            if len(self._in) == before:
                return

    # --- authentication

    def _greeting(self) -> Commands:
        methods = read_methods(self._in)
        if methods is None:
            return
        # If no credentials are required, any password is accepted: curl offers only password
        # authentication if the URL contains a user.
        required = self._session.credentials is not None
        if SocksMethod.NONE in methods and not required:
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
        required = self._session.credentials
        if required is not None and not login_admits(required, login):
            refused = login_reply(passed=False)
            yield from self._refuse(Phase.CLIENT, Reason.CLIENT_NOT_AUTHENTICATED, refused)
            return
        self._step = self._request
        yield commands.SendData(self.context.client, login_reply(passed=True))

    # --- the request

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
        yield from self._judge(target)

    def _judge(
        self,
        target: Authority,
        answer: Answer | None = None,
        before: AwaitAnswer | None = None,
    ) -> Commands:
        session = self._session
        info = session.client_info
        attempt = session.gate.connect(info, target, method=METHOD, answer=answer)
        decision = attempt.decision
        if decision.asks and not decision.opens_tunnel:
            subject = subject_of_tunnel(info.run, target, decision)
            awaited = AwaitAnswer(Facts(subject, METHOD, "", "", decision.rule), before)
            self._awaited = awaited, target
            session.wait(Waiting.ANSWER)
            yield awaited
            return
        self._attempt = attempt
        if decision.allowed:
            yield from self._dial(target, attempt)
        elif decision.opens_tunnel:
            session.target = target
            yield from self._open(target, attempt, tunnel=decision.secure)
        else:
            yield from self._answer(attempt, SocksReply.DENIED, None)

    def _answer_came(self, awaited: AwaitAnswer, answer: Answer) -> Commands:
        """Judge a request again, now that the owner was asked."""
        if self._awaited is None or self._awaited[0] is not awaited:
            return
        target, self._awaited = self._awaited[1], None
        yield PauseReading(self.context.client, hold=False)
        yield from self._judge(target, answer, awaited)

    def _dial(self, target: Authority, attempt: Attempt) -> Commands:
        session = self._session
        session.target = target
        session.wait(Waiting.UPSTREAM)
        # Through an upstream proxy plain HTTP needs no tunnel, and many allow one to port 443 only.
        self._server = UpstreamServer(
            address=(target.host, target.port), tunnel=attempt.decision.secure
        )
        opening = commands.OpenConnection(self._server)
        # Do not block: the client may close during the dial, and that must be noticed.
        opening.blocking = self  # type: ignore[assignment]
        yield PauseReading(self.context.client, hold=True)
        yield opening

    def _dialled(self, error: DialError | str | None) -> Commands:
        server, attempt, target = self._server, self._attempt, self._session.target
        if server is None or attempt is None or target is None:
            return
        self._server = None
        if error is not None:
            failure = error.failure if isinstance(error, DialError) else Failure.UNREACHABLE
            outcome = failure.value
            if isinstance(error, DialError) and error.decision is not None:
                outcome = error.decision.reason.value
            yield from self._answer(attempt, _REPLIES[failure], outcome)
            return
        if self._is_unusable:
            yield commands.CloseConnection(server)
        else:
            self._session.preconnected = server
            if attempt.decision.raw:  # what it says first is for the tunnel
                yield PauseReading(server, hold=True)
        yield from self._open(target, attempt, tunnel=server.tunnel)

    def _open(self, target: Authority, attempt: Attempt, *, tunnel: bool) -> Commands:
        """Reply that the tunnel is open; where the owner is to be asked, nothing was dialled."""
        attempt.status = _STATUS[SocksReply.GRANTED]
        yield commands.SendData(self.context.client, reply(SocksReply.GRANTED))
        yield PauseReading(self.context.client, hold=False)
        inside = tunnel_to(
            self.context,
            self._session,
            attempt,
            self._replace_with,
            target=target,
            dialer=None if tunnel else self._dialer,
        )
        yield from self._replace_with(inside, bytes(self._in))

    # --- closing

    def _refuse(
        self, phase: Phase, reason: Reason, answer: bytes, request: SocksRequest | None = None
    ) -> Commands:
        """Deny a request whatever the rules are, and close."""
        session = self._session
        target, method = "", METHOD
        if request is not None:
            target = request.shown()
            method = _OTHER_METHODS.get(request.command, METHOD)
        attempt = session.gate.refuse(session.client_info, phase, reason, target, method=method)
        session.gate.end(attempt)
        yield commands.SendData(self.context.client, answer)
        yield from self._close()

    def _answer(self, attempt: Attempt, code: SocksReply, outcome: str | None) -> Commands:
        """Reply that the tunnel was not opened, and close."""
        attempt.status = _STATUS[code]
        self._session.gate.end(attempt, outcome)
        yield commands.SendData(self.context.client, reply(code))
        yield from self._close()

    def _fail(self, outcome: str, code: SocksReply) -> Commands:
        if self._attempt is None:
            yield from self._close()  # a handshake that was not complete in time
        else:
            yield from self._answer(self._attempt, code, outcome)

    def _client_closed(self) -> Commands:
        if self._attempt is not None:
            self._session.gate.end(self._attempt, self._session.loss)
        yield from self._close()

    def _close(self) -> Commands:
        self._is_over = True
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            ended_unanswered(self._session, awaited[0], self._session.loss)
        self._in.clear()
        if self._server is not None:
            yield commands.CloseConnection(self._server)
        yield commands.CloseConnection(self.context.client)
