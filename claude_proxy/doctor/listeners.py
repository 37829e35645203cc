"""Listener checks: which program answers where clients expect the proxy.

claude-proxy is recognised by its answer to a CONNECT that no policy can allow: a name in `.invalid`
(RFC 6761), for which there is no DNS query. The proxy records that denial like any other.
"""

import os
import pwd
import socket
import struct
from pathlib import Path
from typing import Final

from claude_proxy.config.settings import Listen, TcpListen, UnixListen
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.finding import Finding, error, ok, warning
from claude_proxy.proxy.responses import REASON_FIELD

_TARGET: Final = "claude-proxy-doctor.invalid:443"
_REQUEST: Final = f"CONNECT {_TARGET} HTTP/1.1\r\nHost: {_TARGET}\r\n\r\n".encode()
_LIMIT_S: Final = 4.0
_HEAD_LIMIT: Final = 64 * 1024
_LISTENING: Final = "0A"  # TCP_LISTEN in /proc/net/tcp
_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_PEER: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_EVERYWHERE: Final = {"0.0.0.0", "::"}  # noqa: S104 - compared, not listened on
_START: Final = "claude-proxy serve"


def check_listeners(subject: Subject) -> list[Finding]:
    """Check each address where the proxy listens."""
    return [_check(place, proxied=leads_here(subject)) for place in subject.settings.listen]


def leads_here(subject: Subject) -> bool:
    """Tell whether the shell's variables lead its programs to the proxy of these settings."""
    ours = {str(one) for one in subject.settings.listen if isinstance(one, TcpListen)}
    named = (subject.environ.get(name, "") for name in ("https_proxy", "HTTPS_PROXY"))
    return any(value.rpartition("://")[2].rpartition("@")[2].rstrip("/") in ours for value in named)


def _check(place: Listen, *, proxied: bool) -> Finding:
    match place:
        case TcpListen():
            return _check_tcp(place, proxied=proxied)
        case UnixListen():
            return _check_unix(place)
        case _:
            return ok("listener", f"{place} is inherited at the start")


def _check_tcp(place: TcpListen, *, proxied: bool) -> Finding:
    name = "listener"
    if place.port == 0:
        return ok(name, f"{place}: a free port is chosen at the start")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(place.host, place.host)  # noqa: S104
    try:
        with socket.create_connection((host, place.port), timeout=_LIMIT_S) as connection:
            answers = _is_claude_proxy(connection)
    except ConnectionRefusedError:
        return _check_free(place, proxied=proxied)
    except OSError as problem:
        return error(name, f"{place}: {_reason(problem)}", "check the address, or use another one")
    if not answers:
        fix = f"stop it, or choose another port: --port {place.port + 1}"
        return error(name, f"another program listens on {place}", fix)
    owner = _owner_of(place)
    if owner is None or owner == os.geteuid():
        whose = "yours" if owner is not None else "owner unknown"
        return ok(name, f"{place}: claude-proxy answers ({whose})")
    what = f"{place}: claude-proxy of {_name_of(owner)} answers, with another policy than yours"
    return warning(name, what, f"choose another port: --port {place.port + 1}")


def _check_free(place: TcpListen, *, proxied: bool) -> Finding:
    """Check that the port can be listened on; the socket is closed again."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((place.host, place.port))
    except OSError as problem:
        fix = f"choose another port: --port {place.port + 1}"
        return error("listener", f"{place} cannot be listened on: {_reason(problem)}", fix)
    if proxied:
        what = f"claude-proxy is not running on {place}, which this shell's variables name"
        return warning("listener", what, _START)
    return ok("listener", f"claude-proxy is not running on {place}; the port is free")


def _check_unix(place: UnixListen) -> Finding:
    name = "listener"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_LIMIT_S)
        try:
            connection.connect(str(place.path))
            uid = _peer_of(connection)
            answers = _is_claude_proxy(connection)
        except (FileNotFoundError, ConnectionRefusedError) as problem:
            left = isinstance(problem, ConnectionRefusedError)
            state = "a stale socket is replaced at the start" if left else "the path is free"
            return ok(name, f"claude-proxy is not running on {place}; {state}")
        except OSError as problem:
            return error(name, f"{place}: {_reason(problem)}", "use another --listen unix:PATH")
    if not answers:
        return error(name, f"another program listens on {place}", "use another path")
    if uid not in (None, os.geteuid()):
        what = f"{place}: claude-proxy of {_name_of(uid or 0)} answers"
        return warning(name, what, "use another path")
    return ok(name, f"{place}: claude-proxy answers (yours)")


def is_claude_proxy_at(host: str, port: int) -> bool:
    """Tell whether claude-proxy listens there; OSError if nothing does."""
    with socket.create_connection((host, port), timeout=_LIMIT_S) as connection:
        return _is_claude_proxy(connection)


def _is_claude_proxy(connection: socket.socket) -> bool:
    """Tell by the answer; a program that does not answer in time is another one."""
    connection.settimeout(_LIMIT_S)
    answer = b""
    try:
        connection.sendall(_REQUEST)
        while b"\r\n\r\n" not in answer and len(answer) < _HEAD_LIMIT:
            piece = connection.recv(4096)
            if not piece:
                break
            answer += piece
    except OSError:
        return False
    head = answer.partition(b"\r\n\r\n")[0].lower()
    return f"\r\n{REASON_FIELD.lower()}:".encode() in head


def _peer_of(connection: socket.socket) -> int | None:
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, option, _PEER.size)
    return int(_PEER.unpack(credentials)[1])


def _owner_of(place: TcpListen) -> int | None:
    """Return the user whose socket listens there, from /proc/net/tcp."""
    for table in _TABLES:
        try:
            rows = [line.split() for line in table.read_text("ascii").splitlines()[1:]]
        except (OSError, UnicodeDecodeError):
            continue
        for row in rows:
            address, _, port = row[1].rpartition(":")
            if row[3] == _LISTENING and int(port, 16) == place.port and _is(address, place.host):
                return int(row[7])
    return None


def _is(address: str, host: str) -> bool:
    """Compare an address of /proc/net/tcp (32-bit words in the machine's byte order)."""
    words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
    packed = b"".join(words)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6  # noqa: PLR2004
    return socket.inet_ntop(family, packed) in {host, *_EVERYWHERE}


def _name_of(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _reason(problem: OSError) -> str:
    return (problem.strerror or type(problem).__name__).lower()
