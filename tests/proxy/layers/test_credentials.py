"""Credentials are injected, withheld and guarded alike on HTTP/1.1 and HTTP/2."""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer

from claude_proxy.errors import AuditError
from claude_proxy.events import Event, Phase, Usage
from claude_proxy.policy.credentials.binding import Binding, Form, Injection, LoginPin
from claude_proxy.policy.credentials.decision import AvailableSecrets, PinnedLogins
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.location import Location
from claude_proxy.policy.messages.destinations import DestinationScope
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy import gate as gate_module
from claude_proxy.proxy.gate import Gate
from claude_proxy.proxy.layers.http1_proxy import proxy_lane
from claude_proxy.proxy.layers.http2 import Http2Lane
from claude_proxy.proxy.layers.session import Session, Waiting
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.http1_peers import reason_of, statuses
from tests.proxy.layers.http2_peers import Http2Client, Http2Origin, pseudo
from tests.proxy.layers.stage import Ledger, Stage, policy_of
from tests.proxy.layers.tls_peers import TlsOrigin, origin_context

API = Authority.of("api.example.com", 443)
VALUE = b"sk-ant-api03-REAL-VALUE"
PLACEHOLDER = "sk-ant-claude-proxy-placeholder-api"
HERE = Location("allowlist.yaml", 1, 1)
PATTERNS = (HostPattern.parse("api.example.com"),)
INJECTED = Binding(
    "api",
    PATTERNS,
    Injection(EnvironmentSource("KEY"), form=Form.X_API_KEY, placeholder=PLACEHOLDER),
    HERE,
)
PINNED = Binding("login", PATTERNS, LoginPin(learn=True), HERE)
NARROWED = ApiRestrictions(
    PATTERNS, HERE, mcp_servers=DestinationScope(), sources=DestinationScope(), max_bytes=2000
)
HARMLESS = json.dumps({"model": "m", "max_tokens": 1, "messages": []}).encode()
REACHING = json.dumps(
    {"model": "m", "messages": [], "mcp_servers": [{"type": "url", "url": "https://evil.example"}]}
).encode()
COST = b'{"model":"m-1","usage":{"input_tokens":12,"output_tokens":34}}'


type Play = Callable[..., Stage]
type Serve = Callable[..., TlsOrigin]
type MakeGate = Callable[..., Gate]


class Purse:
    """Holds values and takes notes, as the vault does."""

    def __init__(self, **held: Secret | PinnedLogins | None) -> None:
        self.secrets: AvailableSecrets = held
        self.learned: list[str] = []
        self.statuses: list[tuple[str, int]] = []
        self.fault: OSError | None = None

    def learn(self, name: str, _: tuple[bytes, bytes], /) -> None:
        if self.fault is not None:
            raise self.fault
        self.learned.append(name)

    def answered(self, name: str, status: int) -> None:
        self.statuses.append((name, status))


@pytest.fixture
def purse() -> Purse:
    return Purse(api=Secret(VALUE), login=PinnedLogins(frozenset(), learning=True, salt=b"salt"))


@pytest.fixture
def gate(ledger: Ledger, purse: Purse) -> MakeGate:
    def make(*bindings: Binding, narrowing: ApiRestrictions | None = None) -> Gate:
        rules = policy_of("allow: [api.example.com]").allow
        narrowings = () if narrowing is None else (narrowing,)
        policy = Policy(rules, credentials=bindings, restrictions=narrowings)
        return Gate(policy, ledger.events.append, secret_provider=purse)

    return make


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    directory: Path = tmp_path_factory.mktemp("internet")
    return CertificateAuthority.load_or_create(directory)


@pytest.fixture
def play(authority: CertificateAuthority) -> Play:
    """Return a function that plays a connection inside a tunnel to the API."""

    def begin(gate: Gate, protocol: str = "http/1.1") -> Stage:

        def lane(context: Context, session: Session) -> Layer:
            context.client.alpn = protocol.encode()
            context.client.alpn_offers = (context.client.alpn,)
            if protocol == "h2":
                return Http2Lane(context, session, API)
            return proxy_lane(context, session, scheme=Scheme.HTTPS, target=API)

        return Stage(
            lane,
            gate,
            roots=authority.certificate_path,
        )

    return begin


@pytest.fixture
def serve(authority: CertificateAuthority) -> Serve:
    """Return a function that shakes hands as the API, which was dialled last."""

    def shake(stage: Stage, *protocols: str) -> TlsOrigin:
        return TlsOrigin(stage, origin_context(authority, API.host, protocols))

    return shake


def ask(*fields: bytes, body: bytes = b"", path: str = "/v1/messages") -> bytes:
    """Return a POST over HTTP/1.1; without fields its body has a length."""
    if body and not any(b"chunked" in field for field in fields):
        fields = (*fields, b"Content-Length: %d" % len(body))
    head = [b"POST %b HTTP/1.1" % path.encode(), b"Host: api.example.com", *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


JSON = b"Content-Type: application/json"


def answer(body: bytes, *fields: bytes) -> bytes:
    head = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


# --- what is put in


def test_the_real_value_goes_up_in_the_place_of_the_placeholder(
    play: Play, serve: Serve, gate: MakeGate, ledger: Ledger, purse: Purse
) -> None:
    stage = play(gate(INJECTED))
    stage.says(ask(b"x-api-key: " + PLACEHOLDER.encode(), body=b"hello"))
    origin = serve(stage)
    head, _, body = origin.gets().partition(b"\r\n\r\n")
    shown = origin.answers(answer(b"hi"))

    assert head.count(VALUE) == 1
    assert b"x-api-key: " + VALUE in head.split(b"\r\n")
    assert PLACEHOLDER.encode() not in head
    assert (body, shown) == (b"hello", answer(b"hi"))
    assert ledger.decisions[0].credential == "api"
    assert purse.statuses == [("api", 200)]


def test_the_real_value_goes_up_over_http_2_too(
    play: Play, serve: Serve, gate: MakeGate, purse: Purse
) -> None:
    stage = play(gate(INJECTED), "h2")
    client = Http2Client(stage)
    asked = client.get(("x-api-key", PLACEHOLDER), host=API.host)
    origin = Http2Origin(serve(stage, "h2"), client)
    origin.answer(1, body=b"hi")

    assert origin.messages[1].fields["x-api-key"] == VALUE.decode()
    assert client.messages[asked].body == b"hi"
    assert purse.statuses == [("api", 200)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ((b"x-api-key: sk-ant-api03-other",), "foreign-credential"),
        ((b"Cookie: key=other",), "foreign-credential"),
        ((b"X-Note: " + PLACEHOLDER.encode(),), "placeholder-misplaced"),
    ],
)
def test_another_login_is_denied_at_the_head_and_nothing_is_dialled(
    play: Play, gate: MakeGate, ledger: Ledger, fields: tuple[bytes, ...], reason: str
) -> None:
    stage = play(gate(INJECTED))

    shown = stage.says(ask(*fields))

    assert reason_of(shown) == reason
    assert (stage.upstreams, ledger.reasons) == ([], [reason])


def test_another_login_is_denied_over_http_2_too(play: Play, gate: MakeGate) -> None:
    stage = play(gate(INJECTED), "h2")
    client = Http2Client(stage)

    asked = client.get(("authorization", "Bearer other"), host=API.host)

    assert client.messages[asked].reason == "foreign-credential"
    assert stage.upstreams == []


def test_a_login_is_pinned_before_the_request_that_shows_it_leaves(
    play: Play, gate: MakeGate, purse: Purse
) -> None:
    stage = play(gate(PINNED))

    stage.says(ask(b"x-api-key: sk-ant-api03-own"))

    assert purse.learned == ["login"]
    assert len(stage.upstreams) == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "credential-unavailable"),
        (PermissionError("another was first"), "foreign-credential"),
    ],
)
def test_a_login_that_cannot_be_pinned_does_not_pass(
    play: Play, gate: MakeGate, purse: Purse, ledger: Ledger, error: OSError, reason: str
) -> None:
    purse.fault = error
    stage = play(gate(PINNED))

    shown = stage.says(ask(b"x-api-key: sk-ant-api03-own"))

    assert (reason_of(shown), stage.upstreams) == (reason, [])
    # That it was to pass is recorded by then; that it does not is a fact of its own.
    assert [(row.allowed, row.reason) for row in ledger.decisions][1:] == [(False, reason)]
    assert [row.decision for row in ledger.outcomes] == [row.id for row in ledger.decisions]


def test_a_login_whose_request_cannot_be_recorded_is_not_pinned(
    play: Play, gate: MakeGate, purse: Purse
) -> None:
    def full_disk(_: Event) -> None:
        raise AuditError("disk full")

    stage = play(Gate(gate(PINNED).policy, full_disk, secret_provider=purse))

    shown = stage.says(ask(b"x-api-key: sk-ant-api03-own"))

    assert (reason_of(shown), purse.learned, stage.upstreams) == ("audit-failed", [], [])


@pytest.mark.parametrize("binding", [INJECTED, PINNED])
def test_no_field_follows_a_body_to_a_host_where_a_login_in_it_would_count(
    play: Play, serve: Serve, gate: MakeGate, binding: Binding
) -> None:
    stage = play(gate(binding))
    stage.says(ask(b"Transfer-Encoding: chunked", body=b"2\r\nhi\r\n0\r\nX-Key: other\r\n\r\n"))

    assert serve(stage).gets().endswith(b"2\r\nhi\r\n0\r\n\r\n")


def test_no_trailer_goes_up_over_http_2_either(play: Play, serve: Serve, gate: MakeGate) -> None:
    stage = play(gate(INJECTED), "h2")
    client = Http2Client(stage)
    asked = client.ask(*pseudo("POST", "/upload", API.host), end=False)
    origin = Http2Origin(serve(stage, "h2"), client)
    client.sends(asked, b"hi")
    client.h2.send_headers(asked, [("x-key", "other")], end_stream=True)
    client.pump()
    origin.pump()

    assert (origin.messages[1].body, origin.messages[1].trailers) == (b"hi", {})
    assert origin.messages[1].over


# --- what is held back


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_nothing_is_dialled_before_a_body_is_whole_and_judged(
    play: Play, gate: MakeGate, ledger: Ledger, protocol: str
) -> None:
    stage = play(gate(narrowing=NARROWED), protocol)

    reason = _send(stage, protocol, REACHING, dialled_at=[])

    assert (reason, stage.upstreams) == ("mcp-server-not-allowed", [])
    assert [(made.phase, made.allowed) for made in ledger.decisions] == [
        (Phase.REQUEST, True),
        (Phase.CONTENT, False),
    ]
    assert [(seen.status, seen.error) for seen in ledger.outcomes] == [
        (403, None),
        (403, "mcp-server-not-allowed"),
    ]


def _send(stage: Stage, protocol: str, body: bytes, *, dialled_at: list[int]) -> str:
    """Send a body in two pieces, over either protocol; return the reason of a denial."""
    if protocol == "h2":
        client = Http2Client(stage)
        fields = (*pseudo("POST", "/v1/messages", API.host), ("content-type", "application/json"))
        asked = client.ask(*fields, end=False)
        client.sends(asked, body[:10])
        dialled_at.append(len(stage.upstreams))
        client.sends(asked, body[10:], end=True)
        message = client.messages.get(asked)
        return "" if message is None else message.reason
    message_bytes = ask(JSON, body=body)
    stage.says(message_bytes[:-10])
    dialled_at.append(len(stage.upstreams))
    return reason_of(stage.says(message_bytes[-10:]))


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_an_allowed_body_goes_up_byte_for_byte(
    play: Play, serve: Serve, gate: MakeGate, protocol: str
) -> None:
    stage = play(gate(narrowing=NARROWED), protocol)
    dialled_at: list[int] = []

    reason = _send(stage, protocol, HARMLESS, dialled_at=dialled_at)
    head, _, body = serve(stage).gets().partition(b"\r\n\r\n")

    assert (reason, dialled_at) == ("", [0])
    if protocol == "h2":
        assert HARMLESS in body  # in chunks, as its length was not given
    else:
        assert body == HARMLESS
        assert b"Content-Length: %d" % len(HARMLESS) in head


def test_a_body_in_chunks_goes_up_with_its_length(play: Play, serve: Serve, gate: MakeGate) -> None:
    stage = play(gate(narrowing=NARROWED))
    pieces = b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (
        HARMLESS[:5],
        len(HARMLESS) - 5,
        HARMLESS[5:],
    )
    stage.says(ask(JSON, b"Transfer-Encoding: chunked", body=pieces))
    head, _, body = serve(stage).gets().partition(b"\r\n\r\n")

    assert body == HARMLESS
    assert b"Content-Length: %d" % len(HARMLESS) in head
    assert b"chunked" not in head


def test_a_client_that_waits_to_be_told_is_told_to_go_on(
    play: Play, serve: Serve, gate: MakeGate
) -> None:
    stage = play(gate(narrowing=NARROWED))
    message = ask(JSON, b"Expect: 100-continue", body=HARMLESS)
    cut = len(message) - len(HARMLESS)

    got = stage.says(message[:cut])
    stage.says(message[cut:])
    head = serve(stage).gets().partition(b"\r\n\r\n")[0]

    assert got == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b"Expect" not in head


def test_a_connection_goes_on_after_a_body_was_denied(
    play: Play, serve: Serve, gate: MakeGate
) -> None:
    stage = play(gate(narrowing=NARROWED))
    stage.says(ask(JSON, body=REACHING))

    stage.says(ask(JSON, body=HARMLESS))

    assert serve(stage).gets().endswith(HARMLESS)


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_a_body_that_is_too_long_is_refused_as_soon_as_that_is_known(
    play: Play, gate: MakeGate, ledger: Ledger, protocol: str
) -> None:
    stage = play(gate(narrowing=NARROWED), protocol)
    if protocol == "h2":
        client = Http2Client(stage)
        asked = client.ask(*pseudo("POST", "/v1/messages", API.host), end=False)
        client.sends(asked, bytes(3000))
        status = client.messages[asked].status
    else:
        head = ask(JSON, b"Transfer-Encoding: chunked")
        status = statuses(stage.says(head + b"bb8\r\n" + bytes(3000)))[0]

    assert (status, stage.upstreams) == (413, [])
    assert ledger.last.status == 413


def test_a_body_whose_length_is_too_much_is_not_waited_for(play: Play, gate: MakeGate) -> None:
    stage = play(gate(narrowing=NARROWED))

    shown = stage.says(ask(JSON, b"Content-Length: 2001"))

    assert (statuses(shown), reason_of(shown)) == ([413], "body-too-large")


def test_a_body_that_does_not_come_is_given_up(play: Play, gate: MakeGate) -> None:
    stage = play(gate(narrowing=NARROWED))
    stage.says(ask(JSON, b"Content-Length: 20") + b"{")

    shown = stage.expires()

    assert (statuses(shown), stage.client.closed) == ([408], True)


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_a_body_is_waited_for_until_it_is_whole(play: Play, gate: MakeGate, protocol: str) -> None:
    stage = play(gate(narrowing=NARROWED), protocol)
    if protocol == "h2":
        client = Http2Client(stage)
        kind = ("content-type", "application/json")
        asked = client.ask(*pseudo("POST", "/v1/messages", API.host), kind, end=False)
        client.sends(asked, HARMLESS[:1])
        before = stage.session.waiting
        client.sends(asked, HARMLESS[1:], end=True)
    else:
        message = ask(JSON, body=HARMLESS)
        stage.says(message[:-1])
        before = stage.session.waiting
        stage.says(message[-1:])

    assert (before, stage.session.waiting is Waiting.BODY) == (Waiting.BODY, False)


def test_the_room_is_crowded_once_more_than_half_of_it_is_taken(
    play: Play, gate: MakeGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "_HELD_LIMIT", 1000)
    the_gate = gate(narrowing=NARROWED)
    stage = play(the_gate)
    stage.says(ask(JSON, b"Content-Length: 900") + bytes(500))
    half = the_gate.is_crowded
    stage.says(bytes(1))
    more = the_gate.is_crowded
    stage.client_goes()

    assert (half, more, the_gate.is_crowded) == (False, True, False)


def test_bodies_that_wait_have_a_bound_together_and_give_their_room_back(
    play: Play, gate: MakeGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "_HELD_LIMIT", 1000)
    the_gate = gate(narrowing=NARROWED)
    first, second, third = play(the_gate), play(the_gate), play(the_gate)
    first.says(ask(JSON, b"Content-Length: 900") + bytes(800))

    refused = second.says(ask(JSON, b"Content-Length: 900") + bytes(800))
    first.client_goes()
    taken = third.says(ask(JSON, b"Content-Length: 900") + bytes(800))

    assert (statuses(refused), reason_of(refused), taken) == ([503], "no-room", b"")


# --- judged in another thread


def of_parts(body: bytes) -> bytes:
    return body[:-1] + b',"metadata":[' + b",".join([b"1"] * 600) + b"]}"


@pytest.mark.parametrize(("body", "status"), [(HARMLESS, None), (REACHING, 403)])
def test_a_body_of_many_parts_is_judged_in_another_thread(
    play: Play, gate: MakeGate, ledger: Ledger, body: bytes, status: int | None
) -> None:
    stage = play(gate(narrowing=NARROWED))
    stage.runs_apart = False

    before = stage.says(ask(JSON, body=of_parts(body)))
    assert (before, stage.upstreams, len(stage.apart)) == (b"", [], 1)
    after = stage.finishes_apart()

    assert statuses(after) == ([] if status is None else [status])
    assert bool(stage.upstreams) is (status is None)
    assert len(ledger.decisions) == (1 if status is None else 2)


def test_the_judgement_of_a_request_that_has_ended_changes_nothing(
    play: Play, gate: MakeGate
) -> None:
    stage = play(gate(narrowing=NARROWED))
    stage.runs_apart = False
    stage.says(ask(JSON, body=of_parts(HARMLESS)))
    stage.expires()

    assert stage.finishes_apart() == b""
    assert stage.upstreams == []


def test_a_policy_that_came_meanwhile_judges_the_body_again(play: Play, gate: MakeGate) -> None:
    the_gate = gate(narrowing=NARROWED)
    stage = play(the_gate)
    stage.runs_apart = False
    stage.says(ask(JSON, body=of_parts(HARMLESS)))
    stage.apart[0].work()
    the_gate.policy = Policy()

    assert statuses(stage.finishes_apart()) == [403]


# --- what is cut off


@pytest.mark.parametrize("cut", [0, 1, 10, len(VALUE) - 1])
def test_an_answer_that_holds_the_value_is_cut_off(
    play: Play, serve: Serve, gate: MakeGate, ledger: Ledger, cut: int
) -> None:
    stage = play(gate(INJECTED))
    stage.says(ask(body=b"hello"))
    origin = serve(stage)
    origin.gets()
    whole = answer(b"before " + VALUE + b" after")
    at = whole.index(VALUE) + cut

    shown = origin.answers(whole[:at]) + origin.answers(whole[at:])

    assert VALUE not in shown
    assert b"after" not in shown
    assert stage.client.closed
    assert ledger.last.error == "credential-echoed"


def test_a_head_that_holds_the_value_never_comes_down(
    play: Play, serve: Serve, gate: MakeGate, ledger: Ledger
) -> None:
    stage = play(gate(INJECTED))
    stage.says(ask(body=b"hello"))

    shown = serve(stage).answers(answer(b"hi", b"X-Echo: " + VALUE))

    assert (statuses(shown), reason_of(shown)) == ([502], "credential-echoed")
    assert VALUE not in shown
    assert ledger.last.error == "credential-echoed"


def test_a_phrase_that_holds_the_value_never_comes_down(
    play: Play, serve: Serve, gate: MakeGate, ledger: Ledger
) -> None:
    stage = play(gate(INJECTED))
    stage.says(ask(body=b"hello"))

    shown = serve(stage).answers(b"HTTP/1.1 401 Unknown key " + VALUE + b"\r\n\r\n")

    assert (statuses(shown), reason_of(shown)) == ([502], "credential-echoed")
    assert VALUE not in shown
    assert ledger.last.error == "credential-echoed"


@pytest.mark.parametrize("where", ["head", "body"])
def test_the_value_is_cut_off_over_http_2_too(
    play: Play, serve: Serve, gate: MakeGate, ledger: Ledger, where: str
) -> None:
    stage = play(gate(INJECTED), "h2")
    client = Http2Client(stage)
    asked = client.get(host=API.host)
    origin = Http2Origin(serve(stage, "h2"), client)
    if where == "head":
        origin.answer(1, ("x-echo", VALUE.decode()), body=b"hi")
        assert client.messages[asked].reason == "credential-echoed"
    else:
        origin.answer(1, body=b"before " + VALUE + b" after")
        assert client.messages[asked].reset

    assert VALUE not in client.messages[asked].body
    assert ledger.last.error == "credential-echoed"


def test_what_only_looks_like_the_value_comes_down_whole(
    play: Play, serve: Serve, gate: MakeGate
) -> None:
    stage = play(gate(INJECTED))
    stage.says(ask(body=b"hello"))
    near = VALUE[:-1] + b"!" + VALUE[:12]

    shown = serve(stage).answers(answer(near))

    assert shown == answer(near)


# --- what an answer has cost


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_what_an_answer_says_it_has_cost_is_recorded(
    play: Play, serve: Serve, gate: MakeGate, ledger: Ledger, protocol: str
) -> None:
    stage = play(gate(narrowing=NARROWED), protocol)
    _send(stage, protocol, HARMLESS, dialled_at=[])
    origin = serve(stage)
    origin.gets()

    origin.answers(answer(COST, JSON))

    assert ledger.last.usage == Usage("m-1", tokens_in=12, tokens_out=34)


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_an_answer_whose_cost_is_to_be_read_is_asked_for_readably(
    play: Play, serve: Serve, gate: MakeGate, protocol: str
) -> None:
    stage = play(gate(narrowing=NARROWED), protocol)
    if protocol == "h2":
        fields = (("content-type", "application/json"), ("accept-encoding", "gzip, br"))
        Http2Client(stage).ask(*pseudo("POST", "/v1/messages", API.host), *fields, body=HARMLESS)
    else:
        stage.says(ask(JSON, b"Accept-Encoding: gzip, br", body=HARMLESS))
    head = serve(stage).gets().partition(b"\r\n\r\n")[0].lower()

    assert [line for line in head.split(b"\r\n") if line.startswith(b"accept-enc")] == [
        b"accept-encoding: gzip"
    ]


# --- what happens while a body is held


def test_a_credential_that_is_gone_meanwhile_is_not_put_in(
    play: Play, gate: MakeGate, ledger: Ledger
) -> None:
    the_gate = gate(INJECTED, narrowing=NARROWED)
    stage = play(the_gate)
    message = ask(JSON, body=HARMLESS)
    stage.says(message[:-5])

    the_gate.policy = replace(the_gate.policy, credentials=())
    shown = stage.says(message[-5:])

    assert (reason_of(shown), stage.upstreams) == ("credential-unavailable", [])
    assert ledger.last.error == "credential-unavailable"


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_a_pin_that_goes_while_its_host_is_dialled_lets_nothing_pass(
    play: Play, serve: Serve, gate: MakeGate, ledger: Ledger, protocol: str
) -> None:
    the_gate = gate(PINNED)
    stage = play(the_gate, protocol)
    if protocol == "h2":
        Http2Client(stage).get(("x-api-key", "sk-ant-api03-own"), host=API.host)
    else:
        stage.says(ask(b"x-api-key: sk-ant-api03-own"))

    the_gate.policy = replace(the_gate.policy, credentials=(INJECTED,))
    origin = serve(stage)

    assert b"sk-ant-api03-own" not in origin.gets()
    assert ledger.decisions[-1].reason == "credential-unavailable"


def moved_down(gate: Gate) -> tuple[Binding, ...]:
    """Return its credentials as a line written above them leaves them."""
    down = Location(HERE.file, HERE.line + 1, HERE.column)
    return tuple(replace(each, source=down) for each in gate.policy.credentials)


def test_a_reload_that_concerns_another_credential_stops_no_request(
    play: Play, serve: Serve, gate: MakeGate
) -> None:
    the_gate = gate(INJECTED)
    stage = play(the_gate)
    stage.says(ask(b"x-api-key: " + PLACEHOLDER.encode()))

    other = replace(PINNED, patterns=(HostPattern.parse("other.example"),))
    the_gate.policy = replace(the_gate.policy, credentials=(*moved_down(the_gate), other))

    assert VALUE in serve(stage).gets()


def test_nor_one_whose_body_is_waiting(play: Play, serve: Serve, gate: MakeGate) -> None:
    the_gate = gate(INJECTED, narrowing=NARROWED)
    stage = play(the_gate)
    message = ask(JSON, body=HARMLESS)
    stage.says(message[:-5])

    the_gate.policy = replace(the_gate.policy, credentials=moved_down(the_gate))
    stage.says(message[-5:])

    assert VALUE in serve(stage).gets()


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_a_credential_that_goes_while_its_host_is_dialled_is_not_put_in(
    play: Play, serve: Serve, gate: MakeGate, ledger: Ledger, protocol: str
) -> None:
    the_gate = gate(INJECTED)
    stage = play(the_gate, protocol)
    if protocol == "h2":
        client = Http2Client(stage)
        client.get(("x-api-key", PLACEHOLDER), host=API.host)
    else:
        stage.says(ask(b"x-api-key: " + PLACEHOLDER.encode(), body=b"hello"))

    the_gate.policy = replace(the_gate.policy, credentials=())
    origin = serve(stage)

    assert VALUE not in origin.gets()
    assert [(made.phase, made.reason) for made in ledger.decisions] == [
        (Phase.REQUEST, "rule-matched"),
        (Phase.DIAL, "credential-unavailable"),
    ]
    assert ledger.last.status == 403


def test_an_upstream_that_leaves_meanwhile_is_dialled_again(
    play: Play, serve: Serve, gate: MakeGate, ledger: Ledger
) -> None:
    stage = play(gate(narrowing=NARROWED))
    stage.says(ask(JSON, body=HARMLESS))
    first = serve(stage)
    first.gets()
    first.answers(answer(b"hi"))
    message = ask(JSON, body=HARMLESS)
    stage.says(message[:-5])

    shown = stage.upstream_ends(first.peer)
    stage.says(message[-5:])
    second = serve(stage)

    assert (shown, len(stage.upstreams)) == (b"", 2)
    assert second.gets().endswith(HARMLESS)
    assert second.answers(answer(b"ho")) == answer(b"ho")
    assert [seen.error for seen in ledger.outcomes] == [None, None]


def test_no_field_follows_a_body_where_it_would_have_been_judged_in_the_head(
    play: Play, serve: Serve, gate: MakeGate
) -> None:
    stage = play(gate(narrowing=replace(NARROWED, beta=("good",))))
    trailer = b"2\r\nhi\r\n0\r\nAnthropic-Beta: bad\r\n\r\n"
    stage.says(ask(b"Transfer-Encoding: chunked", body=trailer, path="/v1/files"))

    assert serve(stage).gets().endswith(b"2\r\nhi\r\n0\r\n\r\n")
