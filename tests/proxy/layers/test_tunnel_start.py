"""The first bytes inside a tunnel are a ClientHello that agrees, or nothing is forwarded."""

import pytest

from claude_proxy.events import Phase
from claude_proxy.policy.decision import Decision
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.proxy.gate import Gate
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.front import (
    DENIED_ALERT,
    ESTABLISHED,
    UNREADABLE_ALERT,
    PlayFront,
    connect,
    play_front,
    tunnel,
)
from tests.proxy.layers.http1_peers import reason_of
from tests.proxy.layers.stage import Ledger, Stage
from tests.proxy.layers.tls_peers import TlsClient, client_context
from tests.wire.hellos import ENCRYPTED, hello, real_hello, records, sni


@pytest.fixture
def play(ledger: Ledger, authority: CertificateAuthority) -> PlayFront:
    return play_front(ledger, authority)


@pytest.fixture
def stage(play: PlayFront) -> Stage:
    return play()


# --- the first bytes inside a tunnel


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (real_hello("evil.example"), "sni-mismatch"),
        (real_hello("www.example.com"), "sni-mismatch"),
        (real_hello(None), "sni-missing"),
        (records(hello(sni(b"evil.example"), (ENCRYPTED, b"\x00"))), "sni-mismatch"),
        (records(hello(sni(b"example.com."))), "sni-mismatch"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_hello_that_disagrees_is_denied_however_it_is_cut(
    stage: Stage, ledger: Ledger, sent: bytes, reason: str, size: int
) -> None:
    tunnel(stage)

    answer = b"".join(stage.says(sent[at : at + size]) for at in range(0, len(sent), size))

    assert answer == DENIED_ALERT
    assert stage.client.closed
    assert stage.upstreams == []
    assert ledger.reasons == ["rule-matched", reason]
    assert ledger.decisions[1].phase is Phase.HELLO
    assert [outcome.error for outcome in ledger.outcomes] == [None, reason]


@pytest.mark.parametrize(
    "sent",
    [
        records(hello(sni(b"example.com"), sni(b"evil.example"))),
        records(hello(sni(b"example.com", b"evil.example"))),
        records(hello(sni(b"example.com")) + b"\x00"),
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\xff\xff",
    ],
)
def test_a_hello_that_cannot_be_read_is_denied(stage: Stage, ledger: Ledger, sent: bytes) -> None:
    tunnel(stage)

    assert stage.says(sent) == UNREADABLE_ALERT
    assert stage.client.closed
    assert ledger.reasons == ["rule-matched", "hello-unreadable"]


@pytest.mark.parametrize("sent", [b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\n", b"\x00", b"\x16\x01"])
def test_bytes_that_are_not_tls_are_refused(stage: Stage, ledger: Ledger, sent: bytes) -> None:
    tunnel(stage)

    assert stage.says(sent) == b""
    assert stage.client.closed
    assert ledger.reasons == ["rule-matched", "not-tls"]
    assert stage.upstreams == []


def test_tls_is_refused_where_only_plain_http_is_allowed(stage: Stage, ledger: Ledger) -> None:
    tunnel(stage, "plain.example:80")

    assert stage.says(real_hello("plain.example")) == DENIED_ALERT
    assert ledger.reasons == ["rule-matched", "scheme-not-allowed"]


def test_plain_http_may_be_spoken_where_a_rule_allows_it(stage: Stage, ledger: Ledger) -> None:
    tunnel(stage, "plain.example:80")

    stage.says(b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n")
    mismatch = stage.says(b"")
    stage.answers(b"HTTP/1.1 204 No Content\r\n\r\n")
    mismatch = stage.says(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")

    assert stage.upstream.take() == b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n"
    assert reason_of(mismatch) == "host-mismatch"
    assert ledger.reasons == ["rule-matched", "rule-matched", "host-mismatch"]


def test_a_host_with_rules_for_both_ports_speaks_on_each_what_its_rule_says(
    play: PlayFront,
) -> None:
    assert tunnel(play(), "both.example:443").says(b"GET / HTTP/1.1\r\n") == b""
    assert tunnel(play(), "both.example:80").says(real_hello("both.example")) == DENIED_ALERT


def test_the_first_byte_of_tls_alone_is_waited_on(stage: Stage) -> None:
    tunnel(stage)

    assert stage.says(b"\x16") == b""
    assert not stage.client.closed


def test_bytes_sent_along_with_the_connect_are_judged_like_any(stage: Stage) -> None:
    answer = stage.says(connect("example.com:443") + real_hello("evil.example"))

    assert answer == ESTABLISHED + DENIED_ALERT
    assert stage.client.closed


def test_an_address_is_right_without_a_name(stage: Stage) -> None:
    tunnel(stage, "192.0.2.1:443")

    answer = stage.says(real_hello(None))

    assert answer.startswith(b"\x16\x03\x03")  # our ServerHello


def test_an_agreeing_hello_is_answered_with_our_certificate(
    stage: Stage, ledger: Ledger, authority: CertificateAuthority
) -> None:
    tunnel(stage)
    client = TlsClient(stage, client_context(authority), "example.com")

    client.pump()

    assert client.shaken
    assert stage.upstreams == []
    assert client.says(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n").startswith(
        b"HTTP/1.1 403 Denied by claude-proxy (host-mismatch)\r\n"
    )
    tunnel_ended = ledger.outcomes[0]
    assert (tunnel_ended.status, tunnel_ended.error) == (200, None)


def test_a_client_that_offers_http_2_gets_it(stage: Stage, authority: CertificateAuthority) -> None:
    tunnel(stage)
    client = TlsClient(stage, client_context(authority, "h2"), "example.com")

    client.pump()

    assert client.tls.selected_alpn_protocol() == "h2"
    assert stage.session.protocol == "h2"


def test_a_hello_to_a_passthrough_host_is_forwarded_unchanged(stage: Stage, ledger: Ledger) -> None:
    sent = real_hello("opaque.example")
    tunnel(stage, "opaque.example:443")

    stage.says(sent[:100])
    before = list(stage.upstreams)
    stage.says(sent[100:])

    assert before == []
    assert stage.upstream.take() == sent
    assert stage.upstream.address == ("opaque.example", 443)
    assert ledger.decisions[0].scheme == "tls"


def test_a_hello_to_a_passthrough_host_must_agree_too(stage: Stage, ledger: Ledger) -> None:
    tunnel(stage, "opaque.example:443")

    assert stage.says(real_hello("example.com")) == DENIED_ALERT
    assert stage.upstreams == []
    assert ledger.reasons == ["rule-matched", "sni-mismatch"]


class UndecidedPolicy(Policy):
    """Opens tunnels and does not say what becomes of their TLS."""

    def decide_connect(self, _target: Authority) -> Decision:
        return Decision(True, Reason.RULE_MATCHED, secure=True)


def test_a_tunnel_that_nobody_decided_on_is_closed(play: PlayFront, ledger: Ledger) -> None:
    stage = tunnel(play(Gate(UndecidedPolicy(), ledger.events.append)))

    assert stage.says(real_hello("example.com")) == DENIED_ALERT
    assert ledger.reasons[-1] == "internal-error"


# --- ends


@pytest.mark.parametrize("said", [b"", real_hello("example.com")[:50]], ids=["nothing", "a part"])
def test_a_hello_that_does_not_come_in_time_is_closed(
    stage: Stage, ledger: Ledger, said: bytes
) -> None:
    tunnel(stage)
    stage.says(said)

    assert stage.expires() == b""
    assert stage.client.closed
    assert ledger.last.error == "handshake-timeout"


def test_a_tunnel_whose_rule_is_gone_is_closed(stage: Stage, ledger: Ledger) -> None:
    tunnel(stage)

    stage.is_withdrawn()

    assert stage.client.closed
    assert ledger.last.error == "rule-withdrawn"


def test_a_client_that_leaves_before_its_hello_is_recorded(stage: Stage, ledger: Ledger) -> None:
    tunnel(stage)

    stage.client_goes()

    assert ledger.last.error == "client-closed"


def test_a_client_that_half_closes_before_its_hello_is_let_go_and_recorded(
    stage: Stage, ledger: Ledger
) -> None:
    tunnel(stage)

    stage.client_half_closes()

    assert stage.client.closed
    assert ledger.last.error == "client-closed"
