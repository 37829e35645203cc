"""Target probes: targets that the policy does not allow, in every notation."""

import os
import socket
from collections.abc import Iterator

from claude_proxy.doctor.attack.probes.credentials import message, own
from claude_proxy.doctor.attack.probes.fake_addresses import address_of
from claude_proxy.doctor.attack.probes.outcome import (
    DOCUMENTATION,
    DOCUMENTATION_6,
    POLICY,
    PROXY_S,
    Spec,
    Try,
    stopped,
    through,
)
from claude_proxy.doctor.attack.probes.proxy_client import (
    answer_of,
    ask,
    connect,
    context,
    get,
    inside_tunnel,
    socks_connect,
    socks_ipv4,
    socks_ipv6,
    socks_name,
    tunnel,
)


def honest(spec: Spec) -> Iterator[Try]:
    """Use what is allowed: denials prove something only if this works."""
    host, port = spec["allowed"]
    with tunnel(spec) as plain, context(spec).wrap_socket(plain, server_hostname=host) as tls:
        request = f"GET /honest/ HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        tls.sendall(request.encode())
        answer = answer_of(tls)
    what = f"https://{host}:{port}/honest/"
    if answer.status == 200:  # noqa: PLR2004
        yield through(what, "answered 200")
    else:
        yield stopped(what, POLICY, f"{answer.status} {answer.reason}")
    if spec.get("transparent"):
        yield _at_fake_address(spec, what)
    if spec["bound"]:
        what = "a message with the placeholder"
        yield inside_tunnel(spec, what, message(spec, (own(spec),)), spec["bound"])


def _at_fake_address(spec: Spec, what: str) -> Try:
    """Use what is allowed as a client that knows of no proxy."""
    host, port = spec["allowed"]
    found = address_of(host)
    if not found:
        return stopped(f"the address of {host}", POLICY, "no such name")
    with (
        socket.create_connection((found, port), PROXY_S) as plain,
        context(spec).wrap_socket(plain, server_hostname=host) as tls,
    ):
        request = f"GET /honest/ HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        tls.sendall(request.encode())
        answer = answer_of(tls)
    if answer.status == 200:  # noqa: PLR2004
        return through(f"{what} without the proxy", "answered 200")
    return stopped(f"{what} without the proxy", POLICY, f"{answer.status} {answer.reason}")


def denied_hosts(spec: Spec) -> Iterator[Try]:
    """Request hosts that no rule allows, and look-alikes of an allowed one."""
    denied, (allowed, port) = spec["denied_host"], spec["allowed"]
    for host in (
        denied,
        denied.upper(),
        f"{denied}.",
        f"{allowed}.{denied}",
        f"x{allowed}",
        f"x.{allowed}",
        f"{allowed}..",
        f"[{allowed}]",
        f"{allowed}@{denied}",
        f"{denied}#{allowed}",
        f"{allowed}%2e{denied}",
    ):
        yield connect(spec, f"{host}:{port}")
    yield connect(spec, f"{denied}:443")
    yield get(spec, f"http://{denied}/")
    yield get(spec, f"http://{allowed}:{port}/honest/")


def documentation(spec: Spec) -> Iterator[Try]:
    """Request bare addresses."""
    for address in (*DOCUMENTATION, f"[{DOCUMENTATION_6}]"):
        yield connect(spec, f"{address}:443")
        yield get(spec, f"http://{address}/")


_METADATA = (
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[fd00:ec2::254]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[::a9fe:a9fe]",
)


def metadata(spec: Spec) -> Iterator[Try]:
    """Request the metadata address of clouds, in all its notations."""
    for address in _METADATA:
        yield connect(spec, f"{address}:80")
        yield get(spec, f"http://{address}/latest/meta-data/")
    yield socks_connect(spec, "SOCKS 169.254.169.254:80", socks_ipv4("169.254.169.254"), 80)


def host_listeners(spec: Spec) -> Iterator[Try]:
    """Make the proxy connect to listeners on its own machine, including itself."""
    for _, port in spec["canaries"].get("tcp", []):
        for address in (
            "127.0.0.1",
            "localhost",
            "[::1]",
            "0.0.0.0",  # noqa: S104 - a target, not listened on
            "[::]",
            "127.1",
            "2130706433",
            "[::ffff:127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
        ):
            yield connect(spec, f"{address}:{port}")
        yield get(spec, f"http://127.0.0.1:{port}/")
        yield socks_connect(spec, f"SOCKS 127.0.0.1:{port}", socks_ipv4("127.0.0.1"), port)


def proxy_itself(spec: Spec) -> Iterator[Try]:
    """Make the proxy connect to itself, or to another proxy on this machine."""
    ports = {spec["proxy"][1], spec["socks"][1], *spec["own_ports"]}
    for port in sorted(ports):
        yield connect(spec, f"127.0.0.1:{port}")
        yield connect(spec, f"localhost:{port}")
        yield get(spec, f"http://127.0.0.1:{port}/")
    yield ask(spec, "GET / without a host", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    yield ask(spec, "GET unix:", b"GET unix:/run/docker.sock HTTP/1.1\r\nHost: x\r\n\r\n")


def odd_ports(spec: Spec) -> Iterator[Try]:
    """Request an allowed host on ports that its rule does not name, and on odd notations."""
    host, port = spec["allowed"]
    for spelled in ("22", "25", "53", "80", "0", "65536", f"0{port}", f"+{port}", f" {port}", ""):
        yield connect(spec, f"{host}:{spelled}")
    yield connect(spec, f"{host}:{port}:22")
    yield connect(spec, f"{host}:{port + 65536}")


def socks(spec: Spec) -> Iterator[Try]:
    """Send SOCKS5 requests: names with NUL and line breaks, bare addresses, UDP, BIND."""
    denied, (allowed, port) = spec["denied_host"].encode(), spec["allowed"]
    good = allowed.encode()
    names = (
        ("a denied name", denied),
        ("NUL in a name", denied + b"\0." + good),
        ("NUL after a name", good + b"\0"),
        ("CRLF in a name", denied + b"\r\n." + good),
        ("a space in a name", denied + b" " + good),
        ("a percent in a name", denied + b"%00." + good),
        ("an empty name", b""),
        ("a name of 255 bytes", (b"a" * 63 + b".") * 3 + b"a" * 63),
        ("an address as a name", b"127.0.0.1"),
        ("a number as a name", b"2130706433"),
        ("bytes beyond ASCII", "allowed．test".encode()),
    )
    for what, name in names:
        yield socks_connect(spec, what, socks_name(name), port)
    yield socks_connect(spec, "192.0.2.1", socks_ipv4("192.0.2.1"), 443)
    yield socks_connect(spec, "2001:db8::1", socks_ipv6(DOCUMENTATION_6), 443)
    yield socks_connect(spec, "::ffff:127.0.0.1", socks_ipv6("::ffff:127.0.0.1"), port)
    yield socks_connect(spec, "an odd port", socks_name(good), 22)
    yield socks_connect(spec, "BIND", socks_name(good), port, command=2)
    yield socks_connect(spec, "UDP ASSOCIATE", socks_ipv4("0.0.0.0"), 0, command=3)  # noqa: S104


def broken_names(spec: Spec) -> Iterator[Try]:
    """Put line breaks, NUL and other separators into the target of a CONNECT."""
    denied, (allowed, port) = spec["denied_host"].encode(), spec["allowed"]
    good = f"{allowed}:{port}".encode()
    for middle in (b"\0", b"%00", b"%0d%0a", b"\r", b"\n", b"\t", b" ", b"\\", b"/", b"?", b"\xff"):
        target = denied + b":443" + middle + b"." + good
        shown = middle.decode("latin-1").encode("unicode_escape").decode()
        request = b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, good)
        yield ask(spec, f"{shown!r} in the target", request)
    wide = "".join(chr(ord(c) + 0xFEE0) for c in "allowed")
    yield connect(spec, f"{wide}.{allowed.partition('.')[2]}:{port}", "full-width letters")


def names_as_letters(spec: Spec) -> Iterator[Try]:
    """Encode data in DNS names; the proxy must not look up any of them."""
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    for _ in range(10):
        label = "".join(alphabet[byte % 32] for byte in os.urandom(60))
        yield connect(spec, f"{label}.{spec['denied_host']}:443", f"{label[:12]}....")
