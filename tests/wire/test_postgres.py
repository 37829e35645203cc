"""Laws of PostgreSQL's messages: one reading, or an error that quotes nothing."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.wire import postgres
from claude_proxy.wire.postgres import (
    CancelRequest,
    Demand,
    EncryptionRequest,
    PostgresError,
    Startup,
)

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
parameters = st.dictionaries(
    words.filter(lambda word: not word.startswith("_pq_.")), words, max_size=8
).map(lambda found: {"user": "app", **found})


def startup(body: bytes, version: int = 196608) -> bytearray:
    return bytearray(struct.pack("!II", len(body) + 8, version) + body)


@given(parameters, st.binary(max_size=10))
def test_what_is_written_is_read_and_what_follows_stays(
    asked: dict[str, str], after: bytes
) -> None:
    data = bytearray(postgres.startup_message(asked) + after)

    found = postgres.read_startup(data)

    assert isinstance(found, Startup)
    assert found.parameters == asked
    assert bytes(data) == after


@given(parameters)
def test_a_message_is_not_read_before_it_is_complete(asked: dict[str, str]) -> None:
    whole = postgres.startup_message(asked)

    for size in range(len(whole)):
        data = bytearray(whole[:size])
        assert postgres.read_startup(data) is None
        assert bytes(data) == whole[:size]


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    for read in (
        postgres.read_startup,
        lambda buffer: postgres.read_message(buffer, 100),
        lambda buffer: postgres.demand_of(bytes(buffer)),
        lambda buffer: postgres.mechanisms_in(bytes(buffer)),
        lambda buffer: postgres.password_of(bytes(buffer)),
        lambda buffer: postgres.sqlstate_of(bytes(buffer)),
    ):
        with suppress(PostgresError):
            read(bytearray(data))


@given(st.binary(max_size=60))
def test_any_parameters_are_read_or_an_error(body: bytes) -> None:
    try:
        found = postgres.read_startup(startup(body))
    except PostgresError:
        return
    assert isinstance(found, Startup)
    assert found.user


BAD = {
    "a length below the least": b"\x00\x00\x00\x07\x00\x03\x00",
    "a length beyond PostgreSQL's": b"\x00\x00\x27\x11\x00\x03\x00\x00",
    "TLS": b"\x16\x03\x01",
    "HTTP": b"GET / HTTP/1.1\r\n",
    "version 2": bytes(startup(b"user\0a\0\0", 131072)),
    "no user": bytes(startup(b"database\0a\0\0")),
    "an empty user": bytes(startup(b"user\0\0\0")),
    "a user twice": bytes(startup(b"user\0a\0user\0b\0\0")),
    "an extension twice": bytes(startup(b"user\0a\0_pq_.x\0b\0_pq_.x\0b\0\0")),
    "no end": bytes(startup(b"user\0a\0")),
    "bytes behind the end": bytes(startup(b"user\0a\0\0x\0\0")),
    "a name without a value": bytes(startup(b"user\0a\0database\0\0")),
    "an empty name": bytes(startup(b"user\0a\0\0b\0\0")),
    "other letters": bytes(startup(b"user\0\xff\0\0")),
    "nothing": bytes(startup(b"")),
    "a request to cancel without a key": struct.pack("!III", 12, 80877102, 1),
    "a request for TLS with more": struct.pack("!III", 12, 80877103, 1),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_has_another_reading_is_refused(data: bytes) -> None:
    with pytest.raises(PostgresError):
        postgres.read_startup(bytearray(data))


def test_requests_before_a_session_are_known_by_their_code() -> None:
    cancel = struct.pack("!IIII", 16, 80877102, 7, 8)

    tls = postgres.read_startup(bytearray(postgres.SSL_REQUEST))
    gss = postgres.read_startup(bytearray(struct.pack("!II", 8, 80877104)))
    found = postgres.read_startup(bytearray(cancel))

    assert isinstance(tls, EncryptionRequest)
    assert isinstance(gss, EncryptionRequest)
    assert (tls.is_tls, gss.is_tls) == (True, False)
    assert found == CancelRequest(cancel)
    assert "8" not in repr(found)


def test_the_database_is_the_users_where_none_is_named() -> None:
    assert Startup({"user": "app"}).database == "app"
    assert Startup({"user": "app", "database": "shop"}).database == "shop"


@pytest.mark.parametrize(
    ("value", "replicates"),
    [("true", True), ("database", True), ("1", True), ("x", True), ("off", False), ("NO", False)],
)
def test_every_word_but_no_asks_for_replication(value: str, *, replicates: bool) -> None:
    assert Startup({"user": "app", "replication": value}).replicates == replicates
    assert not Startup({"user": "app"}).replicates


def test_extensions_of_the_protocol_are_taken_out_and_declined() -> None:
    found = postgres.read_startup(startup(b"user\0a\0_pq_.x\0y\0\0", 196610))

    assert isinstance(found, Startup)
    assert found.parameters == {"user": "a"}
    answer = postgres.negotiated(found)
    assert answer == b"v" + struct.pack("!III", 19, 196608, 1) + b"_pq_.x\0"
    assert postgres.negotiated(Startup({"user": "a"})) == b""


@given(st.binary(min_size=1, max_size=1), st.binary(max_size=50), st.binary(max_size=5))
def test_a_message_that_is_written_is_read(kind: bytes, body: bytes, after: bytes) -> None:
    data = bytearray(postgres.message(kind, body) + after)

    assert postgres.read_message(data, 100) == (kind, body)
    assert bytes(data) == after


def test_a_message_that_is_too_long_is_refused_before_it_is_there() -> None:
    with pytest.raises(PostgresError):
        postgres.read_message(bytearray(b"R\x00\x01\x00\x00"), 1000)


def test_the_password_hashed_by_md5_is_the_one_of_the_documentation() -> None:
    assert postgres.md5_of("u", b"p", b"salt") == b"md5c827f95590aef08f2d04ac5e8d94d9c3"


def test_what_a_server_asks_for_is_known_or_refused() -> None:
    assert postgres.demand_of(postgres.ASK_FOR_PASSWORD[5:]) == (Demand.CLEARTEXT, b"")
    assert postgres.demand_of(postgres.AUTHENTICATED[5:]) == (Demand.NOTHING, b"")
    for body in (b"", struct.pack("!I", 7), struct.pack("!II", 0, 0), struct.pack("!I", 5)):
        with pytest.raises(PostgresError):
            postgres.demand_of(body)


def test_an_error_names_its_sqlstate() -> None:
    told = postgres.fatal_error("28P01", "no", "hint")

    assert postgres.sqlstate_of(told[5:]) == "28P01"
    assert postgres.sqlstate_of(b"Mno\0\0") == ""
