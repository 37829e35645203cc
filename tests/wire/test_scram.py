"""Laws of SCRAM: RFC 7677's example is spoken word for word, and no other server is believed."""

import base64
import hashlib
import hmac
import pickle
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.wire.scram import MOST_ROUNDS, ScramClient, ScramError

# RFC 7677 section 3.
USER, PASSWORD, NONCE = "user", b"pencil", "rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = (
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
)
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
_PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)  # as the vault takes them
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_the_example_of_rfc_7677_is_spoken_word_for_word() -> None:
    client = ScramClient(PASSWORD, NONCE)

    assert client.first(USER) == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert client.final(SERVER_FIRST, USER) == CLIENT_FINAL
    client.verify(SERVER_FINAL)


def test_a_user_name_is_escaped() -> None:
    assert ScramClient(PASSWORD, NONCE).first("a=b,c").startswith(b"n,,n=a=3Db=2Cc,r=")


BAD_FIRST = {
    "another nonce": SERVER_FIRST.replace(b"rOpr", b"xOpr"),
    "our nonce alone": b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    "too few rounds": SERVER_FIRST.replace(b"4096", b"4095"),
    "rounds that begin with a zero": SERVER_FIRST.replace(b"4096", b"04096"),
    "too many rounds": SERVER_FIRST.replace(b"4096", str(MOST_ROUNDS + 1).encode()),
    "an extension": b"m=x," + SERVER_FIRST,
    "something behind": SERVER_FIRST + b",x=y",
    "a line break": SERVER_FIRST + b"\n",
    "no salt": SERVER_FIRST.replace(b"W22ZaJ0SNY7soEsUEjb6gQ==", b""),
    "a salt that is no base64": SERVER_FIRST.replace(b"W22Z", b"W22"),
    "nothing": b"",
    "other letters": SERVER_FIRST.replace(b"hvY", b"hv\xc3"),
}


@pytest.mark.parametrize("said", BAD_FIRST.values(), ids=BAD_FIRST)
def test_a_first_message_with_another_reading_is_refused(said: bytes) -> None:
    with pytest.raises(ScramError):
        ScramClient(PASSWORD, NONCE).final(said)


@pytest.mark.parametrize(
    "said",
    [
        SERVER_FINAL.replace(b"6rri", b"7rri"),
        b"e=invalid-proof",
        b"v=",
        b"",
        SERVER_FINAL + b",x=y",
        SERVER_FINAL[:-5],
    ],
)
def test_a_server_that_does_not_know_the_password_is_not_believed(said: bytes) -> None:
    client = ScramClient(PASSWORD, NONCE)
    client.final(SERVER_FIRST, USER)

    with pytest.raises(ScramError):
        client.verify(said)


def test_no_server_is_believed_before_it_was_asked() -> None:
    with pytest.raises(ScramError):
        ScramClient(PASSWORD, NONCE).verify(SERVER_FINAL)


@given(st.binary(max_size=200))
def test_whatever_a_server_says_is_an_answer_or_an_error(said: bytes) -> None:
    for speak in (ScramClient(PASSWORD, NONCE).final, ScramClient(PASSWORD, NONCE).verify):
        with suppress(ScramError):
            speak(said)


@given(st.text(_PRINTABLE, min_size=1, max_size=20), st.binary(min_size=8, max_size=30))
def test_a_server_with_the_same_password_agrees(text: str, salt: bytes) -> None:
    """An independent server: what RFC 5802 section 3 says, from the stored keys alone."""
    password = text.encode()
    client = ScramClient(password, "ours")
    first = client.first().decode().removeprefix("n,,")
    said = f"r=oursTHEIRS,s={base64.b64encode(salt).decode()},i=4096"
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, 4096)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()

    final = client.final(said.encode()).decode()

    without, _, proof = final.rpartition(",p=")
    message = f"{first},{said},{without}".encode()
    signature = hmac.digest(stored, message, "sha256")
    key = bytes(a ^ b for a, b in zip(base64.b64decode(proof), signature, strict=True))
    assert hashlib.sha256(key).digest() == stored
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    answer = base64.b64encode(hmac.digest(server_key, message, "sha256"))
    client.verify(b"v=" + answer)


def test_a_login_shows_nothing_of_its_password() -> None:
    client = ScramClient(PASSWORD, NONCE)

    assert "pencil" not in repr(client)
    with pytest.raises(TypeError):
        pickle.dumps(client)
