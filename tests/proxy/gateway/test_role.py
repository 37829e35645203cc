"""The gateway's role: what it serves, what leaves with which key, and what comes back."""

import json

import pytest

from claude_proxy.config.settings import Base, Ceilings, GatewayMode
from claude_proxy.policy.credentials.binding import Form, Injection
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.request import Scheme
from claude_proxy.proxy.dialer import DialError, Failure
from claude_proxy.proxy.layers.session import NO_ADDRESS
from claude_proxy.wire.authority import Authority
from tests.proxy.gateway.calls import (
    BODY,
    CANARY,
    END,
    FAILURES,
    KEY,
    PROMPT,
    STRICT,
    TOKEN,
    Counts,
    SecretProvider,
    a_gateway,
    an_answer,
    api_error,
    ask,
    content_of,
    fields_of,
    play,
    status_of,
)
from tests.proxy.layers.stage import BrokenPolicy
from tests.proxy.layers.stage import policy_of as listed

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


def test_the_path_of_the_base_comes_first() -> None:
    base = Base(Scheme.HTTP, Authority.of("127.0.0.1", 8080), "/api/anthropic")
    there = play(a_gateway(upstream=base))

    there.stage.says(ask("POST", "/v1/messages?beta=true"))

    assert there.stage.upstream.take().startswith(b"POST /api/anthropic/v1/messages?beta=true ")


@pytest.mark.parametrize(
    "host", ["localhost", "gateway.internal:1", "evil.test", "api.anthropic.com"]
)
@pytest.mark.parametrize("way_in", ["unix", "token"])
def test_any_host_is_accepted_and_none_is_trusted(host: str, way_in: str) -> None:
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


def test_a_connection_serves_many_calls() -> None:
    there = play()

    for _ in range(3):
        there.stage.says(ask())
        assert status_of(there.stage.answers(an_answer())) == 200
        assert status_of(there.stage.says(ask("GET", "/health", body=b""))) == 200

    assert len(there.stage.upstreams) == 1
    assert not there.stage.client.closed


def test_the_secret_provider_learns_how_the_key_was_received() -> None:
    there = play()
    there.stage.says(ask())

    there.stage.answers(an_answer("401 Unauthorized"))

    assert there.custodian.statuses == [401]


def test_an_answer_that_holds_the_key_is_cut_off() -> None:
    there = play()
    there.stage.says(ask())

    answer = there.stage.answers(an_answer("200 OK", KEY.encode()))

    assert KEY.encode() not in answer
    assert there.stage.client.closed
    assert there.ledger.last.error == "credential-echoed"


# --- what is not served


def test_head_is_answered_without_content() -> None:
    answer = play(STRICT).stage.says(ask("HEAD", "/v1/messages", body=b""))

    assert status_of(answer) == 405
    assert fields_of(answer)["allow"] == "POST"
    assert answer.endswith(END)


@pytest.mark.parametrize("mode", GatewayMode)
def test_the_health_check_needs_no_token_and_is_not_recorded(mode: GatewayMode) -> None:
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


def test_tls_to_a_gateway_is_answered_by_an_alert(caplog: pytest.LogCaptureFixture) -> None:
    there = play()

    answer = there.stage.says(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")

    assert answer == b"\x15\x03\x03\x00\x02\x02\x31"
    assert there.stage.client.closed
    assert there.ledger.reasons == ["tls-to-proxy"]
    assert "a client speaks TLS to the gateway: its URL must begin with http://" in caplog.text


def test_a_websocket_is_refused() -> None:
    there = play()

    answer = there.stage.says(
        ask("GET", "/v1/models", "Connection: Upgrade", "Upgrade: websocket", body=b"")
    )

    assert api_error(answer) == (403, "permission_error")
    assert there.stage.upstreams == []


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


def test_a_caller_that_expects_100_continue_gets_it() -> None:
    there = play()
    asked = ask("POST", "/v1/messages", "Expect: 100-continue")
    head, _, body = asked.partition(END)

    assert there.stage.says(head + END) == b"HTTP/1.1 100 Continue\r\n\r\n"
    there.stage.says(body)

    assert b"expect" not in there.stage.upstream.take().lower()


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    there = play()
    there.stage.says(ask()[:-5])

    answer = there.stage.expires()

    assert api_error(answer)[0] == 408
    assert there.stage.upstreams == []


# --- tokens under way


def test_a_call_reserves_what_it_may_use_until_it_has_ended() -> None:
    counts = Counts()
    there = play(a_gateway(ceilings=Ceilings(tokens_per_day=1000)), counts=counts)

    there.stage.says(ask())

    [reserved] = counts.reserved.values()
    assert reserved.tokens_out == 5
    assert reserved.tokens_in >= len(BODY) // 4


def test_a_second_call_finds_the_tokens_of_the_first_reserved() -> None:
    counts = Counts()
    gateway = a_gateway(ceilings=Ceilings(tokens_per_day=6))
    first, second = play(gateway, counts=counts), play(gateway, counts=counts)
    # Both heads are here before either body: at the head there was enough for each.
    first.stage.says(ask()[:-5])
    second.stage.says(ask()[:-5])

    first.stage.says(ask()[-5:])
    answer = second.stage.says(ask()[-5:])

    assert api_error(answer) == (429, "rate_limit_error")
    assert fields_of(answer)["retry-after"] == "5"
    assert fields_of(answer)["x-claude-proxy-reason"] == "ceiling-reached"
    assert second.ledger.reasons == ["rule-matched", "ceiling-reached"]
    assert second.stage.upstreams == []
    assert len(first.stage.upstreams) == 1


def test_counting_tokens_reserves_none() -> None:
    counts = Counts()
    there = play(a_gateway(ceilings=Ceilings(tokens_per_day=1000)), counts=counts)

    there.stage.says(ask(target="/v1/messages/count_tokens"))

    assert counts.reserved == {}
    assert len(there.stage.upstreams) == 1


def test_an_answer_that_the_client_breaks_off_is_counted() -> None:
    there = play(a_gateway(ceilings=Ceilings(tokens_per_day=1000)), counts=Counts())
    there.stage.says(ask())
    text = b'data: {"type":"content_block_delta","delta":{"text":"' + b"word " * 400 + b'"}}\n\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    there.stage.answers(head + text)

    there.stage.client_goes()

    usage = there.ledger.last.usage
    assert usage is not None
    assert usage.tokens_out >= 400
    assert usage.tokens_in >= 1


def test_a_client_that_leaves_before_the_answer_has_used_what_it_reserved() -> None:
    counts = Counts()
    there = play(a_gateway(ceilings=Ceilings(tokens_per_day=1000)), counts=counts)
    there.stage.says(ask())

    there.stage.client_goes()

    assert there.ledger.last.usage in counts.reserved.values()


def test_a_call_that_was_not_sent_has_used_nothing() -> None:
    there = play(a_gateway(ceilings=Ceilings(tokens_per_day=1000)), counts=Counts(), connects=False)
    there.stage.says(ask())

    there.stage.reached(FAILURES[0])

    assert there.ledger.last.usage is None


# --- the policy


def test_a_deny_rule_holds_for_the_gateway_too() -> None:
    policy = listed("deny: ['10.0.0.0/8', '127.0.0.0/8']")
    there = play(policy=policy)

    answer = there.stage.says(ask())

    assert api_error(answer) == (403, "permission_error")
    assert fields_of(answer)["x-claude-proxy-reason"] == "deny-rule"
    assert there.stage.upstreams == []


def test_an_unavailable_key_denies() -> None:
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
def test_an_internal_error_is_a_response_that_repeats_nothing(
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


def test_an_internal_error_while_the_upstream_responds_lets_nothing_through() -> None:
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


def test_an_error_in_the_policy_is_a_response_too() -> None:
    there = play(STRICT)
    there.stage.session.gate.policy = BrokenPolicy()

    answer = there.stage.says(ask())

    assert (status_of(answer), content_of(answer)) == (500, {"detail": "Internal server error"})
    assert there.ledger.reasons == ["internal-error"]


def test_an_internal_error_after_the_response_began_ends_the_connection() -> None:
    there = play()
    there.stage.says(ask())
    there.stage.answers(an_answer("200 OK", b"x" * 10)[:-5])
    there.stage.session.gate = None  # type: ignore[assignment]

    with pytest.raises(AttributeError):
        there.stage.answers(b"x" * 5)


# --- failing upstreams


@pytest.mark.parametrize("error", FAILURES)
def test_an_unreachable_upstream_is_named_as_the_reason(error: DialError) -> None:
    there = play(connects=False)
    there.stage.says(ask())

    answer = there.stage.reached(error)

    wanted = (504, "timeout_error") if error.failure is Failure.TIMEOUT else (502, "api_error")
    assert api_error(answer) == wanted
    assert fields_of(answer)["x-claude-proxy-reason"] == error.failure.value


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
