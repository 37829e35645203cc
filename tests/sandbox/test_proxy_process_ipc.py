"""A task and an error arrive as they were sent, and nothing else is taken for one."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.settings import (
    Base,
    Gateway,
    InheritedListen,
    Settings,
    UnixListen,
    UpstreamProxy,
)
from claude_proxy.errors import ClaudeProxyError, ConfigError, ConfigErrors
from claude_proxy.policy.credentials.binding import Injection
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.request import Scheme
from claude_proxy.sandbox import proxy_process_ipc
from claude_proxy.sandbox.proxy_process_ipc import (
    Task,
    decode,
    decode_error,
    decode_unrecorded,
    encode,
    encode_error,
    encode_unrecorded,
)
from claude_proxy.wire.authority import Authority


def test_a_task_arrives_whole_with_the_numbers_of_its_receiver() -> None:
    gateway = Gateway(
        (InheritedListen(10, "gateway"), UnixListen(Path("/socket"))),
        Base(Scheme.HTTPS, Authority.of("api.test", 443)),
        Injection(EnvironmentSource("KEY")),
    )
    settings = Settings(
        Path("/allowlist"),
        Path("/conf"),
        Path("/state"),
        listen=(InheritedListen(7, "run"),),
        upstream_proxy=UpstreamProxy(Authority.of("proxy.test", 3128), "user:secret"),
        gateway=gateway,
    )
    task = Task(settings, report=8, lifeline=9, log=11, descriptors=(7, 8, 9, 10, 11))

    received = decode(encode(task)).received([3, 4, 5, 6, 7])

    assert decode(encode(task)) == task
    assert received.settings == replace(
        settings,
        listen=(InheritedListen(3, "run"),),
        gateway=replace(gateway, listen=(InheritedListen(6, "gateway"), gateway.listen[1])),
    )
    assert (received.report, received.lifeline, received.log) == (4, 5, 7)


def test_another_thing_than_a_task_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        decode(pickle.dumps("a task"))


def test_a_descriptor_that_did_not_arrive_is_an_error() -> None:
    settings = Settings(Path("/allowlist"), Path("/conf"), Path("/state"), listen=())
    task = Task(settings, report=8, lifeline=9, log=11, descriptors=(8, 9, 11))

    with pytest.raises(ValueError, match="zip"):
        task.received([3])


@pytest.mark.parametrize("kind", [ClaudeProxyError, ConfigError])
def test_an_error_arrives_with_its_place_fix_and_exit_code(kind: type[ClaudeProxyError]) -> None:
    found = decode_error(encode_error(kind("what", where="here", fix="so")))

    assert found is not None
    assert (found.lines(), found.exit_code) == (
        ["error: what", "  where: here", "  fix:   so"],
        kind.exit_code,
    )


def test_several_errors_arrive_together() -> None:
    sent = ConfigErrors([ConfigError("one"), ConfigError("two", where="there")])

    found = decode_error(encode_error(sent))

    assert isinstance(found, ConfigErrors)
    assert found.lines() == sent.lines()


def test_more_errors_than_a_report_holds_are_cut_and_still_arrive() -> None:
    sent = ConfigErrors([ConfigError("x" * 1000, where=str(number)) for number in range(500)])

    data = encode_error(sent)

    assert len(data) <= proxy_process_ipc.REPORT_LIMIT
    found = decode_error(data)
    assert isinstance(found, ConfigErrors)
    assert found.problems[0].where == "0"


def test_what_could_not_be_recorded_arrives_with_its_number_and_its_reason() -> None:
    sent = ClaudeProxyError("the disk is full", where="/state", fix="make room")

    found = decode_unrecorded(encode_unrecorded(12, sent))

    assert found is not None
    assert (found[0], found[1].lines()) == (12, sent.lines())


@pytest.mark.parametrize("data", [b"", b"12 ", b"x {}", b'-1 {"code": 1, "problems": []}'])
def test_nothing_unrecorded_is_read_from_any_other_text(data: bytes) -> None:
    assert decode_unrecorded(data) is None


@given(st.binary())
def test_an_invalid_report_is_no_error(data: bytes) -> None:
    assert decode_error(data) is None


@pytest.mark.parametrize(
    "data", [b"null", b"[]", b'{"code": 1}', b'{"code": 2, "problems": [1]}', b"ready\n"]
)
def test_a_report_of_another_shape_is_none(data: bytes) -> None:
    assert decode_error(data) is None
