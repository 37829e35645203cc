"""The laws of reading SOCKS5: one reading or none, however the bytes are cut."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.wire.socks5 import (
    SocksError,
    SocksLogin,
    SocksMethod,
    SocksReply,
    SocksRequest,
    login_reply,
    method_choice,
    read_login,
    read_methods,
    read_request,
    reply,
)

type Read = Callable[[bytearray], bytes | SocksLogin | SocksRequest | None]

READERS: list[Read] = [read_methods, read_login, read_request]
GREETING = b"\x05\x02\x00\x02"
LOGIN = b"\x01\x04user\x08password"
BY_NAME = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb"
BY_IPV4 = b"\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb"
BY_IPV6 = b"\x05\x01\x00\x04" + bytes.fromhex("20010db8000000000000000000000001") + b"\x00\x50"


def by_name(name: bytes, port: int = 443) -> bytes:
    return b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2)


def answer_to(read: Read, message: bytes) -> bytes:
    with pytest.raises(SocksError) as caught:
        read(bytearray(message))
    assert str(caught.value) == caught.value.text
    return caught.value.answer


def test_a_greeting_offers_its_methods() -> None:
    assert read_methods(bytearray(GREETING)) == bytes([SocksMethod.NONE, SocksMethod.PASSWORD])


def test_a_greeting_may_offer_nothing() -> None:
    assert read_methods(bytearray(b"\x05\x00")) == b""


def test_a_login_is_a_user_and_a_password() -> None:
    assert read_login(bytearray(LOGIN)) == SocksLogin(b"user", b"password")


def test_a_login_may_be_empty() -> None:
    assert read_login(bytearray(b"\x01\x00\x00")) == SocksLogin(b"", b"")


def test_no_repr_shows_a_login() -> None:
    login = repr(read_login(bytearray(LOGIN)))

    assert "user" not in login
    assert "password" not in login


@pytest.mark.parametrize(
    ("message", "host", "port"),
    [
        (BY_NAME, b"example.com", 443),
        (BY_IPV4, b"192.0.2.1", 443),
        (BY_IPV6, b"2001:db8::1", 80),
        (
            b"\x05\x01\x00\x04" + bytes(10) + b"\xff\xff\x7f\x00\x00\x01\x00\x50",
            b"::ffff:7f00:1",
            80,
        ),
        (by_name(b""), b"", 443),
        (by_name(b"a" * 255, 0), b"a" * 255, 0),
        (by_name(b"a\x00b\r\n\xff"), b"a\x00b\r\n\xff", 443),
    ],
)
def test_a_request_names_its_target_as_sent(message: bytes, host: bytes, port: int) -> None:
    assert read_request(bytearray(message)) == SocksRequest(1, host, port)


@pytest.mark.parametrize("command", [0, 2, 3, 4, 255])
def test_another_command_is_read_like_any(command: int) -> None:
    message = bytearray(BY_NAME)
    message[1] = command

    assert read_request(message) == SocksRequest(command, b"example.com", 443)


@pytest.mark.parametrize("version", [0, 4, 6, 0x16, 0x47])
def test_another_version_is_refused(version: int) -> None:
    assert answer_to(read_methods, bytes([version]) + GREETING[1:]) == b"\x05\xff"
    assert answer_to(read_request, bytes([version]) + BY_NAME[1:]) == reply(SocksReply.FAILED)


@pytest.mark.parametrize("version", [0, 2, 5])
def test_another_version_of_the_login_is_refused(version: int) -> None:
    assert answer_to(read_login, bytes([version]) + LOGIN[1:]) == b"\x01\x01"


@pytest.mark.parametrize("kind", [0, 2, 5, 255])
@pytest.mark.parametrize("rest", [b"", b"\x7f\x00\x00\x01\x01\xbb"])
def test_another_type_of_address_is_refused_at_once(kind: int, rest: bytes) -> None:
    answer = answer_to(read_request, bytes([5, 1, 0, kind]) + rest)

    assert answer == reply(SocksReply.ADDRESS_NOT_SUPPORTED)
    assert answer[1] == 8


def test_a_reserved_byte_that_is_not_zero_is_refused() -> None:
    assert answer_to(read_request, b"\x05\x01\x01") == reply(SocksReply.FAILED)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (read_methods, GREETING),
        (read_methods, b"\x05\xff" + bytes(255)),
        (read_login, LOGIN),
        (read_login, b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255),
        (read_request, BY_NAME),
        (read_request, BY_IPV4),
        (read_request, BY_IPV6),
        (read_request, by_name(b"n" * 255)),
    ],
)
def test_a_message_that_is_not_whole_is_waited_for_and_what_follows_it_is_left(
    read: Read, message: bytes
) -> None:
    for size in range(len(message)):
        buffer = bytearray(message[:size])
        assert read(buffer) is None
        assert buffer == message[:size]
    buffer = bytearray(message + b"\x16\x03\x01")

    assert read(buffer) is not None
    assert buffer == b"\x16\x03\x01"


def test_the_answers_are_those_of_the_rfcs() -> None:
    assert method_choice(SocksMethod.NONE) == b"\x05\x00"
    assert method_choice(SocksMethod.PASSWORD) == b"\x05\x02"
    assert method_choice(SocksMethod.NO_ACCEPTABLE) == b"\x05\xff"
    assert login_reply(passed=True) == b"\x01\x00"
    assert login_reply(passed=False) == b"\x01\x01"
    assert reply(SocksReply.DENIED) == b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"


LIKE_SOCKS = st.builds(
    lambda start, middle, rest: bytes(start) + bytes(middle) + rest,
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 255]), max_size=5),
    st.lists(st.integers(0, 20), max_size=2),
    st.binary(max_size=40),
)


def outcome(read: Read, data: bytes, cuts: list[int]) -> object:
    """Feed a reader piece by piece; return what came of it, with the bytes that it left."""
    buffer = bytearray()
    at = 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        buffer += data[at:cut]
        at = cut
        try:
            found = read(buffer)
        except SocksError as error:
            return error.answer, error.text
        if found is not None:
            return found, bytes(buffer + data[at:])
    return bytes(buffer)


@pytest.mark.parametrize("read", READERS)
@given(data=st.one_of(LIKE_SOCKS, st.binary(max_size=600)), cuts=st.lists(st.integers(0, 600)))
def test_any_cut_of_any_bytes_comes_to_the_same(read: Read, data: bytes, cuts: list[int]) -> None:
    assert outcome(read, data, cuts) == outcome(read, data, [])


@pytest.mark.parametrize("read", READERS)
@given(data=st.binary(min_size=1, max_size=600))
def test_what_waits_is_bounded(read: Read, data: bytes) -> None:
    """The longest message is a login: a version, and two lengths with 255 bytes each."""
    try:
        found = read(bytearray(data))
    except SocksError:
        return
    assert found is not None or len(data) < 513
