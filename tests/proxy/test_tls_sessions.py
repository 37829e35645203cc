"""Sessions that are kept are few, and those that cannot be resumed are not kept."""

import ssl
from dataclasses import dataclass, field
from typing import cast

from claude_proxy.proxy.tls_sessions import KEPT_S, MOST, SessionKey, TlsSessions
from claude_proxy.wire.authority import Authority

TARGET = Authority.of("example.com", 443)


@dataclass
class Ticket:
    has_ticket: bool = True
    ticket_lifetime_hint: int = 7200


@dataclass
class Verified:
    """A connection after its handshake."""

    session: Ticket | None = field(default_factory=Ticket)
    session_reused: bool = False

    def getpeercert(self) -> dict[str, str]:
        return {"notAfter": "Jan  1 00:00:00 2050 GMT"}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def key_of(owner: object, target: Authority = TARGET) -> SessionKey:
    return SessionKey(owner, target, ())


def connection(session: Ticket | None, *, reused: bool = False) -> ssl.SSLObject:
    return cast("ssl.SSLObject", Verified(session, reused))


def test_the_sessions_that_are_kept_are_bounded() -> None:
    sessions = TlsSessions(Clock())

    for number in range(MOST + 20):
        sessions.keep(key_of(number), connection(Ticket()))

    assert len(sessions) == MOST
    assert sessions.session_for(key_of(19)) is None
    assert sessions.session_for(key_of(20)) is not None


def test_those_whose_time_is_over_go_with_the_next_one() -> None:
    clock = Clock()
    sessions = TlsSessions(clock)
    for number in range(3):
        sessions.keep(key_of(number), connection(Ticket()))

    clock.now += KEPT_S
    sessions.keep(key_of("new"), connection(Ticket()))

    assert len(sessions) == 1


def test_a_connection_without_a_session_gives_none() -> None:
    sessions = TlsSessions(Clock())
    sessions.keep(key_of(1), connection(None))

    assert sessions.session_for(key_of(1)) is None
    assert len(sessions) == 0


def test_a_ticket_is_not_used_for_longer_than_the_server_says() -> None:
    clock = Clock()
    sessions = TlsSessions(clock)
    sessions.keep(key_of(1), connection(Ticket(ticket_lifetime_hint=10)))
    assert sessions.session_for(key_of(1)) is not None

    clock.now += 10

    assert sessions.session_for(key_of(1)) is None


def test_resuming_does_not_prolong_the_time_of_a_verification() -> None:
    clock = Clock()
    sessions = TlsSessions(clock)
    sessions.keep(key_of(1), connection(Ticket()))

    for _ in range(4):
        clock.now += KEPT_S / 4
        sessions.keep(key_of(1), connection(Ticket(), reused=True))

    assert sessions.session_for(key_of(1)) is None


def test_a_failure_that_resumed_nothing_forgets_only_that_session() -> None:
    sessions = TlsSessions(Clock())
    sessions.keep(key_of(1), connection(Ticket()))
    sessions.keep(key_of(2), connection(Ticket()))

    sessions.failed(key_of(1), resumed=False)

    assert sessions.session_for(key_of(1)) is None
    assert sessions.session_for(key_of(2)) is not None


def test_the_targets_that_are_not_asked_to_resume_are_bounded() -> None:
    clock = Clock()
    sessions = TlsSessions(clock)
    targets = [Authority.of(f"h{number}.example", 443) for number in range(MOST + 1)]
    for target in targets:
        sessions.failed(key_of(1, target), resumed=True)
        sessions.keep(key_of(1, target), connection(Ticket()))

    forgotten, still = targets[0], targets[-1]
    sessions.keep(key_of(1, forgotten), connection(Ticket()))

    assert sessions.session_for(key_of(1, forgotten)) is not None
    assert sessions.session_for(key_of(1, still)) is None
