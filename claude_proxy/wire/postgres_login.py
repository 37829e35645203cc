"""PostgreSQL's login as a client: what is sent to a server, and when it is believed.

Law kept: no quiet downgrade. Only the ways to log in that are allowed are answered, and a server
that asks for none, or has not proved by SCRAM that it knows the password, is refused. Sans-io.
"""

from collections.abc import Callable, Collection
from enum import Enum, auto
from typing import NoReturn

from claude_proxy.wire import postgres
from claude_proxy.wire.postgres import Demand, PostgresError
from claude_proxy.wire.scram import MECHANISM, ScramClient


class _Step(Enum):
    BEGUN = auto()  # the server has to ask for a login
    ANSWERED = auto()  # with the password, in clear or hashed
    SCRAM_BEGUN = auto()
    SCRAM_ANSWERED = auto()
    PROVED = auto()  # the server knows the password, too


class ServerLogin:
    """One login to a server, as `user` with `password`; `methods` are PostgreSQL's names."""

    def __init__(self, user: str, password: bytes, methods: Collection[str], nonce: str) -> None:
        self.is_over = False
        self.refusal: bytes | None = None  # the server's error, as it came
        # What takes long: to be called in any thread, and its result to be handed to `worked`.
        self.work: Callable[[], bytes] | None = None
        self._user = user
        self._password = password
        self._methods = frozenset(methods)
        self._scram = ScramClient(password, nonce)
        self._step = _Step.BEGUN
        self._in = bytearray()

    def __repr__(self) -> str:
        return f"ServerLogin({self._step.name})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ServerLogin holds a secret, so it cannot be pickled")

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the server; return what to send. PostgresError; ScramError."""
        self._in += data
        if self.work is not None and len(self._in) > postgres.LONGEST_ANSWER:
            raise PostgresError("the server does not wait for an answer")
        out = b""
        while not self.is_over and self.work is None:
            found = postgres.read_message(self._in, postgres.LONGEST_ANSWER)
            if found is None:
                break
            out += self._take(*found)
        return out

    def worked(self, answer: bytes) -> bytes:
        """Take the result of `work`; return what to send."""
        self.work = None
        return postgres.sasl_response(answer) + self.receive(b"")

    def rest(self) -> bytes:
        """Return what came after the login, which is for the client."""
        rest = bytes(self._in)
        self._in.clear()
        return rest

    def _take(self, kind: bytes, body: bytes) -> bytes:
        if kind == postgres.ERROR:
            self.refusal = postgres.message(kind, body)
            self.is_over = True
            return b""
        if kind == postgres.NOTICE:
            return b""
        if kind != postgres.AUTHENTICATION:
            raise PostgresError("the server goes on before the login is over")
        demand, rest = postgres.demand_of(body)
        return self._answer(demand, rest)

    def _answer(self, demand: Demand, rest: bytes) -> bytes:
        match demand, self._step:
            case Demand.SASL, _Step.BEGUN:
                return self._begin_scram(postgres.mechanisms_in(rest))
            case Demand.SASL_CONTINUE, _Step.SCRAM_BEGUN:
                self._step = _Step.SCRAM_ANSWERED
                self.work = lambda: self._scram.final(rest)
            case Demand.SASL_FINAL, _Step.SCRAM_ANSWERED:
                self._scram.verify(rest)
                self._step = _Step.PROVED
            case Demand.NOTHING, _Step.ANSWERED | _Step.PROVED:
                self.is_over = True
            case Demand.NOTHING, _Step.BEGUN:
                raise PostgresError("the server lets anybody in, and asks for no password")
            case Demand.MD5, _Step.BEGUN:
                self._check("md5")
                return self._say(postgres.md5_of(self._user, self._password, rest))
            case Demand.CLEARTEXT, _Step.BEGUN:
                self._check("password")
                return self._say(self._password)
            case _:
                raise PostgresError("the server asks for a login out of turn")
        return b""

    def _begin_scram(self, offered: tuple[str, ...]) -> bytes:
        self._check(MECHANISM.lower())
        if MECHANISM not in offered:
            raise PostgresError(f"the server does not offer {MECHANISM}")
        self._step = _Step.SCRAM_BEGUN
        return postgres.sasl_initial(MECHANISM, self._scram.first())

    def _say(self, password: bytes) -> bytes:
        if not password or b"\0" in password:
            raise PostgresError("the password cannot be sent")
        self._step = _Step.ANSWERED
        return postgres.password_message(password)

    def _check(self, method: str) -> None:
        if method not in self._methods:
            raise PostgresError(
                f"the server asks for the password by {method}, which is not allowed"
            )
