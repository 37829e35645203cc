"""The laws of one exchange over HTTP/2: judged again before it leaves, ended once, never mixed."""

import pytest

from tests.proxy.layers.http2_peers import Http2Client, Http2Origin, pseudo
from tests.proxy.layers.http2_world import Http2World
from tests.proxy.layers.stage import Ledger, Stage, gate_of

KEPT = """
allow: [api.anthropic.com]
anthropic:
  - {host: api.anthropic.com, models: ["claude-*"]}
"""
MESSAGES = pseudo("POST", "/v1/messages", "api.anthropic.com")
JSON = ("content-type", "application/json")


@pytest.fixture
def stage(http2_world: Http2World) -> Stage:
    return http2_world.play()


@pytest.fixture
def client(stage: Stage) -> Http2Client:
    return Http2Client(stage)


def test_a_body_that_was_held_goes_with_the_head_once_it_is_judged(
    http2_world: Http2World, ledger: Ledger
) -> None:
    stage = http2_world.play("api.anthropic.com", gate=gate_of(KEPT, ledger))
    client = Http2Client(stage)
    asked = client.ask(*MESSAGES, JSON, ("expect", "100-continue"), end=False)
    continues = client.messages[asked].interim
    client.sends(asked, b'{"model": "claude-x",')
    before = len(stage.upstreams)
    client.sends(asked, b' "max_tokens": 1, "messages": []}', end=True)
    origin = Http2Origin(http2_world.serve(stage, "api.anthropic.com", "h2"), client)

    assert continues == {":status": "100"}
    assert before == 0
    assert origin.messages[1].body == b'{"model": "claude-x", "max_tokens": 1, "messages": []}'
    assert origin.messages[1].over
    assert "expect" not in origin.messages[1].fields


def test_a_body_that_is_denied_reaches_nobody(http2_world: Http2World, ledger: Ledger) -> None:
    stage = http2_world.play("api.anthropic.com", gate=gate_of(KEPT, ledger))
    client = Http2Client(stage)

    asked = client.ask(*MESSAGES, JSON, body=b'{"model": "gpt", "max_tokens": 1, "messages": []}')

    assert client.messages[asked].status == 403
    assert stage.upstreams == []


def test_a_long_body_is_judged_in_another_thread_and_the_others_go_on(
    http2_world: Http2World, ledger: Ledger
) -> None:
    stage = http2_world.play("api.anthropic.com", gate=gate_of(KEPT, ledger))
    client = Http2Client(stage)
    stage.runs_apart = False
    long = b'{"model": "gpt", "messages": [' + b",".join([b'""'] * 5000) + b"]}"
    asked = client.ask(*MESSAGES, JSON, end=False)
    client.sends(asked, long, end=True)
    other = client.ask(*MESSAGES, JSON, body=b'{"model": "gpt", "max_tokens": 1, "messages": []}')
    before = [bool(client.messages[number].fields) for number in (asked, other)]
    stage.run_apart()
    client.pump(stage.says(b""))

    assert before == [False, True]
    assert client.messages[asked].status == 403


def test_a_request_that_is_reset_while_it_is_judged_goes_nowhere(
    http2_world: Http2World, ledger: Ledger
) -> None:
    stage = http2_world.play("api.anthropic.com", gate=gate_of(KEPT, ledger))
    client = Http2Client(stage)
    stage.runs_apart = False
    asked = client.ask(*MESSAGES, JSON, body=b"[" + b",".join([b'""'] * 5000) + b"]")
    client.h2.reset_stream(asked)
    client.pump()
    stage.run_apart()
    stage.says(b"")

    assert stage.upstreams == []
    assert [outcome.error for outcome in ledger.outcomes] == ["stream-broken-off"]


def test_trailers_that_are_no_trailers_end_the_request(client: Http2Client, ledger: Ledger) -> None:
    asked = client.ask(*pseudo("POST"), end=False)
    client.h2.send_headers(asked, [("x y", "1")], end_stream=True)
    client.pump()

    assert client.messages[asked].reason == "bad-request"
    assert ledger.last.error == "bad-request-body"


def test_each_end_is_recorded_once(client: Http2Client, stage: Stage, ledger: Ledger) -> None:
    for _ in range(3):
        client.get()
    client.h2.reset_stream(1)
    client.pump()
    stage.client_goes()

    assert len(ledger.outcomes) == len(ledger.decisions) == 3
