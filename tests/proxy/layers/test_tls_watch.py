"""What is said of a client that trusts no CA names its program, and is not repeated."""

import pytest

from claude_proxy.proxy.layers.session import Session
from claude_proxy.proxy.layers.tls_watch import TlsWatch
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import ORIGIN, Ledger, gate_of

TARGET = Authority.of("example.com", 443)
ALERT = "tlsv1 alert unknown ca"


@pytest.fixture
def session() -> Session:
    return Session(gate_of("allow: [example.com]", Ledger()), ORIGIN, 65536)


def fail(session: Session) -> None:
    attempt = session.gate.connect(session.client_info, TARGET)
    TlsWatch(session, attempt, TARGET).failed(ALERT)
    assert attempt.ended


def test_a_rejection_is_said_once_with_the_program(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    session.program = lambda: "curl"

    for _ in range(3):
        fail(session)

    (entry,) = caplog.records
    assert entry.message.startswith(
        "curl broke off TLS to example.com: it does not trust the CA (unknown CA); "
    )


def test_a_program_that_is_gone_is_what_it_called_itself(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    session.agent = b"git/2.47.3 \x1b[31m"

    fail(session)

    assert caplog.records[0].message.startswith("git broke off TLS")


def test_a_program_that_is_not_found_is_a_client_at_its_address(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    fail(session)

    assert caplog.records[0].message.startswith("a client at 127.0.0.1 broke off TLS")


def test_a_program_of_a_run_is_named_by_its_run(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    session.program = lambda: "python3"  # the relay
    session.client_info = session.client_info.of_run("run blue: git", "blue")

    fail(session)

    assert caplog.records[0].message.startswith("a program in run blue broke off TLS")


def test_nothing_is_said_when_the_proxy_itself_closes(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    session.closing = True

    fail(session)

    assert caplog.records == []


def test_a_client_that_was_shed_is_not_blamed(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = session.gate.connect(session.client_info, TARGET)
    session.loss = "shed"

    TlsWatch(session, attempt, TARGET).left(None)

    assert attempt.ended
    assert not caplog.records
