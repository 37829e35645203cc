"""Tunnel through an upstream proxy: the CONNECT request and its answer (RFC 9110 section 9.3.6).

Fail closed: only a 2xx opens a tunnel. What a proxy refuses with never reaches a client as it is:
its challenge would be taken for one of this proxy.
"""

import asyncio
import re
import socket
from contextlib import suppress
from typing import Final

from claude_proxy.wire.authority import Authority
from claude_proxy.wire.http1.head import BadMessage, Fields
from claude_proxy.wire.http1.response_fields import read_response_fields

_ANSWER_LIMIT: Final = 16 * 1024
_INTERIM_LIMIT: Final = 32
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?![^ \r\n])").match
_TLS_ALERT: Final = b"\x15\x03"
_UNAUTHENTICATED: Final = 407
# RFC 9110 section 11.3: a challenge begins with its scheme; what has "=" behind it is a parameter.
_QUOTED: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_SCHEME: Final = re.compile(
    rb"(?:^|,)[ \t]*([A-Za-z][A-Za-z0-9-]{0,31})(?=[ \t]+[^ \t=]|[ \t]*(?:,|$))"
)


class TunnelRefusedError(Exception):
    """An upstream proxy opened no tunnel; the text says what it did, without a subject."""


async def open_tunnel(sock: socket.socket, target: Authority, authorization: bytes | None) -> bytes:
    """Ask the proxy at the other end for a tunnel to `target`; return what came through it already.

    TunnelRefusedError if it opens none; OSError if the connection is lost.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, connect_request(target, authorization))
    answer = bytearray()
    for _ in range(_INTERIM_LIMIT):
        while (end := _HEAD_END.search(answer)) is None:
            _refuse_other_protocols(answer)
            if len(answer) > _ANSWER_LIMIT:
                raise TunnelRefusedError("sent too long an answer to CONNECT")
            data = await loop.sock_recv(sock, 4096)
            if not data:
                raise TunnelRefusedError("closed the connection without an answer to CONNECT")
            answer += data
        head = bytes(answer[: end.start() + 1])
        del answer[: end.end()]
        if _is_final(head, offered=authorization is not None):
            return bytes(answer)
    raise TunnelRefusedError("sent interim responses without end")


def connect_request(target: Authority, authorization: bytes | None) -> bytes:
    """Return the request for a tunnel to `target`."""
    lines = [f"CONNECT {target} HTTP/1.1".encode(), f"Host: {target}".encode()]
    if authorization is not None:
        lines.append(b"Proxy-Authorization: " + authorization)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def refused(status: int, challenges: list[bytes], *, offered: bool) -> str:
    """Say that a proxy refused with `status`; `offered`: it was sent a user and a password.

    `challenges` are the values of its Proxy-Authenticate fields (RFC 9110 section 11.7.1).
    """
    if status != _UNAUTHENTICATED:
        return f"{status}"
    schemes = schemes_of(challenges)
    if not schemes:
        return f"{status}; {_fix_of_login(offered=offered)}"
    asks = f"{status} (it asks for {' or '.join(schemes)})"
    if "basic" in (scheme.lower() for scheme in schemes):
        return f"{asks}; {_fix_of_login(offered=offered)}"
    return (
        f"{asks}, and claude-proxy offers only Basic: let --upstream-proxy name a proxy on this "
        "machine that logs in for it, such as cntlm or px"
    )


def _fix_of_login(*, offered: bool) -> str:
    if offered:
        return "check the user and the password in --upstream-proxy"
    return "name a user and a password in --upstream-proxy"


def schemes_of(challenges: list[bytes]) -> list[str]:
    """Return the authentication schemes that challenges name, each once."""
    found = [
        scheme.decode("ascii")
        for value in challenges
        for scheme in _SCHEME.findall(_QUOTED.sub(b"q", value))
    ]
    return list(dict.fromkeys(found))


def _refuse_other_protocols(answer: bytearray) -> None:
    """Raise TunnelRefusedError as soon as the bytes cannot begin an HTTP response."""
    if answer.startswith(_TLS_ALERT):
        raise TunnelRefusedError("speaks TLS, and is asked without: name its port for plain HTTP")
    if not b"HTTP/1.".startswith(answer[:7]):
        raise TunnelRefusedError("did not answer with HTTP")


def _is_final(head: bytes, *, offered: bool) -> bool:
    """Tell whether a head opens the tunnel; False: it is interim. May raise TunnelRefusedError."""
    status = _STATUS(head)
    if status is None:
        raise TunnelRefusedError("did not answer with HTTP")
    if status[1].startswith(b"2"):
        # RFC 9110 section 9.3.6: Content-Length and Transfer-Encoding are ignored here.
        return True
    if status[1].startswith(b"1") and status[1] != b"101":
        return False
    challenges = _challenges_of(head[head.index(b"\n") + 1 :])
    raise TunnelRefusedError(
        f"refused the tunnel with {refused(int(status[1]), challenges, offered=offered)}"
    )


def _challenges_of(block: bytes) -> list[bytes]:
    fields: Fields = []
    with suppress(BadMessage):  # the status has been understood, which is what counts
        fields = read_response_fields(block)
    return [value for name, value in fields if name.lower() == b"proxy-authenticate"]
