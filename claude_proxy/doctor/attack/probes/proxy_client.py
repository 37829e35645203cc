"""Client of the proxy for probes: HTTP and SOCKS requests, and the outcome of each."""

import socket
import ssl
import struct
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from claude_proxy.doctor.attack.probes.outcome import POLICY, PROXY_S, Spec, Try, stopped, through

_HEAD = 64 * 1024
_BAD_GATEWAY = 502
_CLIENT_ERRORS = range(400, 500)


class ProxyAnswer(NamedTuple):
    """The proxy's response to a request."""

    status: int  # 0: no response
    reason: str
    rest: bytes


def proxy(spec: Spec) -> socket.socket:
    """Connect to the proxy."""
    host, port = spec["proxy"]
    sock = socket.create_connection((host, port), PROXY_S)
    sock.settimeout(PROXY_S)
    return sock


def login(spec: Spec) -> str:
    """Return the field that a proxy with a password demands, as a line; empty without one."""
    given = spec.get("login")
    if not given:
        return ""
    return f"Proxy-Authorization: Basic {b64encode(given.encode()).decode()}\r\n"


def answer_of(sock: socket.socket) -> ProxyAnswer:
    """Read one response head, empty if the connection is closed; TimeoutError if it stays open."""
    got = b""
    with suppress(ConnectionError, ssl.SSLError):
        while b"\r\n\r\n" not in got and len(got) < _HEAD:
            piece = sock.recv(4096)
            if not piece:
                break
            got += piece
    head, _, rest = got.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    reason = ""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"x-claude-proxy-reason":
            reason = value.strip().decode("ascii", "replace")
    return ProxyAnswer(status, reason, rest)


def judged(what: str, answer: ProxyAnswer) -> Try:
    """Return the outcome for a response; a failure to connect means that the proxy allowed it."""
    if answer.status == 0:
        return stopped(what, POLICY, "closed without a response")
    if answer.status == _BAD_GATEWAY and not answer.reason:
        raise RuntimeError("the relay has no proxy behind it")
    if answer.status in _CLIENT_ERRORS and answer.reason:
        return stopped(what, POLICY, answer.reason)
    return through(what, f"answered {answer.status} {answer.reason}".rstrip())


def ask(spec: Spec, what: str, request: bytes) -> Try:
    """Send bytes to the proxy and return the outcome of its first response."""
    try:
        with proxy(spec) as sock:
            sock.sendall(request)
            return judged(what, answer_of(sock))
    except TimeoutError:
        return through(what, "not denied in time")
    except (BrokenPipeError, ConnectionResetError):
        return stopped(what, POLICY, "closed without a response")


def connect(spec: Spec, target: str | bytes, what: str | None = None) -> Try:
    """Request a tunnel to a target, written as given."""
    raw = target if isinstance(target, bytes) else target.encode()
    request = b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (raw, raw, login(spec).encode())
    return ask(spec, what or f"CONNECT {raw.decode('ascii', 'backslashreplace')}", request)


def get(spec: Spec, url: str) -> Try:
    """Request a URL without TLS."""
    host = url.split("/")[2]
    request = f"GET {url} HTTP/1.1\r\nHost: {host}\r\n{login(spec)}Connection: close\r\n\r\n"
    return ask(spec, f"GET {url}", request.encode())


def tunnel(spec: Spec, at: Sequence[Any] | None = None) -> socket.socket:
    """Open a tunnel to a host and port, by default to the allowed target."""
    host, port = at or spec["allowed"]
    sock = proxy(spec)
    head = f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{login(spec)}\r\n"
    sock.sendall(head.encode())
    answer = answer_of(sock)
    if answer.status != 200:  # noqa: PLR2004
        sock.close()
        raise RuntimeError(f"the allowed tunnel is denied: {answer.status} {answer.reason}")
    return sock


def context(spec: Spec) -> ssl.SSLContext:
    """Return a TLS context that trusts the proxy's CA."""
    return ssl.create_default_context(cafile=spec["ca"])


def trusting_context() -> ssl.SSLContext:
    """Return a TLS context that trusts every certificate, for handshakes that must fail."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname = False
    found.verify_mode = ssl.CERT_NONE
    return found


def inside_tunnel(
    spec: Spec, what: str, request: str | bytes, at: Sequence[Any] | None = None
) -> Try:
    """Send a request over TLS to a host, by default the allowed one; return the outcome."""
    host, _ = at or spec["allowed"]
    raw = request if isinstance(request, bytes) else request.encode()
    try:
        with (
            tunnel(spec, at) as plain,
            context(spec).wrap_socket(plain, server_hostname=host) as tls,
        ):
            tls.sendall(raw)
            return judged(what, answer_of(tls))
    except TimeoutError:
        return through(what, "not denied in time")
    except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
        return stopped(what, POLICY, "closed without a response")


# Without authentication, or with a user name and password (RFC 1928 and 1929).
_SOCKS_GREETING = b"\x05\x01\x00"
_SOCKS_LOGIN_GREETING = b"\x05\x01\x02"
_SOCKS_FAILED = 1
_SOCKS_DENIED = {2, 7, 8}


def socks_name(name: bytes) -> bytes:
    """Return a name as a SOCKS5 target."""
    return b"\x03" + bytes([len(name)]) + name


def socks_ipv4(address: str) -> bytes:
    """Return an IPv4 address as a SOCKS5 target."""
    return b"\x01" + socket.inet_aton(address)


def socks_ipv6(address: str) -> bytes:
    """Return an IPv6 address as a SOCKS5 target."""
    return b"\x04" + socket.inet_pton(socket.AF_INET6, address)


def socks_connect(spec: Spec, what: str, address: bytes, port: int, command: int = 1) -> Try:
    """Send a SOCKS5 request; replies 0x03 to 0x05 mean that a connection was tried."""
    asked = b"\x05" + bytes([command]) + b"\x00" + address + struct.pack(">H", port)
    try:
        with socket.create_connection(tuple(spec["socks"]), PROXY_S) as sock:
            sock.settimeout(PROXY_S)
            _greet(spec, sock)
            sock.sendall(asked)
            reply = sock.recv(262)
    except TimeoutError:
        return through(what, "not denied in time")
    except (BrokenPipeError, ConnectionResetError):
        reply = b""
    code = reply[1] if len(reply) > 1 else None
    if code is None:
        return stopped(what, POLICY, "closed without a response")
    if code == _SOCKS_FAILED:
        raise RuntimeError("the relay has no proxy behind it")
    if code in _SOCKS_DENIED:
        return stopped(what, POLICY, f"reply 0x{code:02x}")
    return through(what, f"reply 0x{code:02x}")


def _greet(spec: Spec, sock: socket.socket) -> None:
    """Agree on how to authenticate, and do it; RuntimeError if the other side is no SOCKS proxy."""
    given = spec.get("login")
    greeting = _SOCKS_LOGIN_GREETING if given else _SOCKS_GREETING
    sock.sendall(greeting)
    chosen = sock.recv(2)
    if chosen != b"\x05" + greeting[2:]:
        raise RuntimeError(f"no SOCKS proxy there: {chosen!r}")
    if given:
        user, _, password = given.encode().partition(b":")
        words = (bytes([len(word)]) + word for word in (user, password))
        sock.sendall(b"\x01" + b"".join(words))
        answer = sock.recv(2)
        if answer != b"\x01\x00":
            raise RuntimeError(f"the SOCKS proxy refused the password: {answer!r}")
