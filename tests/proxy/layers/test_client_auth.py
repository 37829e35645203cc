"""The laws of client authentication: exactly the required credentials admit, in any spelling."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.settings import ClientCredentials
from claude_proxy.proxy.layers.client_auth import head_admits, login_admits, proof_admits, proof_of
from claude_proxy.wire.http1.request import read_request_head
from claude_proxy.wire.socks5 import SocksLogin

REQUIRED = ClientCredentials("user", "pass:word")


def admits(*fields: bytes) -> bool:
    lines = [b"GET http://a.test/ HTTP/1.1", b"Host: a.test", *fields]
    head = read_request_head(bytearray(b"\r\n".join(lines) + b"\r\n\r\n"), 65536)
    assert head is not None
    return head_admits(REQUIRED, head)


def field(pair: bytes, scheme: bytes = b"Basic") -> bytes:
    return b"Proxy-Authorization: %b %b" % (scheme, b64encode(pair))


RIGHT = field(b"user:pass:word")


def test_only_the_proof_of_the_same_credentials_admits() -> None:
    assert proof_admits(REQUIRED, proof_of(REQUIRED))
    assert not proof_admits(REQUIRED, proof_of(ClientCredentials("user", "password")))
    assert not proof_admits(REQUIRED, "")
    assert not proof_admits(REQUIRED, "\u00e9")
    assert "pass" not in proof_of(REQUIRED)


@pytest.mark.parametrize("scheme", [b"Basic", b"basic", b"BASIC"], ids=bytes.decode)
def test_the_right_pair_is_admitted_in_any_case_of_the_scheme(scheme: bytes) -> None:
    assert admits(field(b"user:pass:word", scheme))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((), id="none"),
        pytest.param((RIGHT, RIGHT), id="two fields"),
        pytest.param((field(b"user:pass"),), id="a beginning"),
        pytest.param((field(b"user:pass:word "),), id="a space more"),
        pytest.param((field(b"User:pass:word"),), id="another case"),
        pytest.param((field(b"user:pass:word", b"Bearer"),), id="another scheme"),
        pytest.param((b"Proxy-Authorization: Basic user:pass:word",), id="not base64"),
        pytest.param((RIGHT.replace(b"Proxy-", b""),), id="another field"),
    ],
)
def test_anything_else_is_not_admitted(fields: tuple[bytes, ...]) -> None:
    assert not admits(*fields)


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_a_socks_login_is_admitted_only_if_both_parts_are_right(
    user: bytes, password: bytes
) -> None:
    right = (user, password) == (b"user", b"pass:word")

    assert login_admits(REQUIRED, SocksLogin(user, password)) is right
    assert login_admits(REQUIRED, SocksLogin(b"user", b"pass:word"))
    assert not login_admits(REQUIRED, SocksLogin(b"user", password + b"x"))
    assert not login_admits(REQUIRED, SocksLogin(user + b"x", b"pass:word"))
