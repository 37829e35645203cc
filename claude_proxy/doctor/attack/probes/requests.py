"""Request probes: forbidden requests in an allowed tunnel."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress

from claude_proxy.doctor.attack.probes.outcome import POLICY, Spec, Try, stopped, through
from claude_proxy.doctor.attack.probes.proxy_client import (
    ask,
    inside_tunnel,
    trusting_context,
    tunnel,
)


def fronting_by_sni(spec: Spec) -> Iterator[Try]:
    """Use another name in TLS than in the CONNECT, or none, also in small pieces."""
    host, _ = spec["allowed"]
    for what, name, step in (
        ("another name", spec["denied_host"], 0),
        ("no name", None, 0),
        ("an address", "192.0.2.1", 0),
        ("a name below", f"x.{host}", 0),
        ("another name, byte by byte", spec["denied_host"], 1),
    ):
        yield _handshake(spec, what, name, step)


def _handshake(spec: Spec, what: str, name: str | None, step: int) -> Try:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trusting_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with tunnel(spec) as sock, suppress(ConnectionError):
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                _send(sock, outgoing.read(), step)
            except ssl.SSLError as problem:
                return stopped(what, POLICY, f"TLS alert: {(problem.reason or '').lower()}")
            else:
                return through(what, "the handshake succeeded")
            if not (piece := sock.recv(4096)):
                break
            incoming.write(piece)
    return stopped(what, POLICY, "closed without a word")


def _send(sock: socket.socket, data: bytes, step: int) -> None:
    if not step:
        sock.sendall(data)
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, len(data), step):
        sock.sendall(data[at : at + step])


def fronting_by_host(spec: Spec) -> Iterator[Try]:
    """Use another host in the request than in the CONNECT and in TLS."""
    denied, (host, port) = spec["denied_host"], spec["allowed"]
    end = "Connection: close\r\n\r\n"
    own = f"Host: {host}:{port}\r\n"
    for what, head in (
        ("another Host", f"GET /honest/a HTTP/1.1\r\nHost: {denied}\r\n"),
        ("two Hosts", f"GET /honest/a HTTP/1.1\r\n{own}Host: {denied}\r\n"),
        ("no Host", "GET /honest/a HTTP/1.1\r\n"),
        ("an absolute URL", f"GET https://{denied}/honest/a HTTP/1.1\r\n{own}"),
        ("an absolute URL, plain", f"GET http://{denied}/honest/a HTTP/1.1\r\n{own}"),
        ("another port", f"GET /honest/a HTTP/1.1\r\nHost: {host}:22\r\n"),
        ("a Host with user info", f"GET /honest/a HTTP/1.1\r\nHost: {host}:{port}@{denied}\r\n"),
        ("CONNECT in the tunnel", f"CONNECT {denied}:443 HTTP/1.1\r\nHost: {denied}:443\r\n"),
        ("a space before the colon", f"GET /honest/a HTTP/1.1\r\nHost : {denied}\r\n{own}"),
    ):
        yield inside_tunnel(spec, what, head + end)


def other_requests(spec: Spec) -> Iterator[Try]:
    """Use paths and methods on an allowed host that its rule does not allow."""
    host, port = spec["allowed"]
    end = f" HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
    for path in (
        "/",
        "/other",
        "/honest/../other",
        "/honest/%2e%2e/other",
        "/honest/..%2fother",
        "/honest/..;/other",
        "//other",
        "/honest\\..\\other",
        "/HONEST/a",
    ):
        yield inside_tunnel(spec, f"GET {path}", f"GET {path}{end}\r\n")
    for method in ("DELETE", "PUT", "TRACE", "get", "PRI"):
        yield inside_tunnel(spec, method, f"{method} /honest/a{end}\r\n")
    field = "Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
    yield inside_tunnel(
        spec, "an upgrade", f"GET /honest/a HTTP/1.1\r\nHost: {host}:{port}\r\n{field}"
    )


def smuggling(spec: Spec) -> Iterator[Try]:
    """Hide a request in another one, so that the server reads two where the proxy read one."""
    host, port = spec["allowed"]
    own = f"Host: {host}:{port}\r\n"
    hidden = f"GET /smuggled HTTP/1.1\r\n{own}\r\n"
    length = f"Content-Length: {len(hidden)}\r\n"
    chunked = "Transfer-Encoding: chunked\r\n"
    post = f"POST /honest/a HTTP/1.1\r\n{own}"
    for what, request in (
        ("length and chunks", f"{post}Content-Length: 4\r\n{chunked}\r\n0\r\n\r\n{hidden}"),
        ("chunks and length", f"{post}{chunked}{length}\r\n0\r\n\r\n{hidden}"),
        ("two lengths", f"{post}Content-Length: 0\r\n{length}\r\n{hidden}"),
        ("+ before the length", f"{post}Content-Length: +{len(hidden)}\r\n\r\n{hidden}"),
        ("an unknown coding", f"{post}Transfer-Encoding: xchunked\r\n\r\n{hidden}"),
        ("two codings", f"{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        ("a bare line feed", f"{post}X: a\n{length}\r\n{hidden}"),
        ("a folded field", f"{post}X: a\r\n {length}\r\n{hidden}"),
        ("a chunk's size cut short", f"{post}{chunked}\r\n1;a\nb\r\nx\r\n0\r\n\r\n{hidden}"),
        ("a chunk's size too large", f"{post}{chunked}\r\nfffffffffffffffff\r\nx\r\n0\r\n\r\n"),
        ("a space in a name", f"{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ("HTTP/1.0 and chunks", f"POST /honest/a HTTP/1.0\r\n{own}{chunked}\r\n0\r\n\r\n{hidden}"),
        ("a NUL in a field", f"GET /honest/a HTTP/1.1\r\n{own}X: a\0b\r\n\r\n"),
        ("a line break in a path", f"GET /honest/a\rX HTTP/1.1\r\n{own}\r\n"),
    ):
        yield inside_tunnel(spec, what, request)


def plain_bytes(spec: Spec) -> Iterator[Try]:
    """Send something other than TLS in a tunnel."""
    host, port = spec["allowed"]
    for what, data in (
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n"),
        ("plain HTTP", f"GET /honest/a HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()),
        ("HTTP/2 without TLS", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
        ("zeros", bytes(64)),
        ("SMTP", b"EHLO doctor\r\n"),
        ("SSLv2", b"\x80\x2e\x01\x00\x02" + bytes(43)),
        ("half a ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600)),
    ):
        try:
            with tunnel(spec) as sock:
                sock.sendall(data)
                got = sock.recv(4096)
        except TimeoutError:
            yield through(what, "not denied in time")
            continue
        except (BrokenPipeError, ConnectionResetError):
            got = b""
        alert = b"\x15"
        if not got or got.startswith(alert):
            yield stopped(what, POLICY, "TLS alert" if got else "closed without a word")
        else:
            yield through(what, f"an answer of {len(got)} bytes")


def forged_origin(spec: Spec) -> Iterator[Try]:
    """Claim another identity: a PROXY header, fields that name another client or host."""
    denied, (host, port) = spec["denied_host"], spec["allowed"]
    signature = b"\r\n\r\n\0\r\nQUIT\n"
    line = f"CONNECT {denied}:443 HTTP/1.1\r\nHost: {denied}:443\r\n"
    local = signature + b"\x20\x00\x00\x00"
    ipv4 = signature + b"\x21\x11\x00\x0c" + socket.inet_aton("127.0.0.1") * 2 + bytes(4)
    for what, head in (
        ("a PROXY header, local", local),
        ("a PROXY header, 127.0.0.1", ipv4),
        ("a PROXY line", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1\r\n"),
    ):
        yield ask(spec, what, head + line.encode() + b"\r\n")
    for field in ("X-Forwarded-For: 127.0.0.1", f"X-Forwarded-Host: {host}:{port}"):
        yield ask(spec, field.partition(":")[0], f"{line}{field}\r\n\r\n".encode())
