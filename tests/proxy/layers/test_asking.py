"""What asks waits: nothing of it leaves before the answer, and then it is judged again."""

import pytest

from claude_proxy.policy.answer import Answer
from claude_proxy.policy.questions import Access
from claude_proxy.proxy.gate import Gate
from claude_proxy.proxy.layers.asking import AwaitAnswer
from claude_proxy.proxy.layers.session import Waiting
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.wire.socks5 import SocksReply, reply
from tests.proxy.layers.front import ESTABLISHED, PlayFront, connect, play_front
from tests.proxy.layers.http1_peers import OK, PlayForward, closes, reason_of, statuses
from tests.proxy.layers.http2_peers import Http2Client, Http2Origin, pseudo
from tests.proxy.layers.http2_world import Http2World
from tests.proxy.layers.stage import Ledger, Stage, gate_of, policy_of
from tests.proxy.layers.tls_peers import TlsClient, client_context
from tests.wire.hellos import real_hello

POLICY = """
default: ask
allow:
  - {host: known.example, scheme: http}
  - {host: opaque.example, tls: passthrough, ask: true}
  - {host: tcp.example, scheme: tcp, ports: [22], ask: true}
deny: [evil.example]
"""
NOTHING = "allow: []"
GET = b"GET http://new.example/p?q=1 HTTP/1.1\r\nHost: new.example\r\n\r\n"
POST = b"POST http://new.example/ HTTP/1.1\r\nHost: new.example\r\nContent-Length: 4\r\n\r\nbody"
GREETING = b"\x05\x01\x00"
GRANTED, DENIED = reply(SocksReply.GRANTED), reply(SocksReply.DENIED)


def socks(host: bytes, port: int) -> bytes:
    return b"\x05\x01\x00\x03" + bytes([len(host)]) + host + port.to_bytes(2)


@pytest.fixture
def gate(ledger: Ledger) -> Gate:
    return gate_of(POLICY, ledger)


@pytest.fixture
def front(ledger: Ledger, authority: CertificateAuthority) -> PlayFront:
    return play_front(ledger, authority)


# --- HTTP/1.1


def test_a_request_waits_and_nothing_is_dialled(forward: PlayForward, gate: Gate) -> None:
    stage = forward(gate=gate)

    assert stage.says(GET) == b""

    facts = stage.asked[0].facts
    assert (facts.what, facts.subject.access) == (
        "GET http://new.example:80/p?q=1",
        Access.READ,
    )
    assert stage.upstreams == []
    assert stage.session.waiting is Waiting.ANSWER


def test_after_a_yes_it_goes_on(forward: PlayForward, gate: Gate, ledger: Ledger) -> None:
    stage = forward(gate=gate)
    stage.says(GET)

    stage.owner_says(Answer.YES)

    assert bytes(stage.upstream.got).startswith(b"GET /p?q=1 HTTP/1.1\r\n")
    assert statuses(stage.answers(OK)) == [200]
    assert ledger.reasons == ["answered"]
    # It was for one request.
    assert stage.says(GET) == b""
    assert len(stage.asked) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer.NO, "owner-refused"),
        (Answer.NONE, "not-answered"),
        (Answer.NO_ROOM, "too-many-questions"),
    ],
)
def test_after_anything_else_it_is_denied(
    forward: PlayForward, gate: Gate, ledger: Ledger, answer: Answer, reason: str
) -> None:
    stage = forward(gate=gate)
    stage.says(GET)

    said = stage.owner_says(answer)

    assert (statuses(said), reason_of(said), closes(said)) == ([403], reason, False)
    assert (ledger.reasons, stage.upstreams) == ([reason], [])
    assert stage.says(GET.replace(b"new.", b"known.")) == b""
    assert len(stage.upstreams) == 1


def test_a_policy_that_was_reloaded_meanwhile_decides(
    forward: PlayForward, gate: Gate, ledger: Ledger
) -> None:
    stage = forward(gate=gate)
    stage.says(GET)

    gate.policy = policy_of(NOTHING)
    said = stage.owner_says(Answer.YES)

    assert (reason_of(said), stage.upstreams) == ("no-rule", [])
    assert ledger.reasons == ["no-rule"]


def test_a_rule_that_was_added_meanwhile_lets_it_go_on(forward: PlayForward, gate: Gate) -> None:
    stage = forward(gate=gate)
    stage.says(GET)

    gate.policy = policy_of("allow: [{host: new.example, scheme: http}]")
    stage.owner_says(Answer.AGAIN)

    assert stage.upstream.got


def test_what_still_asks_when_it_is_judged_again_waits_within_the_same_time(
    forward: PlayForward, gate: Gate
) -> None:
    stage = forward(gate=gate)
    stage.says(GET)
    stage.asked[0].deadline = 12.5

    assert stage.owner_says(Answer.AGAIN) == b""

    assert [each.deadline for each in stage.asked] == [12.5]


def test_a_denial_is_no_question(forward: PlayForward, gate: Gate) -> None:
    stage = forward(gate=gate)

    said = stage.says(GET.replace(b"new.", b"evil."))

    assert (reason_of(said), stage.asked) == ("deny-rule", [])


def test_a_body_and_a_pipelined_request_wait_too(forward: PlayForward, gate: Gate) -> None:
    stage = forward(gate=gate)
    stage.says(POST + GET)
    assert stage.asked[0].facts.subject.access is Access.WRITE
    assert len(stage.asked) == 1

    stage.owner_says(Answer.YES)
    assert bytes(stage.upstream.got).endswith(b"\r\n\r\nbody")
    stage.answers(OK)

    assert [each.facts.method for each in stage.asked] == ["GET"]


def test_a_client_that_sends_on_is_not_read_for_ever(forward: PlayForward, gate: Gate) -> None:
    stage = forward(gate=gate)
    stage.says(POST)

    stage.says(b"x" * 70_000)

    assert stage.client.held


def test_a_client_that_leaves_ends_its_wait(forward: PlayForward, gate: Gate) -> None:
    stage = forward(gate=gate)
    stage.says(GET)
    stage.client_goes()

    assert stage.owner_says(Answer.YES) == b""

    assert stage.upstreams == []


def test_a_client_that_has_half_closed_gets_its_response(forward: PlayForward, gate: Gate) -> None:
    stage = forward(gate=gate)
    stage.says(GET)

    assert stage.client_half_closes() == b""
    stage.owner_says(Answer.YES)

    assert statuses(stage.answers(OK)) == [200]


def test_a_body_that_will_not_come_is_not_waited_for(forward: PlayForward, gate: Gate) -> None:
    stage = forward(gate=gate)
    stage.says(POST[:-2])
    stage.client_half_closes()

    stage.owner_says(Answer.YES)

    assert stage.client.closed


def test_a_wait_that_the_desk_has_lost_is_over_after_a_time(
    forward: PlayForward, gate: Gate
) -> None:
    stage = forward(gate=gate)
    stage.says(GET)

    said = stage.expires()

    assert reason_of(said) == "not-answered"
    assert stage.client.closed


def test_an_answer_for_another_wait_changes_nothing(forward: PlayForward, gate: Gate) -> None:
    stage = forward(gate=gate)
    stage.says(GET)
    stage.asked.insert(0, AwaitAnswer(stage.asked[0].facts))

    assert stage.owner_says(Answer.YES) == b""

    assert stage.upstreams == []


def left(ledger: Ledger) -> list[tuple[str, str, str, str, str, str | None]]:
    """Return what was denied as nobody waited any more, and how it ended."""
    ends = {outcome.decision: outcome.error for outcome in ledger.outcomes}
    return [
        (each.phase.value, each.scheme, each.target, each.method, each.path, ends[each.id])
        for each in ledger.decisions
        if each.reason == "not-answered" and not each.allowed
    ]


def test_a_request_whose_client_leaves_while_it_waits_is_recorded(
    forward: PlayForward, gate: Gate, ledger: Ledger
) -> None:
    stage = forward(gate=gate)
    stage.says(GET)

    stage.client_goes()
    stage.owner_says(Answer.YES)

    row = ("request", "http", "new.example:80", "GET", "/p", "client-closed")
    assert left(ledger) == [row]
    assert len(ledger.decisions) == 1


def test_of_a_request_that_was_answered_nothing_more_is_recorded(
    forward: PlayForward, gate: Gate, ledger: Ledger
) -> None:
    stage = forward(gate=gate)
    stage.says(GET)
    stage.owner_says(Answer.NONE)

    stage.client_goes()

    assert ledger.reasons == ["not-answered"]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (b"?service=git-receive-pack", "/r/info/refs?service=git-receive-pack"),
        (b"?service=git-receive-pack&token=x", "/r/info/refs?service=git-receive-pack"),
        (b"?token=x", "/r/info/refs"),
    ],
)
def test_the_query_of_a_request_whose_client_leaves_is_no_part_of_the_record(
    forward: PlayForward, gate: Gate, ledger: Ledger, query: bytes, shown: str
) -> None:
    stage = forward(gate=gate)
    head = b"GET http://new.example/r/info/refs%b HTTP/1.1\r\nHost: new.example\r\n\r\n" % query
    stage.says(head)

    stage.client_goes()

    assert [each.path for each in ledger.decisions] == [shown]


# --- HTTP/2


def test_streams_whose_client_resets_them_or_leaves_are_recorded(
    http2_world: Http2World, gate: Gate, ledger: Ledger
) -> None:
    stage = http2_world.play("new.example", gate=gate)
    client = Http2Client(stage)
    one = client.get(path="/one?q=1", host="new.example")
    client.ask(*pseudo("POST", "/two", "new.example"), body=b"body")

    client.h2.reset_stream(one)
    client.pump()
    stage.client_goes()

    place = ("request", "https", "new.example:443")
    assert left(ledger) == [
        (*place, "GET", "/one", "stream-broken-off"),
        (*place, "POST", "/two", "client-closed"),
    ]


def test_a_stream_waits_by_itself(http2_world: Http2World, gate: Gate) -> None:
    stage = http2_world.play("new.example", gate=gate)
    client = Http2Client(stage)
    one = client.get(path="/one", host="new.example")
    two = client.ask(*pseudo("POST", "/two", "new.example"), body=b"body")
    assert stage.upstreams == []

    client.pump(stage.owner_says(Answer.NO))

    assert (client.messages[one].status, client.messages[one].reason) == (403, "owner-refused")
    assert not client.messages[two].over
    client.pump(stage.owner_says(Answer.YES))
    origin = Http2Origin(http2_world.serve(stage, "new.example", "h2"), client)
    (number,) = origin.messages
    assert (origin.messages[number].fields[":path"], origin.messages[number].body) == (
        "/two",
        b"body",
    )
    origin.answer(number, body=b"done")
    assert client.messages[two].body == b"done"


def test_a_stream_that_is_reset_ends_its_wait(http2_world: Http2World, gate: Gate) -> None:
    stage = http2_world.play("new.example", gate=gate)
    client = Http2Client(stage)
    one = client.get(path="/one", host="new.example")

    client.h2.reset_stream(one)
    client.pump()

    assert stage.asked == []


# --- tunnels


def test_a_tunnel_is_open_towards_its_client_before_any_answer(
    front: PlayFront, gate: Gate, ledger: Ledger, authority: CertificateAuthority
) -> None:
    stage = front(gate)
    assert stage.says(connect("new.example:443")) == ESTABLISHED

    client = TlsClient(stage, client_context(authority), "new.example")
    client.pump()
    client.says(b"GET / HTTP/1.1\r\nHost: new.example\r\n\r\n")

    assert stage.upstreams == []
    assert stage.asked[0].facts.what == "GET https://new.example:443/"
    stage.owner_says(Answer.YES)
    assert [peer.address for peer in stage.upstreams] == [("new.example", 443)]
    assert ledger.reasons == ["ask", "answered"]


def test_a_tunnel_that_nobody_judges_is_not_open_before_the_answer(
    front: PlayFront, gate: Gate
) -> None:
    stage = front(gate)
    assert stage.says(connect("opaque.example:443")) == b""
    assert stage.asked[0].facts.subject.access is Access.TUNNEL
    hello = real_hello("opaque.example")
    stage.says(hello)

    assert stage.owner_says(Answer.YES).startswith(ESTABLISHED)

    assert bytes(stage.upstream.got) == hello


def test_a_refused_tunnel_is_answered(front: PlayFront, gate: Gate, ledger: Ledger) -> None:
    stage = front(gate)
    stage.says(connect("tcp.example:22"))

    said = stage.owner_says(Answer.NO)

    assert (statuses(said), reason_of(said)) == ([403], "owner-refused")
    assert (ledger.reasons, stage.upstreams) == (["owner-refused"], [])


def test_a_tunnel_whose_wait_is_lost_is_denied(front: PlayFront, gate: Gate) -> None:
    stage = front(gate)
    stage.says(connect("tcp.example:22"))

    assert reason_of(stage.expires()) == "not-answered"


@pytest.mark.parametrize(
    ("before", "asks", "method"),
    [
        (b"", connect("tcp.example:22"), "CONNECT"),
        (GREETING, socks(b"tcp.example", 22), "SOCKS"),
    ],
)
def test_a_tunnel_whose_client_leaves_while_it_waits_is_recorded(
    front: PlayFront, gate: Gate, ledger: Ledger, before: bytes, asks: bytes, method: str
) -> None:
    stage = front(gate)
    if before:
        stage.says(before)
    stage.says(asks)

    stage.client_goes()

    assert left(ledger) == [("connect", "", "tcp.example:22", method, "", "client-closed")]


def test_a_request_in_a_tunnel_whose_client_leaves_is_recorded(
    front: PlayFront, gate: Gate, ledger: Ledger, authority: CertificateAuthority
) -> None:
    stage = front(gate)
    stage.says(connect("new.example:443"))
    client = TlsClient(stage, client_context(authority), "new.example")
    client.pump()
    client.says(b"GET /p?q=1 HTTP/1.1\r\nHost: new.example\r\n\r\n")

    stage.client_goes()

    row = ("request", "https", "new.example:443", "GET", "/p", "client-closed")
    assert left(ledger) == [row]


def test_over_socks_a_tunnel_to_judged_requests_is_open_without_a_dial(
    front: PlayFront, gate: Gate
) -> None:
    stage = front(gate)
    stage.says(GREETING)

    assert stage.says(socks(b"new.example", 443)) == GRANTED

    assert (stage.upstreams, stage.asked) == ([], [])


@pytest.mark.parametrize(("answer", "code"), [(Answer.YES, GRANTED), (Answer.NO, DENIED)])
def test_over_socks_another_tunnel_waits(
    front: PlayFront, gate: Gate, answer: Answer, code: bytes
) -> None:
    stage = front(gate)
    stage.says(GREETING)
    assert stage.says(socks(b"tcp.example", 22)) == b""
    assert stage.upstreams == []

    assert stage.owner_says(answer) == code

    assert bool(stage.upstreams) is (answer is Answer.YES)


def test_over_socks_a_wait_that_is_lost_is_denied(front: PlayFront, gate: Gate) -> None:
    stage = front(gate)
    stage.says(GREETING)
    stage.says(socks(b"tcp.example", 22))

    assert stage.expires() == DENIED


def an_open_raw_tunnel(front: PlayFront, gate: Gate) -> Stage:
    stage = front(gate)
    stage.says(connect("tcp.example:22"))
    stage.owner_says(Answer.YES)
    return stage


def test_an_answered_tunnel_outlives_a_reload_that_asks_the_same(
    front: PlayFront, gate: Gate
) -> None:
    stage = an_open_raw_tunnel(front, gate)
    target, info = stage.session.target, stage.session.client_info
    assert target is not None

    gate.policy = policy_of(POLICY)
    stays = gate.may_stay_open(target, passthrough=True, raw=True, client_info=info)
    gate.policy = policy_of(NOTHING)

    assert stays
    assert not gate.may_stay_open(target, passthrough=True, raw=True, client_info=info)
