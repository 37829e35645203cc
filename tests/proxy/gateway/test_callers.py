"""Callers: the token opens the gateway, and a web page without it stays outside."""

import pytest

from claude_proxy.config.settings import Ceilings, GatewayMode
from tests.proxy.gateway.calls import (
    TOKEN,
    a_gateway,
    an_answer,
    api_error,
    ask,
    fields_of,
    play,
    status_of,
)


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


def test_a_caller_without_the_token_does_not_learn_what_is_served() -> None:
    there = play(token=TOKEN)

    assert status_of(there.stage.says(ask("GET", "/v1/files", body=b""))) == 401


@pytest.mark.parametrize("mode", GatewayMode)
@pytest.mark.parametrize("origin", ["https://evil.test", "http://localhost:9000", "null"])
def test_a_web_page_may_not_use_the_owners_key(mode: GatewayMode, origin: str) -> None:
    there = play(a_gateway(mode=mode))

    answer = there.stage.says(ask("POST", "/v1/messages", f"Origin: {origin}"))

    assert status_of(answer) == 403
    assert there.stage.upstreams == []
    assert there.ledger.reasons == ["client-not-allowed"]


@pytest.mark.parametrize(
    ("host", "fields"),
    [
        ("evil.test:9000", ()),  # the page's own name, re-resolved to this machine
        ("localhost.evil.test", ()),
        ("localhost", ("Sec-Fetch-Site: cross-site",)),  # an image
        ("127.0.0.1:9000", ("Sec-Fetch-Site: same-site",)),
    ],
)
def test_a_web_page_may_not_read_responses_either(host: str, fields: tuple[str, ...]) -> None:
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
