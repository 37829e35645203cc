"""Bytes of any protocol pass where a rule says so, and what names another host does not."""

import pytest

from claude_proxy.events import Phase
from claude_proxy.proxy.layers.raw_tunnel import RawTunnel
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import ORIGIN, Ledger, Stage, gate_of
from tests.wire.hellos import ENCRYPTED, hello, real_hello, records, sni

TARGET = Authority.of("raw.example", 22)
ALLOWLIST = "allow: [{host: raw.example, scheme: tcp, ports: [22]}]"


def play(ledger: Ledger, *, connects: bool = True) -> Stage:
    gate = gate_of(ALLOWLIST, ledger)
    attempt = gate.connect(ORIGIN, TARGET)
    return Stage(
        lambda context, session: RawTunnel(context, session, TARGET, attempt),
        gate,
        connects=connects,
    )


@pytest.fixture
def stage(ledger: Ledger) -> Stage:
    return play(ledger)


def test_bytes_of_another_protocol_are_copied_both_ways(stage: Stage, ledger: Ledger) -> None:
    stage.says(b"SSH-2.0-x\r\n")
    down = stage.answers(b"SSH-2.0-y\r\n")
    stage.says(b"GET / HTTP/1.1\r\n")  # within the other protocol

    assert stage.upstream.take() == b"SSH-2.0-x\r\nGET / HTTP/1.1\r\n"
    assert down == b"SSH-2.0-y\r\n"
    assert ledger.reasons == ["rule-matched"]


def test_the_upstream_may_speak_first(stage: Stage) -> None:
    assert stage.answers(b"220 ready\r\n") == b"220 ready\r\n"

    stage.says(b"EHLO a\r\n")

    assert stage.upstream.take() == b"EHLO a\r\n"


def test_what_comes_before_the_upstream_is_there_waits_and_is_judged(ledger: Ledger) -> None:
    stage = play(ledger, connects=False)
    stage.says(b"SSH-2.0-x\r\n")

    stage.reached()

    assert stage.upstream.take() == b"SSH-2.0-x\r\n"
    assert not stage.client.held


def test_tls_for_the_target_passes(stage: Stage) -> None:
    sent = real_hello("raw.example")

    for byte in sent:
        stage.says(bytes([byte]))

    assert stage.upstream.take() == sent


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (real_hello("evil.example"), "sni-mismatch"),
        (real_hello(None), "sni-missing"),
        (records(hello(sni(b"raw.example"), (ENCRYPTED, b""))), "encrypted-hello"),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", "hello-unreadable"),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", "not-tls"),
        (b"\r\nPRI * HTTP/2.0\r\n\r\n", "not-tls"),
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_what_could_name_another_host_ends_the_tunnel(
    stage: Stage, ledger: Ledger, sent: bytes, reason: str, size: int
) -> None:
    for at in range(0, len(sent), size):
        stage.says(sent[at : at + size])

    assert b"HTTP/1" not in stage.upstream.take()
    assert stage.client.closed
    assert stage.upstream.closed
    assert ledger.reasons == ["rule-matched", reason]
    assert ledger.decisions[1].phase is Phase.HELLO


def test_a_half_close_is_passed_on(stage: Stage) -> None:
    stage.says(b"\x00quit")
    stage.client_half_closes()

    assert stage.upstream.half_closed
    assert stage.answers(b"bye") == b"bye"
