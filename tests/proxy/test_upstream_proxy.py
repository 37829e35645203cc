"""An upstream proxy opens a tunnel with a 2xx, or it is said why it did not."""

import asyncio
import contextlib
import socket

import pytest

from claude_proxy.proxy.upstream_proxy import (
    TunnelRefusedError,
    connect_request,
    open_tunnel,
    refused,
    schemes_of,
)
from claude_proxy.wire.authority import Authority

TARGET = Authority.of("public.example", 443)


async def asked(answer: bytes, *, cut: int = 1 << 20, login: bytes | None = None) -> bytes:
    """Ask a proxy that sends `answer`, in pieces of `cut` bytes, and closes."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()

    async def send() -> None:
        with contextlib.suppress(OSError):
            for at in range(0, len(answer), cut):
                await loop.sock_sendall(theirs, answer[at : at + cut])
                await asyncio.sleep(0)
        theirs.shutdown(socket.SHUT_WR)

    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        sending = asyncio.ensure_future(send())
        try:
            return await open_tunnel(ours, TARGET, login)
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sending


def outcome(answer: bytes, *, cut: int = 1 << 20, login: bytes | None = None) -> bytes | str:
    try:
        return asyncio.run(asked(answer, cut=cut, login=login))
    except TunnelRefusedError as error:
        return str(error)


def test_the_request_names_the_target_twice_and_carries_the_login() -> None:
    assert connect_request(TARGET, None) == (
        b"CONNECT public.example:443 HTTP/1.1\r\nHost: public.example:443\r\n\r\n"
    )
    assert b"\r\nProxy-Authorization: Basic eA==\r\n\r\n" in connect_request(TARGET, b"Basic eA==")


@pytest.mark.parametrize("cut", [1, 1000])
@pytest.mark.parametrize(
    ("answer", "early"),
    [
        (b"HTTP/1.1 200 Connection established\r\n\r\n", b""),
        (b"HTTP/1.0 200\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\nX : y\n\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", b""),
    ],
)
def test_a_2xx_opens_the_tunnel(answer: bytes, early: bytes, cut: int) -> None:
    assert outcome(answer, cut=cut) == early


def test_what_came_through_the_tunnel_already_is_returned() -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nSSH-2.0-x\r\n"

    assert outcome(answer) == b"SSH-2.0-x\r\n"


NEGOTIATE = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\n"


@pytest.mark.parametrize("cut", [1, 1000])
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (NEGOTIATE + b"Content-Length: 6\r\n\r\nlogin!", "407 (it asks for Negotiate), and"),
        (
            NEGOTIATE + b'Proxy-Authenticate: NTLM, Basic realm="a, b"\r\n\r\n',
            "407 (it asks for Negotiate or NTLM or Basic); name a user",
        ),
        (b"HTTP/1.1 407\r\n\r\n", "refused the tunnel with 407; name a user"),
        (b"HTTP/1.1 407 No\r\nno field\r\n\r\n", "refused the tunnel with 407; name a user"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "refused the tunnel with 403"),
        (b"HTTP/1.0 503 Busy\r\n\r\n<html>", "refused the tunnel with 503"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n", "refused the tunnel with 302"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "refused the tunnel with 101"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "did not answer with HTTP"),
        (b"HTTP/1.1 OK\r\n\r\n", "did not answer with HTTP"),
        (b"HTTP/1.1\r\n\r\n", "did not answer with HTTP"),
        (b"HTTP/2 200\r\n\r\n", "did not answer with HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "did not answer with HTTP"),
        (b"<html>no head", "did not answer with HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "speaks TLS"),
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 32_768, "sent too long an answer"),
        (b"HTTP/1.1 102 Wait\r\n\r\n" * 40, "interim responses without end"),
    ],
)
def test_anything_else_opens_none(answer: bytes, says: str, cut: int) -> None:
    told = outcome(answer, cut=cut if len(answer) < 1000 else 1000)

    assert isinstance(told, str)
    assert says in told


def test_a_login_that_was_refused_is_to_be_checked() -> None:
    told = outcome(NEGOTIATE + b"proxy-authenticate: Basic realm=x\r\n\r\n", login=b"Basic eA==")

    assert told == (
        "refused the tunnel with 407 (it asks for Negotiate or Basic); check the user and the "
        "password in --upstream-proxy"
    )


def test_a_scheme_that_is_not_spoken_names_what_speaks_it() -> None:
    assert "such as cntlm or px" in refused(407, [b"NTLM"], offered=True)
    assert refused(502, [b"NTLM"], offered=True) == "502"


@pytest.mark.parametrize(
    ("challenges", "schemes"),
    [
        ([], []),
        ([b""], []),
        ([b"Negotiate"], ["Negotiate"]),
        ([b"Negotiate, NTLM"], ["Negotiate", "NTLM"]),
        ([b'Basic realm="x"', b"Basic realm=y"], ["Basic"]),
        ([b'Digest realm="a, Basic b", qop="auth,auth-int", nonce=x, NTLM'], ["Digest", "NTLM"]),
        ([b"Digest realm = x, NTLM"], ["Digest", "NTLM"]),
        ([b"NTLM TlRMTVNTUAAC="], ["NTLM"]),
        ([b"\x1b[31m"], []),
        ([b"a" * 100], []),
    ],
)
def test_only_the_schemes_of_challenges_are_repeated(
    challenges: list[bytes], schemes: list[str]
) -> None:
    assert schemes_of(challenges) == schemes
