"""Joined proxy: which program listens at the address of --proxy, and whether it takes the password.

A password that a claude-proxy on this machine demands is proved by the relay, in the header that
announces the run. The sandbox does not have it (secrets stay outside). A join after which
every request would be refused is refused itself.
"""

import socket
from dataclasses import field

from claude_proxy.config.settings import ClientCredentials
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.proxy.layers.client_auth import proof_of
from claude_proxy.sandbox.relay.relay_target import RelayTarget
from claude_proxy.wire import proxy_protocol

_PATIENCE_S = 4.0
_GREETING = b"\x05\x01\x00"  # SOCKS5 (RFC 1928): one method, no authentication
_SOCKS5 = 0x05
_NO_ACCEPTABLE_METHOD = 0xFF
# A name that is never registered (RFC 6761), so that an unknown proxy reaches nothing by it.
_PROBE = b"CONNECT claude-proxy.invalid:443 HTTP/1.1\r\nHost: claude-proxy.invalid:443\r\n\r\n"
_STATUS_SIZE = len("HTTP/1.1 407")


@dataclass(frozen=True, slots=True)
class JoinedProxy:
    """A running proxy, and what the relay has to prove to it."""

    target: RelayTarget
    foreign: bool = False  # another program than claude-proxy
    password_proof: str = field(default="", repr=False)


def examine(
    target: RelayTarget, login: ClientCredentials | None, *, announces: bool
) -> JoinedProxy:
    """Return what a running proxy is; ClaudeProxyError if it would refuse every request.

    `announces`: whether a relay may send its header there, which only claude-proxy understands. A
    SOCKS5 greeting is answered before a target is named, so nothing is decided or recorded.
    """
    proof = proof_of(login) if login is not None and announces else ""
    header = proxy_protocol.encode("joining", "", "", proof) if announces else b""
    answer = _answer_to(target, header + _GREETING, 2)
    if answer[:1] == bytes((_SOCKS5,)):
        if answer[1:] == bytes((_NO_ACCEPTABLE_METHOD,)):
            raise _refusal(target, login, announces=announces)
        return JoinedProxy(target, password_proof=proof)
    if _answer_to(target, _PROBE, _STATUS_SIZE)[-3:] == b"407":
        raise _foreign_refusal(target)
    return JoinedProxy(target, foreign=announces)


def _answer_to(target: RelayTarget, said: bytes, size: int) -> bytes:
    """Return the first bytes of the answer; fewer if there is none."""
    answer = b""
    with socket.socket(target.family, socket.SOCK_STREAM) as sock:
        sock.settimeout(_PATIENCE_S)
        try:
            sock.connect(target.address)
            sock.sendall(said)
            while len(answer) < size and (piece := sock.recv(size - len(answer))):
                answer += piece
        except OSError:
            pass
    return answer


def _refusal(
    target: RelayTarget, login: ClientCredentials | None, *, announces: bool
) -> ClaudeProxyError:
    where = f"--proxy {target.name}"
    if not announces:
        return ClaudeProxyError(
            "the proxy demands a password, which a run can only prove to one on this machine",
            where=where,
            fix="join a proxy on this machine, or leave --proxy out: the run starts its own",
        )
    if login is None:
        return ClaudeProxyError(
            "the proxy demands a password, so it would refuse every request",
            where=where,
            fix="name the file with its USER:PASSWORD with --proxy-auth-file, or set "
            "CLAUDE_PROXY_AUTH; neither is visible inside",
        )
    return ClaudeProxyError(
        "the proxy does not accept this password",
        where=where,
        fix="give the USER:PASSWORD that the proxy was started with",
    )


def _foreign_refusal(target: RelayTarget) -> ClaudeProxyError:
    return ClaudeProxyError(
        "the proxy is not claude-proxy and demands a password, so it would refuse every request",
        where=f"--proxy {target.name}",
        fix="leave --proxy out, and give the run's own proxy the way there: --upstream-proxy "
        "http://USER:PASSWORD@HOST:PORT, in CLAUDE_PROXY_UPSTREAM_PROXY",
    )
