"""Passthrough TLS is copied unchanged, once every ClientHello has agreed."""

import pytest

from claude_proxy.events import Phase
from claude_proxy.policy.decision import denied
from claude_proxy.policy.reason import Reason
from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.layers.passthrough import Passthrough
from claude_proxy.proxy.layers.session import Waiting
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import ORIGIN, Ledger, Stage, gate_of
from tests.wire.hellos import (
    CHANGE_CIPHER_SPEC,
    ENCRYPTED,
    hello,
    records,
    retry_request,
    server_hello,
    sni,
)

TARGET = Authority.of("opaque.example", 443)
HELLO = records(hello(sni(b"opaque.example")))
FINISHED = b"\x17\x03\x03\x00\x04done"


def play(ledger: Ledger, *, connects: bool = True, early: bytes = HELLO) -> Stage:
    gate = gate_of("allow: [{host: opaque.example, tls: passthrough}]", ledger)
    passage = gate.connect(ORIGIN, TARGET)
    passage.status = 200
    return Stage(
        lambda context, session: Passthrough(context, session, TARGET, passage, early),
        gate,
        connects=connects,
    )


@pytest.fixture
def stage(ledger: Ledger) -> Stage:
    return play(ledger)


def test_bytes_are_copied_both_ways_and_counted(stage: Stage, ledger: Ledger) -> None:
    hello_up = stage.upstream.take()
    down = stage.answers(server_hello())
    stage.says(FINISHED)
    up = stage.upstream.take()
    more = stage.answers(b"more")
    stage.upstream_ends()

    assert (hello_up, up) == (HELLO, FINISHED)
    assert (down, more) == (server_hello(), b"more")
    assert stage.client.closed
    assert stage.upstream.closed
    assert ledger.last.bytes_up == len(HELLO + FINISHED)
    assert ledger.last.bytes_down == len(server_hello() + b"more")
    assert (ledger.last.error, ledger.last.upstream) == (None, "203.0.113.5:443")
    assert ledger.last.first_byte_ms is not None


def test_a_client_is_not_read_before_its_upstream_is_there(ledger: Ledger) -> None:
    stage = play(ledger, connects=False)
    held, waiting = stage.client.held, stage.session.waiting
    stage.says(b"early")  # what had been read before

    stage.reached()

    assert held
    assert waiting is Waiting.UPSTREAM
    assert stage.upstream.take() == HELLO + b"early"
    assert not stage.client.held
    assert stage.session.waiting is Waiting.TUNNEL


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (DialError(Failure.REFUSED, "it refuses"), "connect-refused"),
        (
            DialError(Failure.DENIED, "no", denied(Reason.ADDRESS_NOT_ALLOWED)),
            "address-not-allowed",
        ),
    ],
)
def test_what_cannot_be_reached_is_closed_and_recorded(
    ledger: Ledger, error: DialError, word: str
) -> None:
    stage = play(ledger, connects=False)

    answer = stage.reached(error)

    assert answer == b""
    assert stage.client.closed
    assert ledger.last.error == word


# --- ends


def test_a_half_close_goes_up(stage: Stage, ledger: Ledger) -> None:
    stage.client_half_closes()
    half_closed = stage.upstream.half_closed
    down = stage.answers(b"\x15last words")
    stage.upstream_ends()

    assert half_closed
    assert down == b"\x15last words"
    assert stage.client.closed
    assert ledger.last.error is None


@pytest.mark.parametrize("leave", [Stage.client_goes, Stage.client_half_closes])
def test_a_client_that_leaves_before_the_upstream_is_there_is_recorded(
    ledger: Ledger, leave: object
) -> None:
    stage = play(ledger, connects=False)
    assert callable(leave)

    leave(stage)

    assert stage.upstream.closed
    assert ledger.last.error == "client-closed"


def test_a_client_that_leaves_ends_the_tunnel(stage: Stage, ledger: Ledger) -> None:
    stage.client_goes()

    assert stage.upstream.closed
    assert ledger.last.error is None


def test_an_idle_tunnel_is_closed(stage: Stage, ledger: Ledger) -> None:
    stage.expires()

    assert stage.client.closed
    assert stage.upstream.closed
    assert ledger.last.error == "idle-timeout"


def test_a_tunnel_whose_rule_is_gone_is_closed(stage: Stage, ledger: Ledger) -> None:
    stage.is_withdrawn()

    assert stage.client.closed
    assert ledger.last.error == "rule-withdrawn"


def test_the_first_bytes_of_an_answer_are_not_lost_when_it_ends_early(stage: Stage) -> None:
    held_back = stage.answers(b"\x16\x03")

    rest = stage.upstream_ends()

    assert (held_back, rest) == (b"", b"\x16\x03")


# --- a second hello


def asked_again(stage: Stage) -> None:
    stage.upstream.take()
    assert stage.answers(retry_request()) == retry_request()


@pytest.mark.parametrize("before", [b"", CHANGE_CIPHER_SPEC])
@pytest.mark.parametrize("size", [1, 50, 10_000])
def test_a_second_hello_that_agrees_goes_up(stage: Stage, before: bytes, size: int) -> None:
    second = before + HELLO + FINISHED
    asked_again(stage)

    for at in range(0, len(second), size):
        stage.says(second[at : at + size])
    stage.says(b"more")

    assert stage.upstream.take() == second + b"more"


def test_nothing_of_a_second_hello_goes_up_before_it_is_whole(stage: Stage) -> None:
    asked_again(stage)

    stage.says(CHANGE_CIPHER_SPEC + HELLO[:-1])

    assert stage.upstream.take() == b""


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (records(hello(sni(b"evil.example"))), "sni-mismatch"),
        (records(hello()), "sni-missing"),
        (records(hello(sni(b"opaque.example"), (ENCRYPTED, b""))), "encrypted-hello"),
        (FINISHED, "hello-unreadable"),
        (CHANGE_CIPHER_SPEC + CHANGE_CIPHER_SPEC + HELLO, "hello-unreadable"),
        (b"\x14\x03\x03\x00\x09\x01" + HELLO, "hello-unreadable"),
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_a_second_hello_that_disagrees_ends_the_tunnel(
    stage: Stage, ledger: Ledger, second: bytes, reason: str, size: int
) -> None:
    asked_again(stage)

    for at in range(0, len(second), size):
        stage.says(second[at : at + size])

    assert stage.upstream.take() == b""
    assert stage.client.closed
    assert stage.upstream.closed
    assert ledger.reasons == ["rule-matched", reason]
    assert ledger.decisions[1].phase is Phase.HELLO
    assert {outcome.error for outcome in ledger.outcomes} == {None, reason}
    assert len(ledger.outcomes) == 2


def test_a_request_for_a_second_hello_is_known_however_it_is_cut(
    stage: Stage, ledger: Ledger
) -> None:
    down = b"".join(stage.answers(bytes([byte])) for byte in retry_request())
    stage.says(records(hello(sni(b"evil.example"))))

    assert down == retry_request()
    assert ledger.reasons[-1] == "sni-mismatch"


def test_a_second_hello_that_comes_unasked_opens_nothing(ledger: Ledger) -> None:
    """It has passed before anybody asked for it; but its handshake cannot be finished."""
    stage = play(ledger, early=HELLO + records(hello(sni(b"evil.example"))))
    asked_again(stage)
    stage.answers(server_hello())

    stage.says(CHANGE_CIPHER_SPEC + FINISHED)

    assert stage.upstream.take() == b""
    assert stage.client.closed
    assert ledger.reasons[-1] == "hello-unreadable"
