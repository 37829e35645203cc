"""A session begins with nothing allowed, and each wait is distinguished from the last."""

import pytest
from mitmproxy.connection import Server

from claude_proxy.policy.policy import Policy
from claude_proxy.proxy.gate import ClientInfo, Gate
from claude_proxy.proxy.layers.session import PauseReading, Session, Waiting
from claude_proxy.proxy.warm_keys import Route
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import Ledger


@pytest.fixture
def session(ledger: Ledger) -> Session:
    gate = Gate(Policy(), ledger.events.append)
    return Session(gate, ClientInfo(1, "127.0.0.1:1", "tcp"), head_limit=100)


def test_a_session_begins_with_nothing_open_and_waits_for_a_head(session: Session) -> None:
    assert session.waiting is Waiting.HEAD
    assert (session.target, session.preconnected, session.websocket_request) == (None, None, None)
    assert not (session.passthrough)
    assert not (session.local)
    assert not (session.closing)
    assert not (session.record_query)


def test_a_session_has_no_connection_that_is_ready(session: Session, ledger: Ledger) -> None:
    target = Authority.of("example.com", 443)
    attempt = session.gate.connect(session.client_info, target)
    route = Route(target, tls=True, alpn=(), tunnel=True)

    session.keep_warm(route, attempt)

    assert session.take_warm(route, attempt) is None
    assert not session.is_run_over()
    assert len(ledger.events) == 1


def test_a_wait_for_the_same_thing_is_a_new_wait(session: Session) -> None:
    waits = set()
    for what in (Waiting.IDLE, Waiting.HEAD, Waiting.HEAD):
        session.wait(what)
        waits.add(session.wait_id)

    assert session.waiting is Waiting.HEAD
    assert len(waits) == 3


def test_sessions_are_equal_to_themselves_only(session: Session, ledger: Ledger) -> None:
    other = Session(session.gate, session.client_info, head_limit=100)

    assert session != other
    assert len({session, other}) == 2
    assert ledger.events == []


def test_a_pause_names_one_connection_and_may_be_taken_back() -> None:
    server = Server(address=None)

    assert PauseReading(server, hold=True).connection is server
    assert not PauseReading(server, hold=False).hold
