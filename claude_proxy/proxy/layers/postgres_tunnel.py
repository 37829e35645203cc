"""PostgreSQL tunnel: the proxy logs in to a database in its client's place.

Laws kept: secrets stay outside, silence before allow, no quiet downgrade. The client shows the
placeholder, and is judged before anything is sent to the server, and before it is dialled unless
SOCKS5 has done so; the password goes to the server alone, as a proof by SCRAM, inside TLS unless
the owner says otherwise. What the server asks for before the
login is over is answered here, so that no question for a password reaches the client. After the
login the bytes are copied.
"""

import secrets as randomness
from collections.abc import Callable, Iterable
from enum import Enum, auto

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from claude_proxy.policy.credentials.binding import DatabaseLogin
from claude_proxy.policy.credentials.database import AskedLogin, database_use
from claude_proxy.policy.reason import Reason
from claude_proxy.proxy.dialer import DialError
from claude_proxy.proxy.gate import Attempt, GrantedLogin
from claude_proxy.proxy.layers.session import (
    Commands,
    PauseReading,
    RanApart,
    RuleRevoked,
    RunApart,
    Session,
    TimedOut,
    Waiting,
)
from claude_proxy.proxy.layers.tls_intercept import TlsIntercept
from claude_proxy.proxy.layers.tls_watch import TlsWatch
from claude_proxy.proxy.layers.upstream import UpstreamConnection, UpstreamEnded, UpstreamOpened
from claude_proxy.proxy.upstream_errors import UpstreamError
from claude_proxy.wire import postgres
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.client_hello import ClientHello
from claude_proxy.wire.postgres import (
    CancelRequest,
    EncryptionRequest,
    PostgresError,
    Startup,
)
from claude_proxy.wire.postgres_login import ServerLogin
from claude_proxy.wire.scram import ScramError

# Passes the connection to another layer, with the bytes that were read and not used.
type ReplaceWith = Callable[[layer.Layer, bytes], Commands]

_NONCE_BYTES = 18  # as many as libpq's; 24 characters in base64, none of them a comma
_SCRAM_WORK = 64 * 1024  # about how long it takes, in bytes of a body that is judged

# SQLSTATE (PostgreSQL's documentation, appendix A).
_REFUSED = "08004"
_BROKEN = "08P01"
_UNREACHED = "08001"
_FOREIGN = "28000"
_WRONG_PASSWORDS = frozenset({"28P01", "28000"})

_TEXTS = {
    Reason.FOREIGN_CREDENTIAL: (
        _FOREIGN,
        "only the configured login may be used here",
        "Log in as the configured user, with the placeholder as the password.",
    ),
    Reason.CREDENTIAL_UNAVAILABLE: (_REFUSED, "the password is not available at the moment", ""),
    Reason.METHOD_REFUSED: (_REFUSED, "sessions of replication are not allowed", ""),
    Reason.BAD_REQUEST: (_BROKEN, "the client does not speak PostgreSQL's protocol", ""),
}


class _Step(Enum):
    STARTUP = auto()  # the client's first messages
    PASSWORD = auto()  # the client's answer to the question for one
    DIALLING = auto()
    TLS_OFFERED = auto()  # whether the server offers TLS
    TLS = auto()  # the handshake
    LOGIN = auto()  # what the server asks for
    OPEN = auto()  # the client is logged in, and bytes are copied
    CANCELLING = auto()  # a request to cancel has been sent
    OVER = auto()


_OF_CLIENT = frozenset({_Step.STARTUP, _Step.PASSWORD})


class _Watch(TlsWatch):
    """Watches the client's TLS; the tunnel is one attempt to its end."""

    def trusted(self) -> None:
        """Let the attempt go on: there are no requests that would have their own."""


class PostgresTunnel(layer.Layer):
    """A tunnel to a database to which a credential is bound."""

    def __init__(
        self,
        context: Context,
        session: Session,
        target: Authority,
        attempt: Attempt,
        replace_with: ReplaceWith | None,
    ) -> None:
        """Begin at the client's first message; without `replace_with` it speaks TLS already."""
        super().__init__(context)
        self._session = session
        self._replace_with = replace_with
        self._target = target
        self._attempt = attempt
        self._step = _Step.STARTUP
        self._in = bytearray()  # of the client
        self._refused_encryption: set[bool] = set()  # what has been asked for: TLS, GSSAPI
        self._startup: Startup | None = None
        self._cancel: CancelRequest | None = None
        self._asked: AskedLogin | None = None
        self._granted: GrantedLogin | None = None
        self._login: ServerLogin | None = None
        self._work: RunApart | None = None  # the proof, which takes a while to compute
        self._results: list[bytes | ScramError] = []
        self._upstream = UpstreamConnection(target, tls=None, tunnel=True)

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if self._step is _Step.OVER:
            return
        try:
            yield from self._handle(event)
            yield from self._read_inbox()
        except (PostgresError, ScramError) as error:
            yield from self._fail_server(str(error))

    def _handle(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start):
            self._session.passthrough = self._session.raw = True
            self._session.database = self._session.gate.database_at(self._target)
            self._session.wait(Waiting.HANDSHAKE)
        elif isinstance(event, RanApart):
            yield from self._worked(event.command)
        elif isinstance(event, events.ConnectionEvent):
            if event.connection is not self.context.client:
                yield from self._upstream.handle(event)
            elif isinstance(event, events.DataReceived):
                yield from self._up(event.data)
            else:
                yield from self._client_closed()
        elif isinstance(event, events.CommandCompleted):
            yield from self._upstream.handle(event)
        elif isinstance(event, (TimedOut, RuleRevoked)):
            yield from self._cut_off(timed_out=isinstance(event, TimedOut))

    # --- the client, before it is logged in

    def _up(self, data: bytes) -> Commands:
        if self._step is _Step.OPEN:
            self._attempt.bytes_up += len(data)
            yield from self._upstream.send(data)
            return
        self._in += data
        try:
            yield from self._read_client()
        except PostgresError:
            yield from self._deny(Reason.BAD_REQUEST)

    def _read_client(self) -> Commands:
        while self._in and self._step in _OF_CLIENT:
            before = len(self._in)
            if self._step is _Step.STARTUP:
                yield from self._read_startup()
            else:
                yield from self._read_password()
            if len(self._in) == before:
                return

    def _read_startup(self) -> Commands:
        found = postgres.read_startup(self._in)
        if isinstance(found, EncryptionRequest):
            # Once each, and with nothing behind it: what comes after belongs to the answer.
            if found.is_tls in self._refused_encryption or self._in:
                raise PostgresError("the client goes on before the answer")
            self._refused_encryption.add(found.is_tls)
            yield from self._answer_encryption(found)
        elif isinstance(found, CancelRequest):
            self._cancel = found
            yield from self._dial()
        elif isinstance(found, Startup):
            self._startup = found
            self._step = _Step.PASSWORD
            yield from self._say(postgres.negotiated(found) + postgres.ASK_FOR_PASSWORD)

    def _answer_encryption(self, asked: EncryptionRequest) -> Commands:
        """Go on in TLS with the certificate of our CA, if there is one; else without."""
        replace_with, shows = self._replace_with, None
        if asked.is_tls and replace_with is not None:
            shows = self._session.leaf_contexts.context_for(self._target.host)
        if shows is None or replace_with is None:
            yield from self._say(postgres.NO_ENCRYPTION)
            return
        yield from self._say(postgres.OFFERS_TLS)
        self._step = _Step.OVER
        watch = _Watch(self._session, self._attempt, self._target)
        # Its server name decides nothing: nobody but this proxy reads the hello.
        hello = ClientHello(None, (), encrypted=False)
        intercept = TlsIntercept(self.context, hello, self._inside_tls, watch, shows)
        yield from replace_with(intercept, b"")

    def _inside_tls(self, context: Context) -> layer.Layer:
        return PostgresTunnel(context, self._session, self._target, self._attempt, None)

    def _read_password(self) -> Commands:
        found = postgres.read_message(self._in, postgres.LONGEST_PASSWORD)
        startup = self._startup
        if found is None or startup is None:
            return
        kind, body = found
        if kind != postgres.PASSWORD:
            raise PostgresError("the client does not answer the question for a password")
        password = postgres.password_of(body)
        self._asked = AskedLogin(startup.user, startup.database, password, startup.replicates)
        granted = self._grant(self._asked)
        if isinstance(granted, Reason):
            yield from self._refuse(granted)
            return
        self._granted = granted
        yield from self._dial()

    def _grant(self, asked: AskedLogin) -> GrantedLogin | Reason:
        session = self._session
        return session.gate.log_in(session.client_info, self._attempt, self._target, asked)

    # --- the server

    def _dial(self) -> Commands:
        self._step = _Step.DIALLING
        self._session.wait(Waiting.UPSTREAM)
        yield PauseReading(self.context.client, hold=True)
        self._session.tls_for(self._attempt).prepare()
        yield from self._upstream.open()

    def _read_inbox(self) -> Commands:
        inbox = self._upstream.inbox
        while inbox and self._step is not _Step.OVER:
            event = inbox.popleft()
            if isinstance(event, bytes):
                yield from self._down(event)
            elif isinstance(event, UpstreamOpened):
                yield from self._opened(event.error)
            elif isinstance(event, UpstreamEnded):
                yield from self._upstream_ended()

    def _opened(self, error: DialError | UpstreamError | str | None) -> Commands:
        if error is not None:
            outcome = str(
                getattr(error, "failure", getattr(error, "reason", "upstream-tls-failed"))
            )
            if isinstance(error, DialError) and error.decision is not None:
                outcome = error.decision.reason.value
            text = error if isinstance(error, str) else error.text
            yield from self._end_with(outcome, _UNREACHED, f"the database is not reached: {text}")
            return
        self._attempt.upstream = self._upstream.address
        self._upstream.is_open = True
        yield PauseReading(self._upstream.server, hold=False)  # after SOCKS5 it is held until now
        if self._step is _Step.DIALLING and self._use.tls:
            self._step = _Step.TLS_OFFERED
            yield from self._upstream.send(postgres.SSL_REQUEST)
        else:
            yield from self._begin()

    @property
    def _use(self) -> DatabaseLogin:
        """How the owner says that the database is logged in to."""
        binding = self._session.database
        use = None if binding is None else database_use(binding)
        return DatabaseLogin() if use is None else use

    def _begin(self) -> Commands:
        if self._cancel is not None:
            self._step = _Step.CANCELLING
            yield from self._upstream.send(self._cancel.message)
            return
        granted, startup, asked = self._granted, self._startup, self._asked
        if granted is None or startup is None or asked is None:
            raise PostgresError("nobody has logged in")
        again = self._grant(asked)  # a reload may have bound another credential meanwhile
        if again != granted:
            reason = again if isinstance(again, Reason) else Reason.CREDENTIAL_UNAVAILABLE
            yield from self._refuse(reason)
            return
        self._step = _Step.LOGIN
        password, methods = granted.password.reveal(), self._use.methods
        nonce = randomness.token_urlsafe(_NONCE_BYTES)
        self._login = ServerLogin(startup.user, password, methods, nonce)
        yield from self._upstream.send(postgres.startup_message(startup.parameters))

    def _down(self, data: bytes) -> Commands:
        if self._step is _Step.OPEN:
            yield from self._pass_down(data)
        elif self._step is _Step.TLS_OFFERED:
            # Exactly one byte: what comes behind it has not come through TLS (CVE-2021-23222).
            if data != postgres.OFFERS_TLS:
                raise PostgresError("the server does not offer TLS")
            self._step = _Step.TLS
            yield from self._upstream.start_tls(self._session.tls_for(self._attempt))
        elif self._step is _Step.LOGIN and self._login is not None:
            answer = self._login.receive(data)
            yield from self._after_login(self._login, answer)

    def _after_login(self, login: ServerLogin, answer: bytes) -> Commands:
        if answer:
            yield from self._upstream.send(answer)
        if login.work is not None and self._work is None:
            yield from self._start_work(login)
        elif login.refusal is not None:
            if postgres.sqlstate_of(login.refusal[5:]) in _WRONG_PASSWORDS:
                self._session.gate.login_refused(self._attempt)
            yield from self._say(login.refusal)
            yield from self._close("login-refused")
        elif login.is_over:
            yield from self._open(login)

    def _start_work(self, login: ServerLogin) -> Commands:
        work, results = login.work, self._results
        if work is None:
            return

        def compute() -> None:
            try:
                results.append(work())
            except ScramError as error:
                results.append(error)

        self._work = RunApart(compute, _SCRAM_WORK)
        yield PauseReading(self._upstream.server, hold=True)
        yield self._work

    def _worked(self, command: RunApart) -> Commands:
        login, work, self._work = self._login, self._work, None
        if login is None or work is not command or not self._results:
            return
        yield PauseReading(self._upstream.server, hold=False)
        result = self._results.pop()
        if isinstance(result, ScramError):
            raise result
        yield from self._after_login(login, login.worked(result))

    def _open(self, login: ServerLogin) -> Commands:
        self._step = _Step.OPEN
        self._login = self._granted = self._asked = None
        self._session.wait(Waiting.TUNNEL)
        self._session.gate.answered(self._attempt, self._attempt.status)
        yield from self._pass_down(postgres.AUTHENTICATED + login.rest())
        waiting = bytes(self._in)
        self._in.clear()
        if waiting:
            self._attempt.bytes_up += len(waiting)
            yield from self._upstream.send(waiting)
        yield PauseReading(self.context.client, hold=False)

    def _pass_down(self, data: bytes) -> Commands:
        self._attempt.bytes_down += len(data)
        yield from self._say(data)

    # --- the end

    def _client_closed(self) -> Commands:
        is_half = self.context.client.state is not ConnectionState.CLOSED
        if is_half and self._step is _Step.OPEN and not self._upstream.tls:
            yield from self._upstream.end_sending()
        elif self._step is not _Step.CANCELLING or not is_half:
            is_done = self._step in {_Step.OPEN, _Step.CANCELLING}
            yield from self._close(None if is_done else self._session.loss)

    def _upstream_ended(self) -> Commands:
        if self._step in {_Step.OPEN, _Step.CANCELLING}:
            yield from self._close(None)
        else:
            yield from self._fail_server("it closed the connection")

    def _cut_off(self, *, timed_out: bool) -> Commands:
        if not timed_out:
            yield from self._close(Reason.RULE_WITHDRAWN.value)
        elif self._step is _Step.OPEN:
            yield from self._close("idle-timeout")
        elif self._step in _OF_CLIENT:
            yield from self._close("handshake-timeout")
        else:
            text = "the database did not answer in time"
            yield from self._end_with("upstream-timeout", _UNREACHED, text)

    def _deny(self, reason: Reason) -> Commands:
        """Record that what the client sends is refused, and say so."""
        session = self._session
        session.gate.refuse_first_bytes(session.client_info, self._attempt, reason, self._target)
        yield from self._refuse(reason)

    def _refuse(self, reason: Reason) -> Commands:
        """Tell a client of a denial that is recorded."""
        code, text, hint = _TEXTS.get(reason, (_REFUSED, "the policy does not allow this", ""))
        yield from self._end_with(
            reason.value, code, f"denied by claude-proxy ({reason}): {text}", hint
        )

    def _fail_server(self, text: str) -> Commands:
        """End because of what the server says, or does not."""
        what = f"claude-proxy cannot log in to the database: {text}"
        yield from self._end_with("login-failed", _REFUSED, what)

    def _end_with(self, outcome: str, code: str, text: str, hint: str = "") -> Commands:
        if self._cancel is None and self._step is not _Step.OPEN:
            yield from self._say(postgres.fatal_error(code, text, hint))
        yield from self._close(outcome)

    def _say(self, data: bytes) -> Iterable[commands.Command]:
        return (commands.SendData(self.context.client, data),)

    def _close(self, outcome: str | None) -> Commands:
        is_dialled = self._step not in _OF_CLIENT
        self._step = _Step.OVER
        self._login = self._granted = self._asked = None
        self._in.clear()
        self._session.gate.end(self._attempt, outcome)
        if is_dialled:
            yield from self._upstream.close()
        yield commands.CloseConnection(self.context.client)
