"""The proxy's own responses say what an agent can act on, and reveal no rule."""

import itertools
import json
import shlex

import h11
import pytest

from claude_proxy.config.allowlist.edit import AllowEntry
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.proxy.responses import (
    Refusal,
    bad_request,
    denial,
    denial_of_request,
    denial_of_tunnel,
    sentence,
    too_large,
    unreachable,
    wants_json,
)
from claude_proxy.wire.authority import Authority

EVIL = Authority.of("evil.example", 443)


def read(answer: bytes, method: str = "GET") -> tuple[h11.Response, bytes]:
    """Read a response as a client would."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "evil.example")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    head = client.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    return head, body


def fields(head: h11.Response) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in head.headers}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_in_the_phrase_the_field_and_the_body(reason: Reason) -> None:
    answer = denial(reason.value, "GET https://evil.example/", EVIL).http1(close=False)

    head, body = read(answer)
    assert head.status_code == 403
    assert head.reason.decode() == f"Denied by claude-proxy ({reason.value})"
    assert fields(head)["x-claude-proxy-reason"] == reason.value
    assert f"reason: {reason.value}\n" in body.decode()


def test_a_denial_says_what_was_denied_and_what_to_do() -> None:
    _, body = read(denial("no-rule", "GET https://evil.example/", EVIL).http1(close=True))

    assert body.decode() == (
        "Denied by claude-proxy: GET https://evil.example/\n"
        "reason: no-rule\n"
        "No rule of the allowlist covers this host.\n"
        "Retrying is useless: this is policy, not a network error.\n"
        "If you need it, ask the owner of this machine to run, outside the sandbox:\n"
        "  claude-proxy allow evil.example\n"
    )


@pytest.mark.parametrize(
    "reason", ["audit-failed", "internal-error", "ca-unusable", "credential-unavailable"]
)
def test_a_fault_of_the_proxys_machine_is_not_said_to_be_policy(reason: str) -> None:
    refusal = denial(reason, "GET https://evil.example/", EVIL)

    _, body = read(refusal.http1(close=True))

    assert "retrying may work later" in body.decode()
    assert "useless" not in body.decode()
    assert refusal.retry


def test_a_client_that_prefers_json_gets_the_same_as_json() -> None:
    refusal = denial("no-rule", "GET https://evil.example/", EVIL)

    head, body = read(refusal.http1(accept=b"application/json", close=True))

    assert fields(head)["content-type"] == "application/json"
    assert json.loads(body) == {
        "type": "error",
        "message": (
            "Denied by claude-proxy (no-rule): No rule of the allowlist covers this host. "
            "The owner of this machine can allow it: claude-proxy allow evil.example"
        ),
        "error": {
            "type": "denied_by_claude_proxy",
            "reason": "no-rule",
            "message": "No rule of the allowlist covers this host.",
            "request": "GET https://evil.example/",
            "retry": False,
            "allow_command": "claude-proxy allow evil.example",
        },
    }


MCP = b"application/json, text/event-stream"


@pytest.mark.parametrize(
    ("method", "accept", "status"),
    [
        ("POST", MCP, 451),
        ("POST", b"text/event-stream, application/json", 451),
        ("GET", MCP, 403),
        ("POST", b"application/json", 403),
        ("POST", b"text/event-stream", 403),
        ("POST", b"*/*", 403),
    ],
)
def test_a_client_of_mcp_is_denied_by_a_status_that_asks_for_no_login(
    method: str, accept: bytes, status: int
) -> None:
    host = Authority.of("mcp.example", 443)
    request = Request(Scheme.HTTPS, host, host, method, "/mcp", "", [(b"Accept", accept)])

    refusal = denial_of_request("method-not-allowed", "POST https://mcp.example/mcp", request)

    assert refusal.status == status
    head, body = read(refusal.http1(accept=MCP, close=False), method)
    assert head.reason == b"Denied by claude-proxy (method-not-allowed)"
    assert json.loads(body)["message"].startswith("Denied by claude-proxy (method-not-allowed): ")
    assert json.loads(body)["error"]["type"] == "denied_by_claude_proxy"


def test_a_push_is_denied_as_one_where_it_begins() -> None:
    host = Authority.of("git.example", 443)
    query = "service=git-receive-pack"
    request = Request(Scheme.HTTPS, host, host, "GET", "/o/r.git/info/refs", query)

    refusal = denial_of_request("method-not-allowed", "GET https://git.example/", request)

    assert refusal.explanation == "Pushing to this repository is not allowed."


@pytest.mark.parametrize(
    "refusal",
    [
        unreachable("connect-refused", "It refuses.", "GET https://a.test/", timed_out=False),
        bad_request("the request line is malformed"),
        denial("sni-missing", "CONNECT a.test:443", None),
        too_large("POST https://a.test/"),
    ],
)
def test_every_refusal_in_json_says_why_in_its_message(refusal: Refusal) -> None:
    verb = "Denied" if refusal.status == 403 else "Failed"

    message = json.loads(refusal.body(as_json=True))["message"]

    assert message == f"{verb} by claude-proxy ({refusal.reason}): {refusal.explanation}"


@pytest.mark.parametrize(
    ("accept", "json_wanted"),
    [
        (None, False),
        (b"", False),
        (b"*/*", False),
        (b"application/json", True),
        (b"Application/JSON, */*", True),
        (b"application/vnd.github+json", True),
        (b"text/html, application/json", False),
        (b"text/plain, application/json;q=0.5", False),
    ],
)
def test_json_is_sent_only_to_clients_that_prefer_it(
    accept: bytes | None, *, json_wanted: bool
) -> None:
    assert wants_json(accept) is json_wanted


@pytest.mark.parametrize(
    ("target", "scheme", "entry"),
    [
        ("evil.example:443", Scheme.HTTPS, "evil.example"),
        ("evil.example:8443", Scheme.HTTPS, "evil.example:8443"),
        ("evil.example:80", Scheme.HTTP, "http://evil.example"),
        ("evil.example:443", Scheme.HTTP, "http://evil.example:443"),
        ("[2001:db8::1]:443", Scheme.HTTPS, "'[2001:db8::1]'"),
        ("[2001:db8::1]:80", Scheme.HTTP, "'http://[2001:db8::1]'"),
    ],
)
def test_the_command_allows_just_what_was_requested(
    target: str, scheme: Scheme, entry: str
) -> None:
    refusal = denial("no-rule", "asked", Authority.parse(target), scheme)

    assert refusal.command == f"claude-proxy allow {entry}"
    (spelled,) = shlex.split(entry)
    allowed = AllowEntry.parse(spelled)
    assert Authority.of(allowed.host, allowed.port) == Authority.parse(target)
    assert allowed.scheme is scheme


@pytest.mark.parametrize("reason", ["deny-rule", "address-not-allowed", "audit-failed"])
def test_no_command_is_named_that_would_not_help(reason: str) -> None:
    assert denial(reason, "asked", EVIL).command is None


def test_a_denied_method_is_advised_with_its_method_and_path() -> None:
    request = Request(Scheme.HTTPS, EVIL, EVIL, "POST", "/graphql")

    refusal = denial_of_request("method-not-allowed", "asked", request)

    assert refusal.command == "claude-proxy allow evil.example --method POST --path /graphql"


@pytest.mark.parametrize("target", ["127.0.0.1:8000", "localhost:8000", "[::1]:80"])
def test_this_machine_is_said_to_be_reached_without_the_proxy(target: str) -> None:
    refusal = denial("no-rule", "asked", Authority.parse(target), Scheme.HTTP)

    assert refusal.command is None
    assert "reach it without the proxy" in refusal.explanation


def test_no_command_is_named_without_a_host() -> None:
    assert denial("no-rule", "asked", None).command is None


def test_the_response_to_head_gives_the_length_and_has_no_body() -> None:
    refusal = denial("no-rule", "asked", EVIL)
    answer = refusal.http1(head_only=True, close=False)

    head, body = read(answer, "HEAD")

    assert body == b""
    assert fields(head)["content-length"] == str(len(refusal.body(as_json=False)))


@pytest.mark.parametrize(("close", "said"), [(True, "close"), (False, "keep-alive")])
def test_a_response_says_whether_the_connection_goes_on(*, close: bool, said: str) -> None:
    head, _ = read(denial("no-rule", "asked", EVIL).http1(close=close))

    assert fields(head)["connection"] == said


def test_nothing_in_a_request_can_break_the_response() -> None:
    refusal = denial("no-rule", "GET https://evil.example/\u202e\U0001f600", EVIL)

    _, body = read(refusal.http1(close=True))

    assert body.isascii()
    assert b"\\u202e\\U0001f600" in body


@pytest.mark.parametrize(("status", "answered"), [(400, 400), (408, 408), (431, 400), (505, 400)])
def test_a_malformed_message_is_a_bad_request(status: int, answered: int) -> None:
    head, body = read(bad_request("the request has several Host fields", status).http1(close=True))

    assert head.status_code == answered
    assert body.decode() == (
        "Failed by claude-proxy.\nreason: bad-request\nThe request has several Host fields.\n"
    )


@pytest.mark.parametrize(("timed_out", "status"), [(True, 504), (False, 502)])
def test_an_unreachable_upstream_is_worth_a_retry(*, timed_out: bool, status: int) -> None:
    refusal = unreachable("connect-refused", "It refuses.", "asked", timed_out=timed_out)

    head, body = read(refusal.http1(accept=b"application/json", close=True))

    error = json.loads(body)["error"]
    assert head.status_code == status
    assert (error["type"], error["retry"]) == ("claude_proxy_error", True)


@pytest.mark.parametrize("status", [400, 403, 408, 502, 503, 504])
def test_every_status_has_a_phrase(status: int) -> None:
    head, _ = read(Refusal(status, "reason", "Why.").http1(close=True))

    assert head.reason.decode().endswith(" (reason)")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("the upstream did not answer", "The upstream did not answer."),
        ("github.com:443 refuses connections", "github.com:443 refuses connections."),
        ("[2001:db8::1]:443 cannot be reached", "[2001:db8::1]:443 cannot be reached."),
        ('"a" has no port', '"a" has no port.'),
    ],
)
def test_a_sentence_begins_with_a_capital_unless_it_begins_with_a_name(
    text: str, shown: str
) -> None:
    assert sentence(text) == shown


def test_the_command_names_the_policy_that_is_in_force() -> None:
    refusal = denial("no-rule", "asked", EVIL)

    assert refusal.naming(("--policy", "acme")).command == (
        "claude-proxy allow evil.example --policy acme"
    )
    assert refusal.naming(()) is refusal
    assert denial("deny-rule", "asked", EVIL).naming(("--policy", "acme")).command is None


def test_a_denied_tunnel_is_answered_as_a_denial_is_however_often_it_is_repeated() -> None:
    options = ("--policy", "acme")

    for reason, own in ((Reason.NO_RULE, False), (Reason.ADDRESS_NOT_ALLOWED, True)) * 2:
        denied = denial_of_tunnel(reason, EVIL, Scheme.HTTPS, is_own=own, options=options)

        made = denial(reason.value, f"CONNECT {EVIL}", EVIL, is_own=own).naming(options)
        assert denied == made
        for accept, close in itertools.product((None, b"application/json"), (True, False)):
            again = made.http1(accept=accept, close=close)
            assert denied.http1(accept=accept, close=close) == again
            assert made.body(as_json=accept is not None) in again


def test_an_endless_label_is_rendered_and_not_remembered() -> None:
    label = "GET https://a.test/" + "a" * 100_000

    assert label.encode() in denial("no-rule", label, EVIL).http1(close=True)
