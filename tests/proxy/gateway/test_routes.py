"""What a gateway serves is a short table; everything else is not there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.settings import GatewayMode
from claude_proxy.proxy.gateway.routes import NotServed, Route, route_of

CLAUDE, STRICT = GatewayMode.CLAUDE, GatewayMode.STRICT


@pytest.mark.parametrize("mode", GatewayMode)
def test_a_message_may_be_posted_in_both_modes(mode: GatewayMode) -> None:
    assert route_of(mode, "POST", "/v1/messages") is Route.MESSAGES


@pytest.mark.parametrize(
    "method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND"]
)
@pytest.mark.parametrize("mode", GatewayMode)
def test_another_method_on_the_messages_is_not_allowed(mode: GatewayMode, method: str) -> None:
    missed = route_of(mode, method, "/v1/messages")

    assert missed == NotServed(("POST",))
    assert missed.status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/completions",
        "/v1/messages/",
        "//v1/messages",
        "/v1//messages",
        "/V1/messages",
        "/v1/messages/count_tokens",
        "/v1/messages/batches",
        "/v1/models",
        "/v1/files",
        "/docs",
        "/redoc",
        "/openapi.json",
        "*",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_strict_mode_has_no_other_path(method: str, path: str) -> None:
    missed = route_of(STRICT, method, path)

    assert missed == NotServed()
    assert missed.status == 404


@pytest.mark.parametrize("mode", GatewayMode)
def test_the_health_is_told_in_both_modes(mode: GatewayMode) -> None:
    assert route_of(mode, "GET", "/health") is Route.HEALTH
    assert route_of(mode, "POST", "/health") == NotServed(("GET", "HEAD"))
    assert not Route.HEALTH.forwarded


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/v1/messages/count_tokens", Route.COUNT_TOKENS),
        ("GET", "/v1/models", Route.MODELS),
        ("GET", "/v1/models/claude-sonnet-4-5@20250929", Route.MODELS),
        ("HEAD", "/", Route.HELLO),
    ],
)
def test_what_claude_code_asks_is_served(method: str, path: str, route: Route) -> None:
    assert route_of(CLAUDE, method, path) is route


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/",
        "/v1/models/..",
        "/v1/models/.",
        "/v1/models/a/b",
        "/v1/models/a%2Fb",
        "/v1/models/a;b",
        "/v1/messages/batches",
        "/v1/messages/count_tokens/",
        "/v1/files",
        "/v1/skills",
        "/api/hello",
        "/openapi.json",
    ],
)
def test_claude_mode_has_no_other_path(path: str) -> None:
    assert {route_of(CLAUDE, method, path) for method in ("GET", "POST")} == {NotServed()}


@given(
    st.sampled_from(GatewayMode),
    st.sampled_from(["GET", "POST", "HEAD", "DELETE"]),
    st.text(st.sampled_from("/v1mesag.%-_2eEfF"), max_size=24),
)
def test_what_is_forwarded_is_named_by_the_table(mode: GatewayMode, method: str, path: str) -> None:
    route = route_of(mode, method, path)

    if isinstance(route, Route) and route.forwarded:
        assert path.startswith(("/v1/messages", "/v1/models"))
        assert "//" not in path
        assert "%" not in path
