"""The proxy's role on HTTP/1.1: which target a request has, and how it looks upstream."""

import pytest

from claude_proxy.config.settings import UpstreamProxy
from claude_proxy.wire.authority import Authority
from tests.proxy.layers.http1_peers import EXAMPLE, GET, OTHER, PlayForward, reason_of, statuses
from tests.proxy.layers.stage import Ledger, Stage


@pytest.fixture
def stage(forward: PlayForward) -> Stage:
    return forward()


# --- one request


@pytest.mark.parametrize(("record_query", "path"), [(False, "/a"), (True, "/a?secret=1")])
def test_a_query_is_recorded_only_if_the_owner_asked(
    forward: PlayForward, ledger: Ledger, *, record_query: bool, path: str
) -> None:
    stage = forward(record_query=record_query)

    stage.says(b"GET http://example.com/a?secret=1 HTTP/1.1\r\nHost: example.com\r\n\r\n")

    assert ledger.decisions[0].path == path


# --- denials


@pytest.mark.parametrize(
    ("request_line", "host", "reason"),
    [
        (b"GET http://example.com/", b"evil.example", "host-mismatch"),
        (b"GET http://example.com/", b"example.com:8080", "host-mismatch"),
        (b"GET http://evil.example/", b"example.com", "host-mismatch"),
        (b"GET http://example.com:8080/", b"example.com:8080", "port-not-allowed"),
        (b"TRACE http://example.com/", b"example.com", "method-refused"),
        (b"DELETE http://read.example/", b"read.example", "method-not-allowed"),
        (b"GET http://part.example/no", b"part.example", "path-not-allowed"),
        (b"GET http://part.example/ok/../no", b"part.example", "ambiguous-path"),
        (b"GET /", b"example.com", "proxy-loop"),
        (b"OPTIONS *", b"example.com", "proxy-loop"),
        (b"CONNECT example.com:443", b"example.com:443", "proxy-loop"),
    ],
)
def test_a_request_that_no_rule_allows_is_not_forwarded(
    stage: Stage, ledger: Ledger, request_line: bytes, host: bytes, reason: str
) -> None:
    answer = stage.says(request_line + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")

    assert (statuses(answer), reason_of(answer)) == ([403], reason)
    assert ledger.reasons == [reason]
    assert stage.upstreams == []


def test_a_host_field_with_the_default_port_agrees(stage: Stage) -> None:
    stage.says(b"GET http://example.com/ HTTP/1.1\r\nHost: EXAMPLE.com.:80\r\n\r\n")

    assert stage.upstream.take() == b"GET / HTTP/1.1\r\nHost: EXAMPLE.com.:80\r\n\r\n"


@pytest.mark.parametrize(
    ("url", "host", "scheme", "target"),
    [
        ("https://example.com/", "example.com", "https", "example.com:443"),
        ("HTTPS://example.com:8443/a?b", "example.com", "https", "example.com:8443"),
        ("ftp://example.com/", "example.com", "ftp", "example.com"),
        ("http://127.1/", "127.1", "http", "127.1"),
        ("http://example.com/", "example..com", "http", "example.com:80"),
        ("http://example.com:0/", "example.com", "http", "example.com:0"),
    ],
)
def test_a_target_that_cannot_be_used_is_a_bad_request_and_recorded_as_sent(
    stage: Stage, ledger: Ledger, url: str, host: str, scheme: str, target: str
) -> None:
    answer = stage.says(f"GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    assert (statuses(answer), reason_of(answer)) == ([400], "bad-request")
    assert stage.client.closed
    (decision,) = ledger.decisions
    assert decision.reason == "bad-request"
    assert (decision.scheme, decision.target) == (scheme, target)
    assert stage.upstreams == []


@pytest.mark.parametrize("url", ["https://example.com/a", "http://other.example/a"])
def test_absolute_form_inside_a_tunnel_is_a_bad_request_and_recorded_as_sent(
    forward: PlayForward, ledger: Ledger, url: str
) -> None:
    stage = forward(target=EXAMPLE)

    answer = stage.says(f"GET {url} HTTP/1.1\r\nHost: example.com\r\n\r\n".encode())

    assert (statuses(answer), reason_of(answer)) == ([400], "bad-request")
    (decision,) = ledger.decisions
    assert f"{decision.scheme}://{decision.target.rpartition(':')[0]}{decision.path}" == url
    assert decision.reason == "bad-request"


# --- upgrades


@pytest.mark.parametrize("upgrade", [b"h2c", b"TLS/1.0", b"foo"])
def test_an_upgrade_to_anything_else_is_denied(stage: Stage, upgrade: bytes) -> None:
    answer = stage.says(
        b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n"
        b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"
        b"Upgrade: " + upgrade + b"\r\n\r\n"
    )

    assert (statuses(answer), reason_of(answer)) == ([403], "upgrade-refused")
    assert stage.upstreams == []


# --- HTTP/1.0


def test_http_1_0_may_come_without_a_host_and_goes_up_with_one(stage: Stage) -> None:
    stage.says(b"GET http://example.com/ HTTP/1.0\r\n\r\n")

    assert stage.upstream.take() == b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"


# --- inside a plain tunnel


def test_a_tunnel_for_plain_http_takes_origin_form(forward: PlayForward) -> None:
    stage = forward(target=EXAMPLE)

    stage.says(b"GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n")

    assert stage.upstream.take() == b"GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n"


def test_http_1_0_without_a_host_means_the_tunnels_target(forward: PlayForward) -> None:
    stage = forward(target=EXAMPLE)

    stage.says(b"GET /a HTTP/1.0\r\n\r\n")

    assert stage.upstream.take() == b"GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n"


@pytest.mark.parametrize(
    "line", [b"GET http://example.com/", b"GET http://evil.example/", b"CONNECT example.com:80"]
)
def test_inside_a_tunnel_no_request_names_its_own_host(forward: PlayForward, line: bytes) -> None:
    stage = forward(target=EXAMPLE)

    answer = stage.says(line + b" HTTP/1.1\r\nHost: example.com\r\n\r\n")

    assert statuses(answer) == [400]
    assert stage.client.closed
    assert stage.upstreams == []


def test_inside_a_tunnel_the_host_field_is_the_target(forward: PlayForward) -> None:
    stage = forward(target=EXAMPLE)

    answer = stage.says(b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")

    assert reason_of(answer) == "host-mismatch"
    assert stage.upstreams == []


# --- through an upstream proxy


CORPORATE = UpstreamProxy(Authority.of("proxy.corp", 3128), "user:password", ("other.example",))


def test_a_request_through_an_upstream_proxy_keeps_absolute_form(forward: PlayForward) -> None:
    stage = forward(upstream_proxy=CORPORATE)

    stage.says(GET)

    assert stage.upstream.take() == (
        b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n"
        b"Proxy-Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n\r\n"
    )


def test_an_upstream_proxy_without_a_password_gets_none(forward: PlayForward) -> None:
    stage = forward(upstream_proxy=UpstreamProxy(CORPORATE.authority))

    stage.says(GET)

    assert b"Authorization" not in stage.upstream.take()


@pytest.mark.parametrize("credentials", [None, "user:password"])
def test_a_login_that_an_upstream_proxy_demands_never_reaches_the_client(
    forward: PlayForward, ledger: Ledger, credentials: str | None
) -> None:
    stage = forward(upstream_proxy=UpstreamProxy(CORPORATE.authority, credentials))
    stage.says(GET)

    answer = stage.answers(
        b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\n"
        b"Content-Length: 6\r\n\r\nlogin!"
    )

    assert (statuses(answer), reason_of(answer)) == ([502], "upstream-proxy-failed")
    assert b"407 (it asks for Negotiate)" in answer
    assert b"login!" not in answer
    assert b"Proxy-Authenticate" not in answer
    assert stage.upstream.closed
    assert ledger.outcomes[-1].error == "upstream-proxy-failed"


def test_a_407_of_an_origin_is_its_answer(forward: PlayForward) -> None:
    stage = forward(upstream_proxy=CORPORATE)
    stage.says(OTHER)

    assert statuses(stage.answers(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")) == [407]


def test_an_exception_goes_past_the_upstream_proxy(forward: PlayForward) -> None:
    stage = forward(upstream_proxy=CORPORATE)

    stage.says(OTHER)

    assert stage.upstream.take().startswith(b"GET / HTTP/1.1\r\n")


def test_the_options_of_a_whole_server_have_no_path_at_an_upstream_proxy(
    forward: PlayForward,
) -> None:
    stage = forward(upstream_proxy=CORPORATE)

    stage.says(b"OPTIONS http://example.com HTTP/1.1\r\nHost: example.com\r\n\r\n")

    assert stage.upstream.take().startswith(b"OPTIONS http://example.com HTTP/1.1\r\n")


def test_a_foreign_port_stays_in_the_host_field(forward: PlayForward) -> None:
    stage = forward("allow: [{host: example.com, scheme: http, ports: [8080]}]")

    stage.says(b"GET http://example.com:8080/ HTTP/1.0\r\n\r\n")

    assert stage.upstream.take() == b"GET / HTTP/1.1\r\nHost: example.com:8080\r\n\r\n"
