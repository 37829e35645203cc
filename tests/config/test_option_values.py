"""Parsers of option values: each returns a value or raises ValueError, and quotes no secret."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config import option_values
from claude_proxy.config.settings import (
    TcpListen,
    UnixListen,
)


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("127.0.0.1:9051", TcpListen("127.0.0.1", 9051)),
        ("localhost:1", TcpListen("127.0.0.1", 1)),
        ("9051", TcpListen("127.0.0.1", 9051)),
        ("[::1]:0", TcpListen("::1", 0)),
        ("[0:0::1]:9051", TcpListen("::1", 9051)),
        ("unix:/run/a b.sock", UnixListen(Path("/run/a b.sock"))),
        ("unix:///run/p.sock", UnixListen(Path("/run/p.sock"))),
        ("UNIX:p:1", UnixListen(Path("p:1"))),
        ("unix:~/p.sock", UnixListen(Path("~/p.sock"))),
    ],
)
def test_a_listener_is_an_address_or_a_path(text: str, listen: object) -> None:
    assert option_values.parse_listen(text) == listen


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":9051", "::1:9051", "[::1]", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536"),
        *("127.0.0.1:x", "127.0.0.1:+1", "127.0.0.1:\u0661", "host.test:9051", "http://a:1"),
        *("/run/p.sock", "unix:", "unix:/", "unix:/run/", "unix://host/p.sock", "unix:/a\0b"),
        *("tcp:127.0.0.1:9051", "-1", "123456"),
    ],
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        option_values.parse_listen(text)


@given(st.text())
def test_a_listener_is_understood_or_refused(text: str) -> None:
    with suppress(ValueError):
        option_values.parse_listen(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("64k", 65536), ("1MiB", 1048576), ("2 GB".replace(" ", ""), 2**31)],
)
def test_sizes_are_powers_of_two(text: str, size: int) -> None:
    assert option_values.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("1.5", 1.5), ("500ms", 0.5), ("15m", 900), ("1h", 3600)]
)
def test_durations_are_seconds_unless_they_say_otherwise(text: str, seconds: float) -> None:
    assert option_values.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", ()),
        ("*", ("*",)),
        ("localhost, 10.0.0.0/8 ::1", ("localhost", "10.0.0.0/8", "::1/128")),
        ("*.Corp.Test.,.b.test", (".corp.test", ".b.test")),
    ],
)
def test_exceptions_are_written_as_in_no_proxy(text: str, entries: tuple[str, ...]) -> None:
    assert option_values.parse_exceptions(text) == entries


READERS = [
    option_values.parse_listen_host,
    option_values.parse_network,
    option_values.parse_resolve,
    option_values.parse_size,
    option_values.parse_duration,
    option_values.parse_timeout,
    option_values.parse_upstream_proxy,
    option_values.parse_exceptions,
]


@pytest.mark.parametrize("read", READERS)
@given(st.text() | st.from_regex(r"(http://)?[a-z0-9:@\[\]%./]*"))
def test_a_reader_returns_a_value_or_raises_value_error(
    read: Callable[[str], object], text: str
) -> None:
    with suppress(ValueError):
        read(text)


# Keys


@pytest.mark.parametrize("key", ["sk-ant-api03-x", "sk-ant-oat01-x", "!" * 8192, "dummy-2", "a"])
def test_what_may_be_a_key_is_accepted(key: str) -> None:
    assert option_values.fault_of_key(key) is None


@pytest.mark.parametrize(
    "key", ["", " ", "a b", "a\n", "é", "Dummy", "claude-proxy-placeholder-github", "!" * 8193]
)
def test_what_cannot_be_a_key_is_refused_and_not_quoted(key: str) -> None:
    fault = option_values.fault_of_key(key)

    assert fault is not None
    assert len(key) < 5 or key not in fault
