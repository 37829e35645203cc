"""A gateway's connection begins with what a relay says about its client, if it says anything."""

from claude_proxy.proxy.gateway.layer import UNKNOWN_CALLER
from tests.proxy.gateway.calls import api_error, ask, fields_of, play, status_of


def test_a_relay_may_say_for_whom_it_connects() -> None:
    there = play(local=True)
    announced = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00" + b"\x00\x00"

    there.stage.says(announced + ask())

    assert there.stage.upstream.take().startswith(b"POST /v1/messages ")


def test_a_gateway_speaks_http_1_1_alone() -> None:
    there = play()

    answer = there.stage.says(b"\x05\x01\x00")

    assert (status_of(answer), there.stage.client.closed) == (400, True)


def test_a_client_that_is_not_admitted_gets_an_error_of_the_api() -> None:
    assert api_error(UNKNOWN_CALLER) == (401, "authentication_error")
    assert fields_of(UNKNOWN_CALLER)["x-claude-proxy-reason"] == "client-not-allowed"
    assert fields_of(UNKNOWN_CALLER)["connection"] == "close"
