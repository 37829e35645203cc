"""The laws of a client's first bytes: CONNECT and ClientHello are judged before anything else."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from claude_proxy.addons.tls import Certificates
from claude_proxy.authority import Authority
from claude_proxy.ca import CertificateAuthority
from claude_proxy.events import Phase
from claude_proxy.gate import Gate
from claude_proxy.layers.front import Front
from claude_proxy.layers.signals import Waiting
from claude_proxy.policy import Decision, Policy, Reason
from tests.layers.stage import BrokenPolicy, Ledger, Stage, a_dialer, gate_of
from tests.layers.test_http1 import reason_of, statuses
from tests.layers.tls_peers import TlsClient, client_context
from tests.wire.hellos import ENCRYPTED, hello, real_hello, records, sni

ALLOWLIST = """
allow:
  - example.com
  - {host: opaque.example, tls: passthrough}
  - {host: plain.example, scheme: http}
  - {host: both.example, ports: [80], scheme: http}
  - {host: both.example}
  - {host: 192.0.2.1}
"""
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
DENIED_ALERT = b"\x15\x03\x03\x00\x02\x02\x31"
UNREADABLE_ALERT = b"\x15\x03\x03\x00\x02\x02\x32"

type PlayFront = Callable[..., Stage]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    directory: Path = tmp_path_factory.mktemp("confdir")
    return CertificateAuthority.load_or_create(directory)


@pytest.fixture
def play(ledger: Ledger, authority: CertificateAuthority) -> PlayFront:
    hooks = {"tls_start_client": Certificates(authority).tls_start_client}

    def begin(gate: Gate | None = None, *, head_limit: int = 64 * 1024) -> Stage:
        return Stage(
            lambda context, session: Front(context, session, a_dialer()),
            gate or gate_of(ALLOWLIST, ledger),
            hooks=hooks,
            head_limit=head_limit,
        )

    return begin


@pytest.fixture
def stage(play: PlayFront) -> Stage:
    return play()


def connect(target: str, *fields: str) -> bytes:
    lines = [f"CONNECT {target} HTTP/1.1", *(fields or (f"Host: {target}",))]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def tunnel(stage: Stage, target: str = "example.com:443") -> Stage:
    assert stage.says(connect(target)) == ESTABLISHED
    return stage


# --- CONNECT


def test_a_denied_host_is_refused_at_connect(stage: Stage, ledger: Ledger) -> None:
    answer = stage.says(connect("evil.example:443"))

    assert (statuses(answer), reason_of(answer)) == ([403], "no-rule")
    assert b"claude-proxy allow evil.example\n" in answer
    assert stage.client.closed
    assert stage.upstreams == []
    assert (ledger.reasons, ledger.decisions[0].phase) == (["no-rule"], Phase.CONNECT)
    assert ledger.last.status == 403


def test_a_denied_plain_port_names_a_command_for_plain_http(stage: Stage) -> None:
    answer = stage.says(connect("evil.example:80"))

    assert b"claude-proxy allow http://evil.example\n" in answer


def test_a_denied_connect_answers_in_json_to_whoever_asks(stage: Stage) -> None:
    answer = stage.says(
        connect("evil.example:443", "Host: evil.example:443", "Accept: application/json")
    )

    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["reason"] == "no-rule"


def test_an_allowed_tunnel_is_opened_and_nothing_dialled(stage: Stage, ledger: Ledger) -> None:
    tunnel(stage)

    assert stage.upstreams == []
    assert stage.session.target == Authority.of("example.com", 443)
    assert stage.session.waiting is Waiting.HANDSHAKE
    assert ledger.outcomes == []


def test_a_connect_that_comes_byte_by_byte_is_read_all_the_same(stage: Stage) -> None:
    answers = [stage.says(bytes([byte])) for byte in connect("evil.example:443")]

    assert answers[:-1] == [b""] * (len(answers) - 1)
    assert reason_of(answers[-1]) == "no-rule"


@pytest.mark.parametrize(
    "field", ["Host: evil.example", "Host: example.com:80", "Host: example.com.evil.example"]
)
def test_a_connect_whose_host_disagrees_is_denied(stage: Stage, ledger: Ledger, field: str) -> None:
    answer = stage.says(connect("example.com:443", field))

    assert (statuses(answer), reason_of(answer)) == ([403], "host-mismatch")
    assert ledger.reasons == ["host-mismatch"]


def test_a_host_that_cannot_be_read_disagrees(stage: Stage) -> None:
    assert reason_of(stage.says(connect("example.com:443", "Host: 127.1"))) == "host-mismatch"


@pytest.mark.parametrize("field", ["Host: EXAMPLE.com.:443", "Host: example.com"])
def test_another_spelling_of_the_same_host_agrees(stage: Stage, field: str) -> None:
    assert stage.says(connect("example.com:443", field)) == ESTABLISHED


def test_http_1_0_connects_without_a_host(stage: Stage) -> None:
    assert stage.says(b"CONNECT example.com:443 HTTP/1.0\r\n\r\n") == ESTABLISHED


@pytest.mark.parametrize(
    "target", ["127.1:443", "2130706433:443", "example..com:443", "example.com:0", "[::1]:99999"]
)
def test_a_target_that_cannot_be_read_is_denied(stage: Stage, ledger: Ledger, target: str) -> None:
    answer = stage.says(connect(target))

    assert (statuses(answer), reason_of(answer)) == ([403], "invalid-target")
    assert (ledger.reasons, ledger.decisions[0].target) == (["invalid-target"], target)


@pytest.mark.parametrize(
    "message",
    [
        b"CONNECT example.com:443 HTTP/1.1\r\n\r\n",
        b"CONNECT example.com HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"CONNECT http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\nHost: example.com:443\n\n",
        b"CONNECT [example.com]:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
    ],
)
def test_a_connect_that_is_malformed_is_a_bad_request(
    stage: Stage, ledger: Ledger, message: bytes
) -> None:
    answer = stage.says(message)

    assert (statuses(answer), reason_of(answer)) == ([400], "bad-request")
    assert stage.client.closed
    assert ledger.reasons == ["bad-request"]


def test_a_connect_head_past_the_limit_is_refused(play: PlayFront) -> None:
    stage = play(head_limit=100)

    assert statuses(stage.says(connect("example.com:443")[:-2] + b"X: " + b"x" * 99)) == [400]


def test_a_fault_in_the_policy_denies(play: PlayFront, ledger: Ledger) -> None:
    stage = play(Gate(BrokenPolicy(), ledger.events.append))

    assert reason_of(stage.says(connect("example.com:443"))) == "internal-error"


@pytest.mark.parametrize("first", [b"GET http://evil.example/ HTTP/1.1\r\n", b"C", b"CONNECTED "])
def test_what_is_no_connect_is_a_request_like_any(stage: Stage, first: bytes) -> None:
    stage.says(first)

    assert stage.upstreams == []
    assert stage.session.target is None


def test_a_request_in_absolute_form_is_judged(stage: Stage, ledger: Ledger) -> None:
    answer = stage.says(b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n")

    assert reason_of(answer) == "no-rule"
    assert ledger.decisions[0].phase is Phase.REQUEST


def test_nothing_is_heard_after_a_denial(stage: Stage, ledger: Ledger) -> None:
    stage.says(connect("evil.example:443"))

    assert stage.says(connect("example.com:443")) == b""
    assert len(ledger.decisions) == 1


# --- the first bytes inside a tunnel


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (real_hello("evil.example"), "sni-mismatch"),
        (real_hello("www.example.com"), "sni-mismatch"),
        (real_hello(None), "sni-missing"),
        (records(hello(sni(b"example.com"), (ENCRYPTED, b"\x00"))), "encrypted-hello"),
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
    assert (ledger.last.status, ledger.last.error) == (200, None)
    assert client.says(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n").startswith(
        b"HTTP/1.1 403 Denied by claude-proxy (host-mismatch)\r\n"
    )


def test_a_client_that_offers_http_2_gets_it(stage: Stage, authority: CertificateAuthority) -> None:
    tunnel(stage)
    client = TlsClient(stage, client_context(authority, "h2"), "example.com")

    client.pump()

    assert client.tls.selected_alpn_protocol() == "h2"
    assert stage.session.protocol == "h2"


def test_a_hello_to_an_opaque_host_goes_up_as_it_came(stage: Stage, ledger: Ledger) -> None:
    sent = real_hello("opaque.example")
    tunnel(stage, "opaque.example:443")

    stage.says(sent[:100])
    before = list(stage.upstreams)
    stage.says(sent[100:])

    assert before == []
    assert stage.upstream.take() == sent
    assert stage.upstream.address == ("opaque.example", 443)
    assert ledger.decisions[0].scheme == "tls"


def test_a_hello_to_an_opaque_host_must_agree_too(stage: Stage, ledger: Ledger) -> None:
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


def test_a_client_that_says_nothing_is_closed_in_time(stage: Stage, ledger: Ledger) -> None:
    assert stage.expires() == b""
    assert stage.client.closed
    assert ledger.events == []


def test_a_connect_that_does_not_come_in_time_is_a_408(stage: Stage) -> None:
    stage.says(connect("example.com:443")[:-1])

    assert statuses(stage.expires()) == [408]
    assert stage.client.closed


@pytest.mark.parametrize("said", [b"", real_hello("example.com")[:50]])
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


def test_a_client_may_leave_without_a_word(stage: Stage, ledger: Ledger) -> None:
    stage.client_goes()

    assert ledger.events == []
