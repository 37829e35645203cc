"""Laws of the login to a server: only what is allowed is answered, and only proof is believed."""

import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.wire import postgres
from claude_proxy.wire.postgres import PostgresError
from claude_proxy.wire.postgres_login import ServerLogin
from claude_proxy.wire.scram import ScramError

# RFC 7677 section 3, but for the user name, which PostgreSQL ignores.
NONCE, PASSWORD = "rOprNGfwEbeRWgbNEkqO", b"pencil"
FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvY,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"


def ask(code: int, rest: bytes = b"") -> bytes:
    return postgres.message(b"R", struct.pack("!I", code) + rest)


OFFERED = ask(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
LET_IN = ask(0)
SCRAM = ["scram-sha-256"]


def login(*methods: str) -> ServerLogin:
    return ServerLogin("app", PASSWORD, methods or SCRAM, NONCE)


def by_scram() -> ServerLogin:
    """Return a login whose proof has been sent."""
    found = login()
    initial = found.receive(OFFERED)
    assert initial[0:1] == b"p"
    assert b"SCRAM-SHA-256\0" in initial
    assert initial.endswith(b"n,,n=,r=rOprNGfwEbeRWgbNEkqO")
    assert found.receive(ask(11, FIRST)) == b""
    assert found.work is not None
    proof = found.worked(found.work())
    assert b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvY,p=" in proof
    assert PASSWORD not in initial + proof
    return found


def test_a_server_that_proves_itself_is_believed() -> None:
    found = by_scram()
    proof = found._scram._server_proof
    assert proof is not None
    from base64 import b64encode  # noqa: PLC0415

    final = ask(12, b"v=" + b64encode(proof))
    whole = final + LET_IN + b"S\x00\x00\x00\x06a\x00"
    for byte in whole[:-7]:
        assert found.receive(bytes([byte])) == b""
    found.receive(whole[-7:])

    assert found.is_over
    assert found.refusal is None
    assert found.rest() == b"S\x00\x00\x00\x06a\x00"


def test_a_server_that_lets_in_without_its_proof_is_refused() -> None:
    with pytest.raises(PostgresError):
        by_scram().receive(LET_IN)
    with pytest.raises(ScramError):
        by_scram().receive(ask(12, b"v=AAAA"))


REFUSED = {
    "anybody is let in": LET_IN,
    "in clear": ask(3),
    "by MD5": ask(5, b"salt"),
    "by GSSAPI": ask(7),
    "by an unknown way": ask(99),
    "by SCRAM with binding alone": ask(10, b"SCRAM-SHA-256-PLUS\0\0"),
    "a second step first": ask(11, FIRST),
    "a final step first": ask(12, b"v=AAAA"),
    "a result": postgres.message(b"Z", b"I"),
    "another version": postgres.message(b"v", b"\0" * 8),
    "too long": b"R\x00\x01\x00\x00",
}


@pytest.mark.parametrize("said", REFUSED.values(), ids=REFUSED)
def test_what_is_not_allowed_is_not_answered(said: bytes) -> None:
    with pytest.raises(PostgresError) as caught:
        login().receive(said)

    assert "pencil" not in str(caught.value)


def test_scram_is_not_begun_twice() -> None:
    found = login()
    found.receive(OFFERED)

    with pytest.raises(PostgresError):
        found.receive(OFFERED)


def test_weaker_ways_are_answered_where_they_are_allowed() -> None:
    clear, hashed = login("password"), login("md5")

    assert clear.receive(ask(3)) == postgres.password_message(PASSWORD)
    assert hashed.receive(ask(5, b"salt")) == postgres.password_message(
        postgres.md5_of("app", PASSWORD, b"salt")
    )
    for found in (clear, hashed):
        found.receive(LET_IN)
        assert found.is_over
    with pytest.raises(PostgresError):
        login("md5", "password").receive(OFFERED)


def test_an_error_of_the_server_is_kept_as_it_came() -> None:
    refusal = postgres.fatal_error("28P01", "password authentication failed")
    found = login()

    found.receive(postgres.message(b"N", b"Snote\0\0") + refusal)

    assert found.is_over
    assert found.refusal == refusal


@given(st.binary(max_size=100))
def test_whatever_a_server_says_is_no_way_in(said: bytes) -> None:
    found = login("scram-sha-256", "md5")
    try:
        sent = found.receive(said)
    except (PostgresError, ScramError):
        return
    assert PASSWORD not in sent
    assert not found.is_over or found.refusal is not None


def test_a_login_shows_nothing_of_its_password() -> None:
    assert "pencil" not in repr(login())
    with pytest.raises(TypeError):
        pickle.dumps(login())
