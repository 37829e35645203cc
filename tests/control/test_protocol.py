"""What goes over the control socket: bounded lines, and refusals that keep their three parts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.control import protocol
from claude_proxy.control.protocol import ControlError, ProxyFacts
from claude_proxy.errors import ConfigError

FACTS = ProxyFacts("web", "run", 7, 1.5, 1, "web", "sh", "/code", ("unix:/a",), "/state", "/conf")


def test_a_request_arrives_as_it_was_sent() -> None:
    request = protocol.decode_request(protocol.encode_request("stop", {"seconds": 3}))

    assert (request.op, dict(request.arguments)) == ("stop", {"seconds": 3})


def test_a_request_is_one_line_whatever_it_holds() -> None:
    line = protocol.encode_request("allow", {"reason": "two\nlines \u2028 \x1b[31m"})

    assert line.count(b"\n") == 1
    assert line.isascii()


def test_a_request_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(ControlError, match="more than a running proxy takes"):
        protocol.encode_request("allow", {"reason": "a" * protocol.REQUEST_BYTES})


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"[]\n", b'"status"\n', b"{}\n", b'{"op": 3}\n', b"[" * 60_000, b"\xff\xfe\n"],
)
def test_what_is_no_request_is_refused(line: bytes) -> None:
    with pytest.raises(ControlError):
        protocol.decode_request(line)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(line: bytes) -> None:
    try:
        request = protocol.decode_request(line)
    except ControlError:
        return
    assert isinstance(request.op, str)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_an_error(line: bytes) -> None:
    try:
        answer = protocol.decode_answer(line)
    except ControlError:
        return
    assert protocol.OK not in answer


def test_a_refusal_keeps_what_where_and_fix() -> None:
    line = protocol.encode_refusal(ConfigError("bad rule", where="a.yaml:3", fix="correct it"))

    with pytest.raises(ControlError) as raised:
        protocol.decode_answer(line)

    assert raised.value.lines() == ["error: bad rule", "  where: a.yaml:3", "  fix:   correct it"]


def test_an_answer_that_is_too_long_becomes_a_refusal() -> None:
    line = protocol.encode_answer({"tunnels": "a" * protocol.ANSWER_BYTES})

    assert len(line) < protocol.ANSWER_BYTES
    with pytest.raises(ControlError, match="too long"):
        protocol.decode_answer(line)


def test_an_answer_that_says_neither_yes_nor_no_is_an_error() -> None:
    with pytest.raises(ControlError, match="neither yes nor no"):
        protocol.decode_answer(b'{"ok": 1}\n')


def test_an_unknown_operation_is_named_and_cut_short() -> None:
    error = protocol.unknown("x" * 500, {"status": None, "reload": None})

    assert len(error.what) < 100
    assert error.where == "it knows reload, status"


def test_facts_arrive_as_they_were_written() -> None:
    assert protocol.decode_facts(protocol.encode_facts(FACTS)) == FACTS


@pytest.mark.parametrize("name", ["name", "pid", "listens", "started"])
def test_facts_that_are_not_whole_are_none(name: str) -> None:
    found = json.loads(protocol.encode_facts(FACTS))
    del found[name]

    assert protocol.decode_facts(json.dumps(found).encode()) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_facts_or_none(data: bytes) -> None:
    found = protocol.decode_facts(data)

    assert found is None or isinstance(found, ProxyFacts)
