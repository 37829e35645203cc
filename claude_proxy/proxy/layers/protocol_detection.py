"""Protocol detection: distinguishes HTTP, SOCKS5 and a relay's PROXY header, and judges a CONNECT.

Law kept: every exit is gated. All protocols arrive on one port, and each leads to the gate. A
denied CONNECT is answered here, before any TLS and without mitmproxy's HTTP layers.
"""

from collections.abc import Callable, Iterable

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from claude_proxy.events import Phase
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.questions import Facts, subject_of_tunnel
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.dialer import Dialer
from claude_proxy.proxy.gate import Attempt, ClientInfo
from claude_proxy.proxy.layers.asking import AnswerCame, AwaitAnswer, ended_unanswered
from claude_proxy.proxy.layers.client_auth import head_admits, proof_admits
from claude_proxy.proxy.layers.http1_proxy import proxy_lane
from claude_proxy.proxy.layers.session import (
    Commands,
    PauseReading,
    RuleRevoked,
    Session,
    TimedOut,
    Waiting,
)
from claude_proxy.proxy.layers.socks5 import Socks5Layer
from claude_proxy.proxy.layers.tunnel_start import tunnel_to
from claude_proxy.proxy.responses import (
    Refusal,
    bad_request,
    denial,
    denial_of_tunnel,
    unauthenticated,
)
from claude_proxy.system.runs import shown_name
from claude_proxy.wire import lookup_answer, proxy_protocol, socks5
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.client_hello import starts_like_tls
from claude_proxy.wire.http1.head import BadMessage, RequestHead
from claude_proxy.wire.http1.request import read_request_head
from claude_proxy.wire.tls_alerts import ACCESS_DENIED

type MakeLane = Callable[[Context, Session], layer.Layer]

_CONNECT = b"CONNECT "
_SOCKS5 = bytes((socks5.VERSION,))
_PLAIN_PORT = 80
_EARLY_LIMIT = 64 * 1024  # bytes of a client that does not wait for the answer to its CONNECT
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"

_TLS_TO_PROXY = (
    "a client speaks TLS to the proxy: its URL must begin with http://, not https://, in "
    "HTTPS_PROXY too"
)
_TLS_TO_GATEWAY = (
    "a client speaks TLS to the gateway: its URL must begin with http://, not https://, in "
    "ANTHROPIC_BASE_URL too"
)


class ProtocolDetection(layer.Layer):
    """The first layer of every connection; replaces itself once the protocol is known."""

    def __init__(
        self, context: Context, session: Session, dialer: Dialer, serve: MakeLane | None = None
    ) -> None:
        super().__init__(context)
        self._serve = serve  # makes the lane of a listener with one protocol; None: any protocol
        self._session = session
        self._dialer = dialer
        self._in = bytearray()
        # Once, before anything else, and only from this machine: a header that comes later was sent
        # by the sandboxed program, not by its relay.
        self._accepts_proxy_header = session.local
        self._asked = ""  # the name that a relay asks about
        # A CONNECT that the owner is asked about, as nobody will judge what is in its tunnel.
        self._awaited: tuple[AwaitAnswer, RequestHead, Authority] | None = None
        self._is_over = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if self._is_over:
            return
        if isinstance(event, events.DataReceived):
            self._in += event.data
            if self._awaited is None:
                yield from self._advance()
            elif len(self._in) > _EARLY_LIMIT:
                yield PauseReading(self.context.client, hold=True)
        elif isinstance(event, AnswerCame):
            yield from self._answer_came(event.command, event.reply)
        elif isinstance(event, events.ConnectionClosed):
            if self.context.client.state is ConnectionState.CLOSED:
                self._is_over = True
                self._leave()
            else:
                yield from self._close()
        elif isinstance(event, (TimedOut, RuleRevoked)):
            yield from self._timed_out()

    def _advance(self) -> Commands:
        if self._accepts_proxy_header:
            try:
                is_past = self._is_past_proxy_header()
            except ValueError:
                text = "the PROXY protocol header is malformed"
                yield from self._refuse(None, Reason.BAD_REQUEST, bad_request(text))
                return
            if not is_past:
                return
            if self._asked:
                yield from self._answer_lookup()
                return
        if self._in:
            yield from self._choose()

    def _choose(self) -> Commands:
        """Choose the layer for the protocol of the first bytes, once it is known."""
        is_tls = starts_like_tls(self._in)
        if is_tls is None:
            return
        if is_tls:
            yield from self._refuse_tls()
        elif self._serve is not None:
            lane = self._serve(self.context, self._session)
            yield from self._replace_with(lane, self._take_buffer())
        elif self._in.startswith(_SOCKS5):
            socks = Socks5Layer(self.context, self._session, self._dialer, self._replace_with)
            yield from self._replace_with(socks, self._take_buffer())
        elif self._in.startswith(_CONNECT):
            yield from self._connect()
        elif not _CONNECT.startswith(self._in):
            lane = proxy_lane(
                self.context, self._session, scheme=Scheme.HTTP, target=None, dialer=self._dialer
            )
            yield from self._replace_with(lane, self._take_buffer())

    def _is_past_proxy_header(self) -> bool:
        """Read the PROXY header that a relay may send; True once it is read or known to be absent.

        Raises ValueError if it is malformed.
        """
        signature = proxy_protocol.SIGNATURE
        if not self._in.startswith(signature):
            # HTTP may begin with an empty line, as the signature does.
            self._accepts_proxy_header = signature.startswith(self._in)
            return not self._accepts_proxy_header
        proxy_header = proxy_protocol.read(self._in)
        if proxy_header is None:
            return False
        self._accepts_proxy_header = False
        session = self._session
        required = session.credentials
        if required is not None and proof_admits(required, proxy_header.password_proof):
            session.credentials = None  # the relay has the password; what is behind it has not
        if proxy_header.name and not session.has_run:
            session.client_info = _of_announced_run(session, proxy_header)
        self._asked = proxy_header.asked
        return True

    def _answer_lookup(self) -> Commands:
        """Tell a relay whether a name that was looked up in its sandbox may have an address."""
        session = self._session
        if self._serve is not None or session.credentials is not None:
            yield from self._close()  # a listener without names, or a client without its password
            return
        found = session.gate.look_up(session.client_info, self._asked)
        answer = lookup_answer.encode(found.ports if found.leads_on else ())
        yield commands.SendData(self.context.client, answer)
        yield from self._close()

    def _refuse_tls(self) -> Commands:
        """Refuse a client whose proxy URL begins with https://."""
        session = self._session
        session.gate.warnings.warn(_TLS_TO_PROXY if self._serve is None else _TLS_TO_GATEWAY)
        attempt = session.gate.refuse(session.client_info, Phase.CLIENT, Reason.TLS_TO_PROXY, "")
        session.gate.end(attempt)
        yield commands.SendData(self.context.client, ACCESS_DENIED)
        yield from self._close()

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
        if not _host_agrees(head, target):
            yield from self._refuse(head, Reason.HOST_MISMATCH, None)
            return
        yield from self._judge(head, target)

    def _judge(
        self,
        head: RequestHead,
        target: Authority,
        answer: Answer | None = None,
        before: AwaitAnswer | None = None,
    ) -> Commands:
        session = self._session
        attempt = session.gate.connect(session.client_info, target, answer=answer)
        decision = attempt.decision
        if decision.asks and not decision.opens_tunnel:
            subject = subject_of_tunnel(session.client_info.run, target, decision)
            awaited = AwaitAnswer(Facts(subject, "CONNECT", "", "", decision.rule), before)
            self._awaited = awaited, head, target
            session.wait(Waiting.ANSWER)
            yield awaited
            return
        if not decision.opens_tunnel:
            refusal = denial_of_tunnel(
                attempt.decision.reason,
                target,
                Scheme.HTTP if target.port == _PLAIN_PORT else Scheme.HTTPS,
                is_own=target.address is not None and session.owns(target.address),
                options=session.list_options,
            )
            yield from self._answer(head, attempt, refusal)
            return
        session.target = target
        session.agent = head.get(b"user-agent")
        attempt.status = 200
        yield commands.SendData(self.context.client, _ESTABLISHED)
        tunnel = tunnel_to(
            self.context, session, attempt, self._replace_with, target=target, dialer=self._dialer
        )
        yield from self._replace_with(tunnel, self._take_buffer())

    def _answer_came(self, awaited: AwaitAnswer, answer: Answer) -> Commands:
        """Judge a CONNECT again, now that the owner was asked."""
        if self._awaited is None or self._awaited[0] is not awaited:
            return
        (_, head, target), self._awaited = self._awaited, None
        yield PauseReading(self.context.client, hold=False)
        yield from self._judge(head, target, answer, awaited)

    def _refuse(
        self,
        head: RequestHead | None,
        reason: Reason,
        refusal: Refusal | None,
        phase: Phase = Phase.CONNECT,
    ) -> Commands:
        session = self._session
        target, method = ("", "") if head is None else (head.target, "CONNECT")
        attempt = session.gate.refuse(session.client_info, phase, reason, target, method=method)
        if refusal is None:
            refusal = denial(attempt.decision.reason.value, f"CONNECT {target}", None)
        yield from self._answer(head, attempt, refusal)

    def _answer(self, head: RequestHead | None, attempt: Attempt, refusal: Refusal) -> Commands:
        attempt.status = refusal.status
        self._session.gate.end(attempt)
        accept = None if head is None else head.get(b"accept")
        yield commands.SendData(self.context.client, refusal.http1(accept=accept, close=True))
        yield from self._close()

    # --- replacing and closing

    def _take_buffer(self) -> bytes:
        data = bytes(self._in)
        self._in.clear()
        return data

    def _replace_with(self, successor: layer.Layer, early: bytes) -> Commands:
        """Pass this connection, and the bytes read from it, to `successor`."""

        def pass_on(event: events.Event) -> Iterable[commands.Command]:
            # Looked up for each event: a TLS layer replaces its handler after the handshake.
            return successor.handle_event(event)

        self.handle_event = pass_on  # type: ignore[assignment, method-assign]
        yield from successor.handle_event(events.Start())
        if early:
            yield from successor.handle_event(events.DataReceived(self.context.client, early))

    def _timed_out(self) -> Commands:
        if self._awaited is not None:
            yield from self._answer_came(self._awaited[0], Answer.NONE)
        elif self._in:
            refusal = Refusal(408, "bad-request", "The request head did not come in time.")
            yield commands.SendData(self.context.client, refusal.http1(close=True))
        yield from self._close()

    def _leave(self) -> None:
        """Record the end of a tunnel that waits for the owner's answer, if there is one."""
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            ended_unanswered(self._session, awaited[0], self._session.loss)

    def _close(self) -> Commands:
        self._is_over = True
        self._leave()
        yield commands.CloseConnection(self.context.client)


def _of_announced_run(session: Session, announced: proxy_protocol.Announcement) -> ClientInfo:
    """Return the client with the run that it names, as a claim unless it proves the name."""
    shown = f"run {shown_name(announced.name)}: {shown_name(announced.program)}"
    if session.proves_run(announced.name, announced.token):
        proves, name, token = session.proves_run, announced.name, announced.token
        session.is_run_over = lambda: not proves(name, token)
        return session.client_info.of_run(shown, announced.name)
    return session.client_info.of_run(f"claims {shown}")


def _host_agrees(head: RequestHead, target: Authority) -> bool:
    """Tell whether a CONNECT's Host names its target (agreement); HTTP/1.0 may omit it."""
    if head.host is None:
        return True
    try:
        return Authority.parse(head.host, default_port=target.port) == target
    except ValueError:
        return False
