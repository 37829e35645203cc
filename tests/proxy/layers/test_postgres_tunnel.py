"""Laws of a tunnel to a database: the client shows a placeholder, and the server never sees it."""

import struct
from collections.abc import Iterator
from types import MappingProxyType
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.proxy.commands import Command
from mitmproxy.proxy.layer import Layer

from claude_proxy.events import Phase
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.gate import Gate, NoSecrets
from claude_proxy.proxy.layers.postgres_tunnel import PostgresTunnel
from claude_proxy.proxy.layers.tls_intercept import TlsIntercept
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.trust.leaf_contexts import LeafContexts
from claude_proxy.wire import postgres
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import ORIGIN, Ledger, Stage, policy_of

TARGET = Authority.of("db.example", 5432)
PLACEHOLDER = b"claude-proxy-placeholder-shop"
PASSWORD = b"pencil-of-the-owner"
ALLOWLIST = """\
allow: [{host: db.example, scheme: tcp, ports: [5432]}]
credentials:
  - {host: db.example, inject: postgres, name: shop, user: app, %s from: {env: PASSWORD}}
"""
STARTUP = postgres.startup_message({"user": "app", "database": "shop"})
READY = b"Z\x00\x00\x00\x05I"
CANCEL = struct.pack("!IIII", 16, 80877102, 7, 8)


class Holding(NoSecrets):
    """Has the password, and notes what became of it."""

    def __init__(self) -> None:
        self.secrets = MappingProxyType({"shop": Secret(PASSWORD)})
        self.statuses: list[int] = []

    def answered(self, name: str, status: int) -> None:
        assert name == "shop"
        self.statuses.append(status)


def _in_no_tls(successor: Layer, early: bytes) -> NoReturn:
    raise AssertionError((successor, early))


def play(ledger: Ledger, more: str = "tls: none, auth: [md5],", **settings: bool) -> Stage:
    gate = Gate(policy_of(ALLOWLIST % more), ledger.events.append, secret_provider=Holding())
    attempt = gate.connect(ORIGIN, TARGET)
    attempt.status = 200
    return Stage(
        lambda context, session: PostgresTunnel(context, session, TARGET, attempt, _in_no_tls),
        gate,
        **settings,  # type: ignore[arg-type]
    )


def password(text: bytes = PLACEHOLDER) -> bytes:
    return postgres.password_message(text)


def log_in(stage: Stage) -> Stage:
    assert stage.says(STARTUP) == postgres.ASK_FOR_PASSWORD
    assert stage.says(password()) == b""
    assert stage.upstream.take() == STARTUP
    assert stage.answers(postgres.message(b"R", struct.pack("!I", 5) + b"salt")) == b""
    hashed = postgres.md5_of("app", PASSWORD, b"salt")
    assert stage.upstream.take() == postgres.password_message(hashed)
    assert stage.answers(postgres.AUTHENTICATED + READY) == postgres.AUTHENTICATED + READY
    return stage


def refused(told: bytes) -> str:
    """Return the reason in an error for the client."""
    kind, body = postgres.read_message(bytearray(told), 10_000) or (b"", b"")
    assert kind == b"E"
    assert PASSWORD not in body
    return body.decode()


@pytest.fixture
def stage(ledger: Ledger) -> Stage:
    return play(ledger)


def test_after_the_login_bytes_are_copied_and_counted(stage: Stage, ledger: Ledger) -> None:
    log_in(stage)

    assert stage.says(b"Q\x00\x00\x00\x0bselect\x00") == b""
    assert stage.upstream.take() == b"Q\x00\x00\x00\x0bselect\x00"
    assert stage.answers(READY) == READY
    stage.upstream_ends()

    assert stage.client.closed
    assert (ledger.last.bytes_up, ledger.last.error) == (12, None)
    assert ledger.decisions[0].credential == "shop"
    assert ledger.reasons == ["rule-matched"]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_nothing_is_dialled_before_the_login_is_judged(stage: Stage, size: int) -> None:
    sent = postgres.SSL_REQUEST
    answer = b""
    for at in range(0, len(sent), size):
        answer += stage.says(sent[at : at + size])
    assert answer == b"N"
    answer = b""
    for at in range(0, len(STARTUP), size):
        answer += stage.says(STARTUP[at : at + size])

    assert answer == postgres.ASK_FOR_PASSWORD
    assert stage.upstreams == []


LOGINS = {
    "another user": ({"user": "admin", "database": "shop"}, PLACEHOLDER, "foreign-credential"),
    "another password": ({"user": "app"}, b"hunter2", "foreign-credential"),
    "the password itself": ({"user": "app"}, PASSWORD, "foreign-credential"),
    "replication": ({"user": "app", "replication": "true"}, PLACEHOLDER, "method-refused"),
}


@pytest.mark.parametrize(("asked", "shown", "reason"), LOGINS.values(), ids=LOGINS)
def test_a_foreign_login_is_denied_and_recorded(
    stage: Stage, ledger: Ledger, asked: dict[str, str], shown: bytes, reason: str
) -> None:
    stage.says(postgres.startup_message(asked))

    assert f"denied by claude-proxy ({reason})" in refused(stage.says(password(shown)))
    assert stage.upstreams == []
    assert stage.client.closed
    assert ledger.reasons == ["rule-matched", reason]
    assert ledger.decisions[1].phase is Phase.HELLO


@pytest.mark.parametrize(
    "sent",
    [
        [b"GET / HTTP/1.1\r\n\r\n"],
        [b"\x16\x03\x01"],
        [postgres.SSL_REQUEST, postgres.SSL_REQUEST],
        [postgres.SSL_REQUEST + STARTUP],
        [STARTUP, b"Q\x00\x00\x00\x05\x00"],
        [STARTUP, b"p\x00\x00\x00\x06ab"],
        [STARTUP, b"p\xff\xff\xff\xff"],
    ],
)
def test_what_is_not_the_protocol_is_refused(
    stage: Stage, ledger: Ledger, sent: list[bytes]
) -> None:
    told = b""
    for data in sent:
        told = stage.says(data)

    assert b"(bad-request)" in told
    assert stage.client.closed
    assert stage.upstreams == []
    assert ledger.reasons == ["rule-matched", "bad-request"]


def test_a_server_that_asks_for_more_than_is_allowed_gets_nothing(ledger: Ledger) -> None:
    stage = play(ledger, "tls: none,")
    stage.says(STARTUP)
    stage.says(password())
    stage.upstream.take()

    told = stage.answers(postgres.message(b"R", struct.pack("!I", 3)))

    assert "by password, which is not allowed" in refused(told)
    assert stage.upstream.take() == b""
    assert stage.upstream.closed
    assert ledger.last.error == "login-failed"


@pytest.mark.parametrize("offer", [b"N", b"S\x16", b"E\x00\x00\x00\x05\x00"])
def test_without_tls_of_its_own_the_server_gets_no_login(ledger: Ledger, offer: bytes) -> None:
    stage = play(ledger, "")
    stage.says(STARTUP)
    stage.says(password())
    assert stage.upstream.take() == postgres.SSL_REQUEST

    assert "does not offer TLS" in refused(stage.answers(offer))
    assert stage.upstream.take() == b""
    assert stage.upstream.closed


def test_tls_begins_where_the_server_offers_it(ledger: Ledger) -> None:
    stage = play(ledger, "")
    stage.says(STARTUP)
    stage.says(password())
    stage.upstream.take()

    stage.answers(b"S")

    assert stage.upstream.take().startswith(b"\x16\x03\x01")
    assert "is not reached" in refused(stage.answers(b"\x15\x03\x03\x00\x02\x02\x28"))


def test_a_server_that_refuses_the_password_is_told_as_it_is(stage: Stage, ledger: Ledger) -> None:
    stage.says(STARTUP)
    stage.says(password())
    told = postgres.fatal_error("28P01", "password authentication failed for user app")

    assert stage.answers(told) == told
    assert stage.client.closed
    assert ledger.last.error == "login-refused"
    provider = stage.session.gate._secret_provider
    assert isinstance(provider, Holding)
    assert provider.statuses == [401]


def test_a_binding_that_changed_during_the_dial_is_not_used(ledger: Ledger) -> None:
    stage = play(ledger, connects=False)
    stage.says(STARTUP)
    stage.says(password())
    stage.session.gate.policy = policy_of(ALLOWLIST % "database: shop, tls: none,")

    told = stage.reached()

    assert "(credential-unavailable)" in refused(told)
    assert stage.upstream.take() == b""


def test_a_database_that_is_not_reached_is_told(ledger: Ledger) -> None:
    stage = play(ledger, connects=False)
    stage.says(STARTUP)
    stage.says(password())

    told = stage.reached(DialError(Failure.REFUSED, "the connection was refused"))

    assert "the connection was refused" in refused(told)
    assert ledger.last.error == Failure.REFUSED.value


def test_a_request_to_cancel_goes_to_the_server_alone(stage: Stage, ledger: Ledger) -> None:
    assert stage.says(CANCEL) == b""
    assert stage.upstream.take() == CANCEL
    stage.upstream_ends()

    assert stage.client.closed
    assert stage.client.take() == b""
    assert ledger.last.error is None


def test_a_client_that_half_closes_after_a_request_to_cancel_is_served(stage: Stage) -> None:
    stage.says(CANCEL)
    stage.client_half_closes()

    assert not stage.upstream.closed
    stage.upstream_ends()
    assert stage.client.closed


def test_a_newer_version_and_its_extensions_are_declined(stage: Stage) -> None:
    body = b"user\0app\0_pq_.x\0y\0\0"
    newer = struct.pack("!II", len(body) + 8, 196610) + body

    answer = stage.says(newer)
    stage.says(password())

    assert answer.startswith(b"v")
    assert answer.endswith(postgres.ASK_FOR_PASSWORD)
    assert stage.upstream.take() == postgres.startup_message({"user": "app"})


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_withdrawn_rule_and_a_time_limit_end_every_step(ledger: Ledger, steps: int) -> None:
    for end in ("is_withdrawn", "expires", "client_goes"):
        stage = play(ledger)
        for data in (STARTUP, password())[:steps]:
            stage.says(data)

        getattr(stage, end)()

        assert stage.client.closed
        assert all(peer.closed for peer in stage.upstreams)
        assert ledger.last.error is not None


def test_a_tunnel_ends_with_its_binding(stage: Stage) -> None:
    log_in(stage)
    gate, session = stage.session.gate, stage.session

    def holds() -> bool:
        return gate.may_stay_open(TARGET, passthrough=True, raw=True, database=session.database)

    assert holds()
    gate.policy = policy_of("allow: [{host: db.example, scheme: tcp, ports: [5432]}]")
    assert not holds()
    gate.policy = policy_of(ALLOWLIST % "database: shop, tls: none,")
    assert not holds()


def test_a_client_that_asks_for_tls_gets_it_where_there_is_a_ca(
    ledger: Ledger, authority: CertificateAuthority
) -> None:
    gate = Gate(policy_of(ALLOWLIST % ""), ledger.events.append, secret_provider=Holding())
    attempt = gate.connect(ORIGIN, TARGET)
    successors: list[Layer] = []

    def replace_with(successor: Layer, early: bytes) -> Iterator[Command]:
        assert early == b""
        successors.append(successor)
        yield from ()

    stage = Stage(
        lambda context, session: PostgresTunnel(context, session, TARGET, attempt, replace_with),
        gate,
        leaf_contexts=LeafContexts(authority),
    )

    assert stage.says(struct.pack("!II", 8, 80877104)) == b"N"  # GSSAPI
    assert stage.says(postgres.SSL_REQUEST) == b"S"
    assert isinstance(successors[0], TlsIntercept)
    assert ledger.outcomes == []


_OF_CLIENT = [postgres.SSL_REQUEST, STARTUP, password(), password(b"x"), CANCEL, READY]
_OF_SERVER = [
    *(b"S", b"N", postgres.AUTHENTICATED, READY, postgres.fatal_error("28P01", "no")),
    postgres.message(b"R", struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0"),
    postgres.message(b"R", struct.pack("!I", 5) + b"salt"),
    postgres.message(b"R", struct.pack("!I", 3)),
    postgres.message(b"R", struct.pack("!I", 11) + b"r=x,s=AAAA,i=4096"),
]


@given(
    st.lists(
        st.tuples(st.just(True), st.sampled_from(_OF_CLIENT) | st.binary(max_size=30))
        | st.tuples(st.just(False), st.sampled_from(_OF_SERVER) | st.binary(max_size=30)),
        max_size=8,
    ),
    st.sampled_from(["tls: none,", "", "tls: none, auth: [md5],"]),
)
def test_whatever_both_sides_say_the_password_goes_to_neither(
    said: list[tuple[bool, bytes]], more: str
) -> None:
    ledger = Ledger()
    stage = play(ledger, more)
    got = b""
    for by_client, data in said:
        if stage.client.closed:
            break
        if by_client:
            got += stage.says(data)
        elif stage.upstreams and not stage.upstream.closed:
            got += stage.answers(data)

    sent = b"".join(peer.take() for peer in stage.upstreams)
    assert PASSWORD not in got + sent
    assert "internal-error" not in ledger.reasons
    assert not stage.client.closed or all(peer.closed for peer in stage.upstreams)
