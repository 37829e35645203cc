"""The gateway's lane: whom it lets in, what it serves, what leaves, and what comes back."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.settings import Base, Ceilings, Gateway, GatewayMode
from claude_proxy.policy.credentials.binding import Form, Injection
from claude_proxy.policy.credentials.decision import AvailableSecrets
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.gate import Gate
from claude_proxy.proxy.gateway.layer import GatewayFront
from claude_proxy.proxy.gateway.policy import policy_of
from claude_proxy.proxy.gateway.state import state_of
from claude_proxy.proxy.layers.session import NO_ADDRESS, Session
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.stage import BrokenPolicy, Ledger, Stage, a_dialer
from tests.proxy.layers.stage import policy_of as listed

KEY = "sk-ant-api03-the-real-key-of-the-owner"
TOKEN = "the-token-of-this-gateway"
PROMPT = "canary-of-the-prompt"
CANARY = "canary-of-the-provider"
BODY = json.dumps(
    {"model": "asked", "max_tokens": 5, "messages": [{"role": "user", "content": PROMPT}]}
).encode()
END = b"\r\n\r\n"


@dataclass
class SecretProvider:
    """Holds the gateway's key, or nothing."""

    secrets: AvailableSecrets = field(default_factory=lambda: {"gateway": Secret(KEY.encode())})
    told: list[int] = field(default_factory=list)

    def learn(self, name: str, login: tuple[bytes, bytes]) -> None:
        raise LookupError(name, len(login))

    def answered(self, name: str, status: int) -> None:
        assert name == "gateway"
        self.told.append(status)


@dataclass
class Counts:
    """What the audit log would say."""

    requests: int = 0
    tokens: int = 0

    def requests_since(self, moment_ns: int, credential: str) -> int:
        assert credential == "gateway"
        assert moment_ns > 0
        return self.requests

    def used_since(self, moment_ns: int, credential: str) -> int:
        assert credential == "gateway"
        assert moment_ns > 0
        return self.tokens


def a_gateway(**changes: Any) -> Gateway:
    gateway = Gateway(
        listen=(),
        upstream=Base(Scheme.HTTP, Authority.of("127.0.0.1", 8080)),
        credential=Injection(EnvironmentSource("KEY"), Form.X_API_KEY, strips=True, plain=True),
    )
    return replace(gateway, **changes)


STRICT = a_gateway(mode=GatewayMode.STRICT)


@dataclass
class Play:
    """A gateway on the stage, and what it recorded."""

    stage: Stage
    ledger: Ledger
    custodian: SecretProvider


def play(
    gateway: Gateway | None = None,
    *,
    policy: Policy | None = None,
    token: str | None = None,
    counts: Counts | None = None,
    connects: bool = True,
    local: bool = False,
    custodian: SecretProvider | None = None,
) -> Play:
    gateway = gateway or a_gateway()
    ledger, custodian = Ledger(), custodian or SecretProvider()
    judged = policy_of(gateway, policy or Policy())
    gate = Gate(judged, ledger.events.append, secret_provider=custodian)
    state = state_of(gateway, counts or Counts())

    def make(context: Any, session: Session) -> GatewayFront:
        return GatewayFront(context, session, a_dialer(), state, token)

    return Play(Stage(make, gate, connects=connects, local=local), ledger, custodian)


def ask(
    method: str = "POST",
    target: str = "/v1/messages",
    *fields: str,
    body: bytes = BODY,
    host: str = "localhost:9000",
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def content_of(answer: bytes) -> Any:
    return json.loads(answer.partition(END)[2])


def fields_of(message: bytes) -> dict[str, str]:
    lines = message.partition(END)[0].decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (at.partition(":") for at in lines)}


def an_answer(status: str = "200 OK", body: bytes = b'{"ok":1}', *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def api_error(answer: bytes) -> tuple[int, str]:
    """Return the status, and the kind of error; fail if it has not the API's shape."""
    value = content_of(answer)
    assert value["type"] == "error"
    assert set(value["error"]) == {"type", "message"}
    return status_of(answer), value["error"]["type"]


# --- forwarding


@pytest.mark.parametrize("mode", GatewayMode)
def test_a_call_goes_to_the_one_upstream_with_the_owners_key(mode: GatewayMode) -> None:
    there = play(a_gateway(mode=mode))

    assert there.stage.says(ask()) == b""

    assert [peer.address for peer in there.stage.upstreams] == [("127.0.0.1", 8080)]
    sent = there.stage.upstream.take()
    assert sent.startswith(b"POST /v1/messages HTTP/1.1\r\n")
    assert sent.count(b"POST ") == 1
    assert fields_of(sent)["host"] == "127.0.0.1:8080"
    assert fields_of(sent)["x-api-key"] == KEY
    answer = there.stage.answers(an_answer())
    assert (status_of(answer), content_of(answer)) == (200, {"ok": 1})
    [decision] = there.ledger.decisions
    assert (decision.allowed, decision.credential, decision.target, decision.path) == (
        True,
        "gateway",
        "127.0.0.1:8080",
        "/v1/messages",
    )
    assert there.ledger.last.status == 200


@pytest.mark.parametrize("mode", GatewayMode)
@pytest.mark.parametrize(
    "shown",
    [
        "Authorization: Bearer of-the-caller",
        "Authorization: Basic b2Y6dGhlLWNhbGxlcg==",
        "x-api-key: of-the-caller",
        "X-API-KEY: of-the-caller",
        "x_api_key: of-the-caller",
        "Cookie: login=of-the-caller",
        "Proxy-Authorization: Basic b2Y6dGhlLWNhbGxlcg==",
    ],
)
def test_what_the_caller_authenticates_with_stays_here(mode: GatewayMode, shown: str) -> None:
    there = play(a_gateway(mode=mode))

    there.stage.says(ask("POST", "/v1/messages", shown))

    sent = there.stage.upstream.take()
    assert shown.split(": ")[1].encode() not in sent
    assert sent.count(KEY.encode()) == 1


def test_an_oauth_token_goes_as_bearer() -> None:
    token = "sk-ant-oat01-of-the-owner"
    gateway = a_gateway(
        credential=Injection(EnvironmentSource("KEY"), Form.AUTO, strips=True, plain=True)
    )
    there = play(gateway, custodian=SecretProvider({"gateway": Secret(token.encode())}))

    there.stage.says(ask("POST", "/v1/messages", "anthropic-beta: one-2025-01-01"))

    sent = fields_of(there.stage.upstream.take())
    assert sent["authorization"] == f"Bearer {token}"
    assert sent["anthropic-beta"] == "one-2025-01-01,oauth-2025-04-20"
    assert "x-api-key" not in sent


@pytest.mark.parametrize("mode", GatewayMode)
def test_the_version_is_the_callers_or_the_usual_one(mode: GatewayMode) -> None:
    there = play(a_gateway(mode=mode))

    there.stage.says(ask())
    usual = fields_of(there.stage.upstream.take())
    there.stage.answers(an_answer())
    there.stage.says(ask("POST", "/v1/messages", "Anthropic-Version: 2099-01-01"))
    own = there.stage.upstream.take()

    assert usual["anthropic-version"] == "2023-06-01"
    assert fields_of(own)["anthropic-version"] == "2099-01-01"
    assert own.lower().count(b"anthropic-version") == 1


def test_claude_mode_forwards_the_query_the_fields_and_the_body_as_they_are() -> None:
    there = play()
    body = b'{ "model":"asked","stream":true,"tools":[],"of_tomorrow":{"a":[1.0]} }'

    there.stage.says(
        ask(
            "POST",
            "/v1/messages?beta=true",
            "anthropic-beta: a-2025-01-01,b-2025-01-01",
            "x-claude-code-session-id: 5",
            "User-Agent: claude-cli/2",
            "X-Stainless-Lang: js",
            body=body,
        )
    )

    sent = there.stage.upstream.take()
    assert sent.startswith(b"POST /v1/messages?beta=true HTTP/1.1\r\n")
    assert sent.endswith(END + body)
    assert fields_of(sent) | {
        "anthropic-beta": "a-2025-01-01,b-2025-01-01",
        "x-claude-code-session-id": "5",
        "user-agent": "claude-cli/2",
        "x-stainless-lang": "js",
    } == fields_of(sent)


def test_strict_mode_forwards_neither_query_nor_other_fields() -> None:
    there = play(STRICT)

    there.stage.says(
        ask(
            "POST",
            "/v1/messages?beta=true",
            "anthropic-beta: a-2025-01-01",
            "x-claude-code-session-id: 5",
            "User-Agent: curl",
            "Content-Type: text/plain",
        )
    )

    sent = there.stage.upstream.take()
    assert sent.startswith(b"POST /v1/messages HTTP/1.1\r\n")
    assert fields_of(sent) == {
        "host": "127.0.0.1:8080",
        "anthropic-beta": "a-2025-01-01",
        "content-length": str(len(sent.partition(END)[2])),
        "content-type": "application/json",
        "accept": "application/json",
        "anthropic-version": "2023-06-01",
        "x-api-key": KEY,
        "accept-encoding": "identity",
    }


def test_the_path_of_the_base_comes_first() -> None:
    base = Base(Scheme.HTTP, Authority.of("127.0.0.1", 8080), "/api/anthropic")
    there = play(a_gateway(upstream=base))

    there.stage.says(ask("POST", "/v1/messages?beta=true"))

    assert there.stage.upstream.take().startswith(b"POST /api/anthropic/v1/messages?beta=true ")


@pytest.mark.parametrize(
    "host", ["localhost", "gateway.internal:1", "evil.test", "api.anthropic.com"]
)
@pytest.mark.parametrize("way_in", ["unix", "token"])
def test_any_host_is_accepted_and_none_is_believed(host: str, way_in: str) -> None:
    there = play(token=TOKEN if way_in == "token" else None)
    if way_in == "unix":
        there.stage.context.client.peername = NO_ADDRESS

    there.stage.says(ask("POST", "/v1/messages", f"x-api-key: {TOKEN}", host=host))

    sent = there.stage.upstream.take()
    assert fields_of(sent)["host"] == "127.0.0.1:8080"
    assert there.stage.upstream.address == ("127.0.0.1", 8080)


@pytest.mark.parametrize("mode", GatewayMode)
def test_the_model_is_the_owners_choice(mode: GatewayMode) -> None:
    there = play(a_gateway(mode=mode, models=(("*", "given"),)))

    there.stage.says(ask())

    sent = there.stage.upstream.take()
    assert json.loads(sent.partition(END)[2]) == json.loads(BODY) | {"model": "given"}


def test_a_body_whose_model_cannot_be_found_is_denied() -> None:
    there = play(a_gateway(models=(("*", "given"),)))

    answer = there.stage.says(ask(body=b'{"model":"a","model":"b"}'))

    assert api_error(answer) == (403, "permission_error")
    assert there.stage.upstreams == []
    assert there.ledger.reasons == ["rule-matched", "body-unreadable"]


def test_other_calls_of_claude_code_are_forwarded() -> None:
    there = play()

    there.stage.says(ask("POST", "/v1/messages/count_tokens?beta=true"))
    first = there.stage.upstream.take()
    there.stage.answers(an_answer())
    there.stage.says(ask("GET", "/v1/models?limit=1000", body=b""))

    assert first.startswith(b"POST /v1/messages/count_tokens?beta=true ")
    sent = there.stage.upstream.take()
    assert sent.startswith(b"GET /v1/models?limit=1000 ")
    assert sent.endswith(END)
    assert "content-length" not in fields_of(sent)


def test_events_are_passed_on_one_by_one_and_pings_too() -> None:
    there = play()
    there.stage.says(ask(body=b'{"stream":true}'))
    head = there.stage.answers(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )

    for event in (b"event: message_start\ndata: {}\n\n", b"event: ping\ndata: {}\n\n"):
        assert event in there.stage.answers(b"%x\r\n%b\r\n" % (len(event), event))
    assert there.stage.answers(b"0\r\n\r\n").endswith(b"0\r\n\r\n")
    assert fields_of(head)["content-type"] == "text/event-stream"


@pytest.mark.parametrize(
    "status", ["400 Bad Request", "429 Slow Down", "500 Oops", "529 Overloaded"]
)
def test_claude_mode_passes_errors_on_word_for_word(status: str) -> None:
    there = play()
    there.stage.says(ask())
    body = b'{"type":"error","error":{"type":"of_the_provider","message":"prompt is too long"}}'

    answer = there.stage.answers(
        an_answer(status, body, "request-id: req_1", "retry-after: 7", "x-should-retry: true")
    )

    assert answer.startswith(f"HTTP/1.1 {status}\r\n".encode())
    assert answer.endswith(END + body)
    assert fields_of(answer)["request-id"] == "req_1"
    assert fields_of(answer)["retry-after"] == "7"


def test_claude_mode_passes_a_redirect_on_and_does_not_follow_it() -> None:
    there = play()
    there.stage.says(ask())

    answer = there.stage.answers(an_answer("302 Found", b"", "Location: https://evil.test/"))

    assert status_of(answer) == 302
    assert fields_of(answer)["location"] == "https://evil.test/"
    assert len(there.stage.upstreams) == 1


def test_a_connection_serves_many_calls() -> None:
    there = play()

    for _ in range(3):
        there.stage.says(ask())
        assert status_of(there.stage.answers(an_answer())) == 200
        assert status_of(there.stage.says(ask("GET", "/health", body=b""))) == 200

    assert len(there.stage.upstreams) == 1
    assert not there.stage.client.closed


def test_an_upstream_hears_how_the_key_was_taken() -> None:
    there = play()
    there.stage.says(ask())

    there.stage.answers(an_answer("401 Unauthorized"))

    assert there.custodian.told == [401]


def test_an_answer_that_holds_the_key_is_cut_off() -> None:
    there = play()
    there.stage.says(ask())

    answer = there.stage.answers(an_answer("200 OK", KEY.encode()))

    assert KEY.encode() not in answer
    assert there.stage.client.closed
    assert there.ledger.last.error == "credential-echoed"


# --- what is not served


@pytest.mark.parametrize(
    ("target", "status"), [("/v1/files", 404), ("/", 405), ("/v1/messages/", 404)]
)
def test_claude_mode_says_in_the_apis_words_what_is_not_served(target: str, status: int) -> None:
    there = play()

    answer = there.stage.says(ask("GET", target, body=b""))

    assert api_error(answer)[0] == status
    assert fields_of(answer)["x-claude-proxy-reason"] == "endpoint-not-allowed"
    assert there.stage.upstreams == []
    assert there.ledger.reasons == ["endpoint-not-allowed"]


@pytest.mark.parametrize(
    ("method", "target", "status", "detail"),
    [
        ("GET", "/v1/messages", 405, "Method not allowed"),
        ("OPTIONS", "/v1/messages", 405, "Method not allowed"),
        ("TRACE", "/v1/messages", 405, "Method not allowed"),
        ("GET", "/", 404, "Not found"),
        ("POST", "/v1/messages/count_tokens", 404, "Not found"),
        ("POST", "//v1/messages", 404, "Not found"),
        ("GET", "/openapi.json", 404, "Not found"),
        ("OPTIONS", "*", 404, "Not found"),
    ],
)
def test_strict_mode_says_in_the_seeds_words_what_is_not_served(
    method: str, target: str, status: int, detail: str
) -> None:
    there = play(STRICT)

    answer = there.stage.says(ask(method, target, body=b""))

    assert (status_of(answer), content_of(answer)) == (status, {"detail": detail})
    assert there.stage.upstreams == []


def test_head_is_answered_without_content() -> None:
    answer = play(STRICT).stage.says(ask("HEAD", "/v1/messages", body=b""))

    assert status_of(answer) == 405
    assert fields_of(answer)["allow"] == "POST"
    assert answer.endswith(END)


@pytest.mark.parametrize("mode", GatewayMode)
def test_the_health_is_told_to_everybody_and_leaves_no_trace(mode: GatewayMode) -> None:
    there = play(a_gateway(mode=mode), token=TOKEN)

    answer = there.stage.says(ask("GET", "/health?x=1", body=b""))

    assert status_of(answer) == 200
    assert content_of(answer)["status"] == "ok"
    assert there.ledger.events == []


def test_the_first_question_of_claude_code_is_answered_here() -> None:
    there = play()

    answer = there.stage.says(ask("HEAD", "/", body=b""))

    assert status_of(answer) == 200
    assert there.stage.upstreams == []


@pytest.mark.parametrize(
    "request_line",
    [
        b"CONNECT api.anthropic.com:443 HTTP/1.1\r\nHost: api.anthropic.com:443\r\n\r\n",
        b"GET http://evil.test/v1/models HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        b"GET http://localhost:9000/health HTTP/1.1\r\nHost: localhost:9000\r\n\r\n",
        b"\x05\x01\x00",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
@pytest.mark.parametrize("mode", GatewayMode)
def test_a_gateway_is_no_proxy(mode: GatewayMode, request_line: bytes) -> None:
    there = play(a_gateway(mode=mode))

    answer = there.stage.says(request_line)

    assert status_of(answer) in {400, 505}
    assert content_of(answer)["type"] == "error"
    assert there.stage.upstreams == []
    assert there.stage.client.closed
    assert not any(decision.allowed for decision in there.ledger.decisions)


def test_a_websocket_is_refused() -> None:
    there = play()

    answer = there.stage.says(
        ask("GET", "/v1/models", "Connection: Upgrade", "Upgrade: websocket", body=b"")
    )

    assert api_error(answer) == (403, "permission_error")
    assert there.stage.upstreams == []


# --- callers


@pytest.mark.parametrize(
    "shown",
    [
        f"Authorization: Bearer {TOKEN}",
        f"authorization: bearer  {TOKEN}",
        f"x-api-key: {TOKEN}",
    ],
)
def test_the_token_may_be_shown_in_either_field(shown: str) -> None:
    there = play(token=TOKEN)

    there.stage.says(ask("POST", "/v1/messages", shown))

    sent = there.stage.upstream.take()
    assert TOKEN.encode() not in sent


@pytest.mark.parametrize(
    "shown",
    [
        "X-Nothing: at all",
        "Authorization: Bearer",
        f"Authorization: Basic {TOKEN}",
        f"Authorization: {TOKEN}",
        f"Authorization: Bearer {TOKEN}x",
        f"Authorization: Bearer {TOKEN[:-1]}",
        "Authorization: Bearer ' OR '1'='1",
        "x-api-key: ",
        "x-api-key: \xff\xfe",
        f"x_api_key: {TOKEN}",
        f"Cookie: token={TOKEN}",
    ],
)
@pytest.mark.parametrize("mode", GatewayMode)
def test_without_the_token_nothing_goes_upstream(mode: GatewayMode, shown: str) -> None:
    there = play(a_gateway(mode=mode), token=TOKEN)

    answer = there.stage.says(ask("POST", "/v1/messages", shown))

    assert api_error(answer) == (401, "authentication_error")
    assert there.stage.upstreams == []
    assert there.ledger.reasons == ["client-not-authenticated"]
    assert there.ledger.last.status == 401


def test_clients_are_told_not_to_repeat_what_will_be_refused_again() -> None:
    there, full = play(token=TOKEN), play(a_gateway(ceilings=Ceilings(requests_per_minute=1)))
    full.stage.says(ask())
    full.stage.answers(an_answer())

    refused, put_off = there.stage.says(ask()), full.stage.says(ask())

    assert (status_of(refused), fields_of(refused)["x-should-retry"]) == (401, "false")
    assert (status_of(put_off), "x-should-retry" in fields_of(put_off)) == (429, False)


def test_a_stranger_does_not_learn_what_is_served() -> None:
    there = play(token=TOKEN)

    assert status_of(there.stage.says(ask("GET", "/v1/files", body=b""))) == 401


@pytest.mark.parametrize("mode", GatewayMode)
@pytest.mark.parametrize("origin", ["https://evil.test", "http://localhost:9000", "null"])
def test_a_page_in_a_browser_may_not_spend_the_owners_money(mode: GatewayMode, origin: str) -> None:
    there = play(a_gateway(mode=mode))

    answer = there.stage.says(ask("POST", "/v1/messages", f"Origin: {origin}"))

    assert status_of(answer) == 403
    assert there.stage.upstreams == []
    assert there.ledger.reasons == ["client-not-allowed"]


@pytest.mark.parametrize(
    ("host", "fields"),
    [
        ("evil.test:9000", ()),  # a name of the page's own, resolved anew to this machine
        ("localhost.evil.test", ()),
        ("localhost", ("Sec-Fetch-Site: cross-site",)),  # an image
        ("127.0.0.1:9000", ("Sec-Fetch-Site: same-site",)),
    ],
)
def test_a_page_may_not_read_either(host: str, fields: tuple[str, ...]) -> None:
    there = play()

    answer = there.stage.says(ask("GET", "/v1/models", *fields, body=b"", host=host))

    assert (status_of(answer), there.stage.upstreams) == (403, [])


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:9000", "192.0.2.7:80"])
def test_a_program_of_this_machine_needs_no_token(host: str) -> None:
    there = play()

    there.stage.says(ask("GET", "/v1/models", "Sec-Fetch-Site: none", body=b"", host=host))

    assert len(there.stage.upstreams) == 1


def test_a_page_that_knows_the_token_may_use_the_gateway() -> None:
    there = play(token=TOKEN)

    there.stage.says(ask("POST", "/v1/messages", "Origin: null", f"x-api-key: {TOKEN}"))

    assert len(there.stage.upstreams) == 1


def test_a_relay_may_say_for_whom_it_connects() -> None:
    there = play(local=True)
    announced = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00" + b"\x00\x00"

    there.stage.says(announced + ask())

    assert there.stage.upstream.take().startswith(b"POST /v1/messages ")


# --- ceilings


@pytest.mark.parametrize(
    ("ceilings", "counts"),
    [
        (Ceilings(requests_per_minute=2), Counts(requests=2)),
        (Ceilings(tokens_per_day=100), Counts(tokens=100)),
    ],
)
@pytest.mark.parametrize(
    ("mode", "kind"),
    [(GatewayMode.CLAUDE, "rate_limit_error"), (GatewayMode.STRICT, "rate_limited")],
)
def test_what_is_above_a_ceiling_is_put_off(
    mode: GatewayMode, kind: str, ceilings: Ceilings, counts: Counts
) -> None:
    there = play(a_gateway(mode=mode, ceilings=ceilings), counts=counts)

    answer = there.stage.says(ask())

    assert api_error(answer) == (429, kind)
    assert int(fields_of(answer)["retry-after"]) > 0
    assert there.stage.upstreams == []
    assert there.ledger.reasons == ["ceiling-reached"]


def test_what_is_below_a_ceiling_goes_through() -> None:
    ceilings = Ceilings(requests_per_minute=2, tokens_per_day=100)
    there = play(a_gateway(ceilings=ceilings), counts=Counts(requests=1, tokens=99))

    assert there.stage.says(ask()) == b""
    assert there.stage.upstreams != []


# --- bodies


@pytest.mark.parametrize("mode", GatewayMode)
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_long_is_refused_before_anything_leaves(
    mode: GatewayMode, *, chunked: bool
) -> None:
    there = play(a_gateway(mode=mode, request_bytes=1000))
    if chunked:
        asked = ask("POST", "/v1/messages", "Transfer-Encoding: chunked", body=b"")
        asked += b"3e9\r\n" + b"x" * 1001
    else:
        asked = ask(body=b"x" * 1001)

    answer = there.stage.says(asked)

    assert api_error(answer)[0] == 413
    assert there.stage.upstreams == []
    assert there.stage.client.closed


def test_a_body_of_the_whole_limit_goes_through() -> None:
    there = play(a_gateway(request_bytes=1000))

    there.stage.says(ask(body=b"x" * 1000))

    assert there.stage.upstream.take().endswith(END + b"x" * 1000)


def test_a_caller_that_waits_for_a_word_is_told_to_go_on() -> None:
    there = play()
    asked = ask("POST", "/v1/messages", "Expect: 100-continue")
    head, _, body = asked.partition(END)

    assert there.stage.says(head + END) == b"HTTP/1.1 100 Continue\r\n\r\n"
    there.stage.says(body)

    assert b"expect" not in there.stage.upstream.take().lower()


def test_strict_mode_refuses_what_is_not_valid_and_repeats_nothing() -> None:
    there = play(STRICT)

    answer = there.stage.says(ask(body=BODY.replace(b'"max_tokens": 5', b'"max_tokens": 0')))

    assert status_of(answer) == 422
    assert [one["loc"] for one in content_of(answer)["detail"]] == [["body", "max_tokens"]]
    assert PROMPT.encode() not in answer
    assert there.stage.upstreams == []
    assert there.ledger.reasons == ["rule-matched", "bad-request"]
    assert not there.stage.client.closed


def test_strict_mode_refuses_a_stream_in_so_many_words() -> None:
    answer = play(STRICT).stage.says(ask(body=BODY[:-1] + b', "stream": true}'))

    assert status_of(answer) == 422
    assert b"Streaming is not supported" in answer


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    there = play()
    there.stage.says(ask()[:-5])

    answer = there.stage.expires()

    assert api_error(answer)[0] == 408
    assert there.stage.upstreams == []


# --- the policy


def test_a_deny_rule_holds_for_the_gateway_too() -> None:
    policy = listed("deny: ['10.0.0.0/8', '127.0.0.0/8']")
    there = play(policy=policy)

    answer = there.stage.says(ask())

    assert api_error(answer) == (403, "permission_error")
    assert fields_of(answer)["x-claude-proxy-reason"] == "deny-rule"
    assert there.stage.upstreams == []


def test_a_key_that_cannot_be_had_denies() -> None:
    there = play(custodian=SecretProvider({"gateway": None}))

    answer = there.stage.says(ask())

    assert api_error(answer) == (403, "permission_error")
    assert fields_of(answer)["x-claude-proxy-reason"] == "credential-unavailable"
    assert there.stage.upstreams == []


@pytest.mark.parametrize(
    ("mode", "shape"),
    [
        (GatewayMode.STRICT, {"detail": "Internal server error"}),
        (GatewayMode.CLAUDE, {"type": "api_error"}),
    ],
)
def test_a_fault_of_ours_is_an_answer_without_a_trace(
    mode: GatewayMode, shape: dict[str, str]
) -> None:
    class Broken(Counts):
        def requests_since(self, moment_ns: int, credential: str) -> int:
            raise RuntimeError(PROMPT, moment_ns, credential)

    gateway = a_gateway(mode=mode, ceilings=Ceilings(requests_per_minute=1))
    there = play(gateway, counts=Broken())

    answer = there.stage.says(ask())

    value = content_of(answer)
    assert status_of(answer) == 500
    assert (value if mode is GatewayMode.STRICT else {"type": value["error"]["type"]}) == shape
    assert PROMPT.encode() not in answer
    assert there.stage.client.closed
    assert there.stage.upstreams == []


def test_a_fault_while_the_upstream_answers_lets_nothing_of_it_through() -> None:
    class Broken(SecretProvider):
        def answered(self, name: str, status: int) -> None:
            raise RuntimeError(name, status)

    there = play(custodian=Broken())
    there.stage.says(ask())

    answer = there.stage.answers(an_answer("200 OK", CANARY.encode()))

    assert api_error(answer) == (500, "api_error")
    assert CANARY.encode() not in answer
    assert there.stage.upstream.closed
    assert (there.ledger.last.status, there.ledger.last.error) == (500, "internal-error")


def test_a_fault_of_the_policys_is_an_answer_too() -> None:
    there = play(STRICT)
    there.stage.session.gate.policy = BrokenPolicy()

    answer = there.stage.says(ask())

    assert (status_of(answer), content_of(answer)) == (500, {"detail": "Internal server error"})
    assert there.ledger.reasons == ["internal-error"]


def test_a_fault_after_the_answers_beginning_ends_the_connection() -> None:
    there = play()
    there.stage.says(ask())
    there.stage.answers(an_answer("200 OK", b"x" * 10)[:-5])
    there.stage.session.gate = None  # type: ignore[assignment]

    with pytest.raises(AttributeError):
        there.stage.answers(b"x" * 5)


# --- an upstream that is not well

_FAILURES = [
    DialError(Failure.REFUSED, "127.0.0.1:8080 refuses connections"),
    DialError(Failure.UNRESOLVED, "no such name"),
    DialError(Failure.TIMEOUT, "no connection within 20 s"),
]


@pytest.mark.parametrize("error", _FAILURES)
def test_an_upstream_that_cannot_be_reached_is_said_to_be(error: DialError) -> None:
    there = play(connects=False)
    there.stage.says(ask())

    answer = there.stage.reached(error)

    wanted = (504, "timeout_error") if error.failure is Failure.TIMEOUT else (502, "api_error")
    assert api_error(answer) == wanted
    assert fields_of(answer)["x-claude-proxy-reason"] == error.failure.value


@pytest.mark.parametrize("error", _FAILURES)
def test_strict_mode_does_not_say_why_it_could_not_be_reached(error: DialError) -> None:
    there = play(STRICT, connects=False)
    there.stage.says(ask())

    answer = there.stage.reached(error)

    assert status_of(answer) == 502
    assert content_of(answer) == {
        "type": "error",
        "error": {"type": "proxy_error", "message": "Upstream request failed"},
    }
    assert "x-claude-proxy-reason" not in fields_of(answer)
    assert there.ledger.last.error == error.failure.value


@pytest.mark.parametrize(("mode", "status"), [(GatewayMode.CLAUDE, 504), (GatewayMode.STRICT, 502)])
def test_an_upstream_that_is_silent_is_not_waited_for(mode: GatewayMode, status: int) -> None:
    there = play(a_gateway(mode=mode))
    there.stage.says(ask())

    answer = there.stage.expires()

    assert status_of(answer) == status
    assert there.ledger.last.error == "upstream-timeout"
    assert there.stage.upstream.closed


@pytest.mark.parametrize("mode", GatewayMode)
def test_an_upstream_that_closes_without_an_answer_is_a_failure(mode: GatewayMode) -> None:
    there = play(a_gateway(mode=mode))
    there.stage.says(ask())

    answer = there.stage.upstream_ends()

    assert status_of(answer) == 502
    assert len(there.stage.upstreams) == 1


def test_claude_mode_breaks_off_what_the_upstream_breaks_off() -> None:
    there = play()
    there.stage.says(ask())
    there.stage.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevent\r\n"[:-3])

    assert b"0\r\n\r\n" not in there.stage.upstream_ends()
    assert there.stage.client.closed
    assert there.ledger.last.error == "upstream-cut-short"


# --- strict mode: the answer


def strict_answer(raw: bytes, *, gateway: Gateway = STRICT) -> bytes:
    """Return what the caller gets for what the upstream says."""
    there = play(gateway)
    there.stage.says(ask())
    return there.stage.answers(raw)


def test_strict_mode_passes_the_content_of_a_success_on_as_it_is() -> None:
    body = b'{ "content": [1.0],\n "a": "\\u00e9" }'

    answer = strict_answer(an_answer("200 OK", body, f"request-id: {CANARY}"))

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(END + body)
    assert CANARY.encode() not in answer


def test_strict_mode_sends_nothing_before_all_of_it_is_here() -> None:
    there = play(STRICT)
    there.stage.says(ask())
    raw = an_answer("200 OK", b'{"a":1}')

    before = [there.stage.answers(raw[at : at + 1]) for at in range(len(raw) - 1)]

    assert set(before) == {b""}
    assert content_of(there.stage.answers(raw[-1:])) == {"a": 1}


def test_strict_mode_passes_no_hint_on() -> None:
    there = play(STRICT)
    there.stage.says(ask())

    answer = there.stage.answers(f"HTTP/1.1 103 Hint\r\nLink: {CANARY}\r\n\r\n".encode())

    assert answer == b""


@pytest.mark.parametrize(("cut", "word"), [(-3, "upstream-cut-short"), (20, "upstream-closed")])
def test_strict_mode_makes_a_failure_of_half_an_answer(cut: int, word: str) -> None:
    there = play(STRICT)
    there.stage.says(ask())
    assert there.stage.answers(an_answer("200 OK", b'{"a":1}', f"x: {CANARY}")[:cut]) == b""

    answer = there.stage.upstream_ends()

    assert (status_of(answer), content_of(answer)["error"]["type"]) == (502, "proxy_error")
    assert CANARY.encode() not in answer
    assert there.ledger.last.error == word


def test_strict_mode_takes_an_answer_that_ends_with_its_connection() -> None:
    there = play(STRICT)
    there.stage.says(ask())
    assert there.stage.answers(b'HTTP/1.1 200 OK\r\n\r\n{"a":1}') == b""

    assert content_of(there.stage.upstream_ends()) == {"a": 1}


def test_strict_mode_bounds_what_it_keeps() -> None:
    there = play(replace(STRICT, answer_bytes=100))
    there.stage.says(ask())

    answer = there.stage.answers(an_answer("200 OK", b'"' + b"x" * 100 + b'"'))

    assert (status_of(answer), content_of(answer)["error"]["type"]) == (502, "proxy_error")
    assert there.ledger.last.error == "upstream-answer-too-large"
    assert there.stage.upstream.closed


def test_strict_mode_goes_on_after_an_error() -> None:
    there = play(STRICT)
    there.stage.says(ask())
    first = there.stage.answers(an_answer("429 Too Many", CANARY.encode(), "retry-after: 9"))
    there.stage.says(ask())
    second = there.stage.answers(an_answer())

    assert (status_of(first), status_of(second)) == (429, 200)
    assert "retry-after" not in fields_of(first)
    assert there.ledger.outcomes[0].status == 429


def test_strict_mode_records_the_status_that_its_caller_got() -> None:
    there = play(STRICT)
    there.stage.says(ask())

    there.stage.answers(an_answer("302 Found", b"", "Location: https://evil.test/"))

    assert there.ledger.last.status == 502


def test_retry_after_is_kept_for_whoever_wants_it() -> None:
    raw = an_answer("429 Too Many", b"{}", "retry-after: 9")

    answer = strict_answer(raw, gateway=replace(STRICT, keeps_retry_after=True))

    assert fields_of(answer)["retry-after"] == "9"


_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)


@given(
    # An interim answer is followed by another one, and is not waited for here.
    status=st.integers(300, 999),
    phrase=_TEXT,
    fields=st.lists(
        st.tuples(st.from_regex(r"[a-z][a-z-]{0,9}", fullmatch=True), _TEXT), max_size=4
    ),
    body=st.binary(max_size=60),
    chunked=st.booleans(),
)
def test_strict_mode_emits_no_byte_of_an_error(
    status: int, phrase: str, fields: list[tuple[str, str]], body: bytes, *, chunked: bool
) -> None:
    """Two providers that agree on the status and on nothing else cannot be told apart."""
    told = [f"x-{name}: {value}" for name, value in fields]
    raw = "\r\n".join([f"HTTP/1.1 {status} {phrase}", *told]).encode()
    if chunked:
        raw += b"\r\nTransfer-Encoding: chunked\r\n\r\n"
        raw += (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    else:
        raw += b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    answer = strict_answer(raw)

    plain = strict_answer(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
    assert [_without_connection(one) for one in (answer, plain)] == [_without_connection(plain)] * 2


def _without_connection(answer: bytes) -> bytes:
    return answer.replace(b"Connection: close", b"Connection: keep-alive")
