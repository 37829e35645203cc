"""A client's protocol is detected from its first bytes, and a CONNECT judged first."""

import json
from base64 import b64encode
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.settings import ClientCredentials
from claude_proxy.events import Phase
from claude_proxy.proxy.gate import Gate
from claude_proxy.proxy.layers.client_auth import proof_of
from claude_proxy.proxy.layers.protocol_detection import ProtocolDetection
from claude_proxy.proxy.layers.session import Waiting
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.wire import lookup_answer
from claude_proxy.wire.authority import Authority
from claude_proxy.wire.proxy_protocol import SIGNATURE, asking, encode
from tests.proxy.layers.front import (
    ALLOWLIST,
    ESTABLISHED,
    PlayFront,
    connect,
    play_front,
    tunnel,
)
from tests.proxy.layers.http1_peers import reason_of, statuses
from tests.proxy.layers.stage import BrokenPolicy, Ledger, Stage, a_dialer, gate_of, options_of
from tests.wire.hellos import real_hello


@pytest.fixture
def play(ledger: Ledger, authority: CertificateAuthority) -> PlayFront:
    return play_front(ledger, authority)


@pytest.fixture
def stage(play: PlayFront) -> Stage:
    return play()


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


# --- ends


def test_a_client_that_says_nothing_is_closed_in_time(stage: Stage, ledger: Ledger) -> None:
    assert stage.expires() == b""
    assert stage.client.closed
    assert ledger.events == []


def test_a_connect_that_does_not_come_in_time_is_a_408(stage: Stage) -> None:
    stage.says(connect("example.com:443")[:-1])

    assert statuses(stage.expires()) == [408]
    assert stage.client.closed


def test_a_client_may_leave_without_a_word(stage: Stage, ledger: Ledger) -> None:
    stage.client_goes()

    assert ledger.events == []


# --- who the client is

CREDENTIALS = ClientCredentials("user", "pass:word")
GET = "GET http://plain.example/ HTTP/1.1"
HOST = "Host: plain.example"


def basic(pair: str | bytes, scheme: str = "Basic") -> str:
    data = pair.encode() if isinstance(pair, str) else pair
    return f"Proxy-Authorization: {scheme} {b64encode(data).decode()}"


def request(*lines: str) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


RIGHT = basic("user:pass:word")


@pytest.fixture
def guarded(play: PlayFront) -> Stage:
    return play(credentials=CREDENTIALS)


def test_a_connect_without_credentials_is_asked_for_them(guarded: Stage, ledger: Ledger) -> None:
    answer = guarded.says(connect("example.com:443"))

    assert (statuses(answer), reason_of(answer)) == ([407], "client-not-authenticated")
    assert b'\r\nProxy-Authenticate: Basic realm="claude-proxy"\r\n' in answer
    assert guarded.client.closed
    [decision] = ledger.decisions
    assert (decision.phase, decision.reason) == (Phase.CLIENT, "client-not-authenticated")
    assert ledger.last.status == 407


def test_a_connect_with_the_right_credentials_is_judged_like_any(
    play: PlayFront, ledger: Ledger
) -> None:
    host = "Host: example.com:443"

    allowed = play(credentials=CREDENTIALS).says(connect("example.com:443", host, RIGHT))
    denied = play(credentials=CREDENTIALS).says(connect("evil.example:443", RIGHT, "Host: x"))

    assert allowed == ESTABLISHED
    assert reason_of(denied) == "host-mismatch"
    assert "user" not in repr(ledger.events)


ODD_CREDENTIALS = {
    "none": (),
    "empty": ("Proxy-Authorization:",),
    "a scheme alone": ("Proxy-Authorization: Basic",),
    "another scheme": ("Proxy-Authorization: Bearer dXNlcjpwYXNzOndvcmQ=",),
    "two schemes": ("Proxy-Authorization: Basic Basic dXNlcjpwYXNzOndvcmQ=",),
    "another password": (basic("user:password"),),
    "the password's beginning": (basic("user:pass"),),
    "another user": (basic("User:pass:word"),),
    "no colon": (basic("user"),),
    "no user": (basic(":pass:word"),),
    "a NUL at the end": (basic("user:pass:word\0"),),
    "not UTF-8": (basic(b"user:\xff"),),
    "not base64": ("Proxy-Authorization: Basic dXNlcjpwYXNzOndvcmQ",),
    "base64 in two": ("Proxy-Authorization: Basic dXNlcjpw YXNzOndvcmQ=",),
    "base64 with a remainder": ("Proxy-Authorization: Basic dXNlcjpwYXNzOndvcmQ=x",),
    "a list": ("Proxy-Authorization: Basic dXNlcjpwYXNzOndvcmQ=, Basic eDp5",),
    "wrong and right": (basic("a:b"), RIGHT),
    "right twice": (RIGHT, RIGHT),
    "an alias": (RIGHT.replace("-", "_", 1),),
    "an origin's field": (RIGHT.removeprefix("Proxy-"),),
}


@pytest.mark.parametrize("fields", ODD_CREDENTIALS.values(), ids=ODD_CREDENTIALS.keys())
def test_credentials_of_any_other_shape_are_refused(
    play: PlayFront, ledger: Ledger, fields: tuple[str, ...]
) -> None:
    tunnel = play(credentials=CREDENTIALS).says(connect("example.com:443", "Host: x", *fields))
    plain = play(credentials=CREDENTIALS).says(request(GET, HOST, *fields))

    assert statuses(tunnel) == statuses(plain) == [407]
    assert ledger.reasons == ["client-not-authenticated"] * 2


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC", "Basic  "])
def test_the_scheme_is_read_in_any_case(guarded: Stage, scheme: str) -> None:
    field = basic("user:pass:word", scheme)

    assert guarded.says(connect("example.com:443", "Host: example.com", field)) == ESTABLISHED


def test_each_plain_request_shows_credentials_and_none_goes_up(
    guarded: Stage, ledger: Ledger
) -> None:
    first = guarded.says(request(GET, HOST))
    second = guarded.says(request(GET, HOST, RIGHT))
    guarded.answers(b"HTTP/1.1 204 No Content\r\n\r\n")
    third = guarded.says(request(GET, HOST))

    assert (statuses(first), second, statuses(third)) == ([407], b"", [407])
    assert b"\r\nConnection: keep-alive\r\n" in first
    assert guarded.upstream.take() == b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n"
    assert not guarded.client.closed
    refused, *_ = ledger.decisions
    assert (refused.phase, refused.target) == (Phase.CLIENT, "plain.example:80")


def test_a_body_that_is_on_its_way_to_a_407_is_not_taken_for_a_request(
    guarded: Stage, ledger: Ledger
) -> None:
    smuggled = request(GET, HOST, RIGHT)
    length = f"Content-Length: {len(smuggled)}"

    answer = guarded.says(request(GET, HOST, length) + smuggled)

    assert statuses(answer) == [407]
    assert guarded.client.closed
    assert guarded.upstreams == []
    assert len(ledger.decisions) == 1


def test_what_follows_a_connect_that_was_refused_is_not_heard(guarded: Stage) -> None:
    right = connect("example.com:443", "Host: example.com", RIGHT)

    assert statuses(guarded.says(connect("example.com:443") + right)) == [407]
    assert guarded.says(right) == b""


@pytest.mark.parametrize("target", ["/", "http://127.1/", "http://evil.example/"])
def test_an_unauthenticated_client_learns_nothing_of_the_policy(
    guarded: Stage, target: str
) -> None:
    answer = guarded.says(request(f"GET {target} HTTP/1.1", "Host: evil.example"))

    assert statuses(answer) == [407]


def test_requests_inside_a_tunnel_show_no_credentials(guarded: Stage) -> None:
    guarded.says(connect("plain.example:80", "Host: plain.example:80", RIGHT))

    guarded.says(request("GET / HTTP/1.1", HOST))

    assert guarded.upstream.take() == b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n"


def test_credentials_that_nobody_asked_for_are_not_looked_at(stage: Stage) -> None:
    assert stage.says(connect("example.com:443", "Host: example.com", basic("a:b"))) == ESTABLISHED


# --- whom a relay speaks for

OPTIONS = options_of()
HEADER = encode("blue", "claude", "of-blue")
ANNOUNCED = "127.0.0.1:50000, claims run blue: claude"


@pytest.fixture
def local(play: PlayFront) -> Stage:
    return play(local=True)


@pytest.mark.parametrize("size", [1, 5, 12, 10_000])
def test_an_announcement_is_shown_with_the_client_however_it_is_cut(
    local: Stage, ledger: Ledger, size: int
) -> None:
    sent = HEADER + connect("evil.example:443")

    answer = b"".join(local.says(sent[at : at + size]) for at in range(0, len(sent), size))

    assert reason_of(answer) == "no-rule"
    assert [decision.client for decision in ledger.decisions] == [ANNOUNCED]
    assert ledger.decisions[0].connection == local.session.client_info.connection


PROOF = proof_of(ClientCredentials("user", "pass:word"))


@pytest.mark.parametrize("proof", ["", "x" * 64, PROOF.upper()])
def test_a_relay_that_does_not_prove_the_password_is_asked_for_it(
    play: PlayFront, proof: str
) -> None:
    header = encode("blue", "claude", "", proof)

    answer = play(local=True, credentials=CREDENTIALS).says(header + connect("example.com:443"))

    assert statuses(answer) == [407]


def test_what_is_behind_a_relay_that_proves_the_password_needs_none(play: PlayFront) -> None:
    header = encode("blue", "claude", "", PROOF)

    allowed = play(local=True, credentials=CREDENTIALS).says(header + connect("example.com:443"))
    denied = play(local=True, credentials=CREDENTIALS).says(header + connect("evil.example:443"))
    plain = play(local=True, credentials=CREDENTIALS).says(header + request(GET, HOST))

    assert allowed == ESTABLISHED
    assert reason_of(denied) == "no-rule"
    assert 407 not in statuses(plain)


def test_a_client_on_another_machine_proves_nothing(play: PlayFront) -> None:
    header = encode("blue", "claude", "", PROOF)

    answer = play(local=False, credentials=CREDENTIALS).says(header + connect("example.com:443"))

    assert ESTABLISHED not in answer


def test_an_announcement_changes_no_decision(local: Stage) -> None:
    assert local.says(HEADER + connect("example.com:443")) == ESTABLISHED


def test_an_announcement_that_proves_its_run_names_it(local: Stage, ledger: Ledger) -> None:
    local.session.proves_run = lambda name, token: token == f"of-{name}"

    local.says(HEADER + connect("evil.example:443"))

    (decision,) = ledger.decisions
    assert (decision.client, decision.run) == ("127.0.0.1:50000, run blue: claude", "blue")


def test_an_announcement_that_proves_nothing_is_a_claim(local: Stage, ledger: Ledger) -> None:
    local.says(encode("one, run two: git", "a\nb", "") + connect("evil.example:443"))

    (decision,) = ledger.decisions
    assert decision.client == "127.0.0.1:50000, claims run one??run?two??git: a?b"
    assert decision.run is None


def test_nobody_names_another_run_on_the_listener_of_a_run(local: Stage, ledger: Ledger) -> None:
    session = local.session
    session.has_run, session.proves_run = True, lambda _name, _token: True
    session.client_info = session.client_info.of_run("run red: make", "red")

    local.says(HEADER + connect("evil.example:443"))

    (decision,) = ledger.decisions
    assert (decision.client, decision.run) == ("127.0.0.1:50000, run red: make", "red")


def test_an_empty_announcement_adds_nothing(local: Stage, ledger: Ledger) -> None:
    local.says(encode("", "", "") + connect("evil.example:443"))

    assert ledger.decisions[0].client == "127.0.0.1:50000"


@pytest.mark.parametrize(
    "sent",
    [
        HEADER + HEADER,
        SIGNATURE + b"\x21\x00\xff\xff",
        SIGNATURE + b"\x11\x00\x00\x00",
        SIGNATURE + b"\x21\x00\x00\x02\xe0\x00",
        SIGNATURE + b"\x21\x00\x00\x04\xe0\x00\x01\xff",
        HEADER[:5] + b"\x01" + HEADER[6:],
        b"\r\n" + HEADER,
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_a_broken_or_second_announcement_is_a_bad_request(
    local: Stage, ledger: Ledger, sent: bytes, size: int
) -> None:
    sent += connect("example.com:443")

    answer = b"".join(local.says(sent[at : at + size]) for at in range(0, len(sent), size))

    assert (statuses(answer), local.client.closed) == ([400], True)
    assert ledger.reasons == ["bad-request"]


def test_an_announcement_after_the_first_bytes_is_none(local: Stage, ledger: Ledger) -> None:
    local.says(request("GET http://evil.example/ HTTP/1.1", "Host: evil.example") + HEADER)

    assert [decision.client for decision in ledger.decisions] == ["127.0.0.1:50000"] * 2
    assert ledger.reasons == ["no-rule", "bad-request"]


def test_an_announcement_from_another_machine_is_a_bad_request(
    stage: Stage, ledger: Ledger
) -> None:
    answer = stage.says(HEADER + connect("example.com:443"))

    assert (statuses(answer), ledger.reasons) == ([400], ["bad-request"])
    assert ledger.decisions[0].client == "127.0.0.1:50000"


def test_an_empty_line_before_a_request_is_no_announcement(local: Stage) -> None:
    sent = b"\r\n\r\n" + request(GET, HOST)

    for byte in sent:
        local.says(bytes([byte]))

    assert local.upstream.take() == b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n"


@pytest.mark.parametrize("said", [HEADER[:1], HEADER[:14], HEADER[:-1], HEADER + b"CONN"])
def test_an_announcement_that_does_not_come_in_time_is_a_408(local: Stage, said: bytes) -> None:
    local.says(said)

    assert statuses(local.expires()) == [408]
    assert local.client.closed


# --- all of them, cut anywhere

PIECES = [
    HEADER,
    b"\x05\x01\x00",
    b"\x05\x02\x00\x02",
    b"\x01\x04user\x09pass:word",
    b"\x05\x01\x00\x03\x0dplain.example\x00\x50",
    b"\x05\x01\x00\x03\x0bexample.com\x01\xbb",
    b"\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb",
    b"\x05\x01\x00\x03\x09evil.test\x01\xbb",
    connect("plain.example:80"),
    connect("plain.example:80", "Host: plain.example:80", RIGHT),
    connect("evil.example:443", "Host: evil.example", RIGHT),
    request(GET, HOST),
    request(GET, HOST, RIGHT),
    request("GET / HTTP/1.1", HOST),
    request("GET / HTTP/1.1", "Host: evil.example"),
    request("POST / HTTP/1.1", HOST, "Content-Length: 3"),
    b"\r\n",
    b"abc",
    real_hello("evil.example"),
]


@given(
    sent=st.lists(st.sampled_from(PIECES), max_size=6).map(b"".join),
    cuts=st.lists(st.integers(0, 800), max_size=6),
    local=st.booleans(),
    guarded=st.booleans(),
)
def test_any_cut_of_any_conversation_comes_to_the_same(
    sent: bytes, cuts: list[int], *, local: bool, guarded: bool
) -> None:
    def played(pieces: list[bytes]) -> tuple[object, ...]:
        ledger = Ledger()
        stage = Stage(
            lambda context, session: ProtocolDetection(context, session, a_dialer()),
            gate_of(ALLOWLIST, ledger),
            options=OPTIONS,
            local=local,
            credentials=CREDENTIALS if guarded else None,
        )
        got = b"".join(stage.says(piece) for piece in pieces)
        decided = [
            (one.client, one.method, one.target, one.reason, one.phase) for one in ledger.decisions
        ]
        # Law 3: whoever was dialled, and nobody else, was allowed before.
        allowed = {one.target for one in ledger.decisions if one.allowed}
        dialled = [
            ":".join(map(str, cast("tuple[str, int]", peer.address))) for peer in stage.upstreams
        ]
        assert set(dialled) <= allowed
        up = [bytes(peer.got) for peer in stage.upstreams]
        return got, decided, dialled, up, stage.client.closed

    at = sorted(cut % (len(sent) + 1) for cut in cuts)
    pieces = [sent[start:end] for start, end in pairwise([0, *at, len(sent)])]

    assert played([piece for piece in pieces if piece]) == played([sent] if sent else [])


# --- what is neither


@pytest.mark.parametrize(
    "first",
    [
        b"\x04\x01\x01\xbb\x00\x00\x00\x01me\x00example.com\x00",  # SOCKS4a
        b"\x00",
        b"\x06\x01\x00",
        b"SSH-2.0-x\r\n",
    ],
)
@pytest.mark.parametrize("local", [False, True])
def test_what_is_none_of_the_protocols_is_a_bad_request(
    play: PlayFront, ledger: Ledger, first: bytes, *, local: bool
) -> None:
    stage = play(local=local)

    assert statuses(stage.says(first)) == [400]
    assert stage.client.closed
    assert ledger.reasons == ["bad-request"]


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("cut", [1, 1000])
def test_tls_to_the_proxy_itself_is_answered_by_an_alert_and_named(
    play: PlayFront, ledger: Ledger, caplog: pytest.LogCaptureFixture, cut: int, *, local: bool
) -> None:
    stage = play(local=local)
    hello = real_hello("example.com")

    got = b"".join(stage.says(piece) for piece in (hello[:cut], hello[cut:]) if piece)

    assert got == b"\x15\x03\x03\x00\x02\x02\x31"
    assert stage.client.closed
    assert (ledger.reasons, ledger.decisions[0].phase) == (["tls-to-proxy"], Phase.CLIENT)
    assert "its URL must begin with http://" in caplog.text


# --- what a relay asks about


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_relay_learns_where_an_allowed_name_may_be_reached(
    local: Stage, ledger: Ledger, size: int
) -> None:
    sent = asking(HEADER, "both.example")

    answer = b"".join(local.says(sent[at : at + size]) for at in range(0, len(sent), size))

    assert lookup_answer.decode(answer) == (443, 80)
    assert local.client.closed
    assert (local.upstreams, ledger.decisions) == ([], [])


@pytest.mark.parametrize("name", ["evil.example", "192.0.2.1", "a b", "x\r\nallowed 443\n"])
def test_a_name_that_is_denied_is_recorded(local: Stage, ledger: Ledger, name: str) -> None:
    answer = local.says(asking(HEADER, name))

    assert lookup_answer.decode(answer) == ()
    assert [decision.allowed for decision in ledger.decisions] == [False]
    assert ledger.decisions[0].client == ANNOUNCED


def test_a_client_without_the_password_learns_nothing_about_names(play: PlayFront) -> None:
    header = encode("blue", "claude", "", PROOF)

    refused = play(local=True, credentials=CREDENTIALS).says(asking(HEADER, "example.com"))
    proved = play(local=True, credentials=CREDENTIALS).says(asking(header, "example.com"))

    assert refused == b""
    assert lookup_answer.decode(proved) == (443,)


def test_a_client_on_another_machine_cannot_ask_about_names(play: PlayFront) -> None:
    answer = play(local=False).says(asking(HEADER, "example.com"))

    assert lookup_answer.decode(answer) == ()


def test_what_follows_a_question_is_not_served(local: Stage) -> None:
    answer = local.says(asking(HEADER, "example.com") + connect("example.com:443"))

    assert ESTABLISHED not in answer
