"""The laws of login hashes: read as written, and salted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.credentials.login_hash import digest_of, hash_of, login_of, read_hash
from tests.policy.credentials.cases import KEY, basic


@given(st.binary(min_size=1), st.binary(min_size=16, max_size=64))
def test_a_hash_is_read_as_it_was_written(login: bytes, salt: bytes) -> None:
    assert read_hash(hash_of(login, salt)) == (salt, digest_of(salt, login))


@pytest.mark.parametrize(
    "text", ["", "sha256:00:00", "sha256:" + "0" * 32, "SHA256:" + "0" * 32 + ":" + "0" * 64, "\n"]
)
def test_what_is_spelled_otherwise_is_no_hash(text: str) -> None:
    with pytest.raises(ValueError, match="sha256:SALT:DIGEST"):
        read_hash(text)


def test_a_salt_may_not_be_short() -> None:
    with pytest.raises(ValueError, match="salt"):
        hash_of(KEY, b"short")


@pytest.mark.parametrize("text", [KEY, b" Bearer " + KEY + b"\n", basic(b"alice", KEY)])
def test_a_login_may_be_written_as_a_client_sends_it(text: bytes) -> None:
    assert login_of(text) == KEY
