"""DNS probes: name lookups without the proxy."""

import socket
from collections.abc import Iterator

from claude_proxy.doctor.attack.probes.outcome import (
    DIRECT_S,
    NAMESPACE,
    Spec,
    Try,
    read,
    refused,
    stopped,
    through,
)

_NO_SUCH_NAME = 3  # RCODE


def name_lookups(spec: Spec) -> Iterator[Try]:
    """Look up names: with the system's resolver, a local resolver, a remote one."""
    for name in (spec["denied_host"], "localhost.localdomain.claude-proxy-doctor.test"):
        yield _lookup(name)
    for resolver in ("127.0.0.53", "127.0.0.1", "192.0.2.53", *resolvers()):
        yield _ask_resolver(resolver, spec["denied_host"])


def _lookup(name: str) -> Try:
    try:
        found = socket.getaddrinfo(name, 443)
    except socket.gaierror as problem:
        return stopped(f"getaddrinfo {name}", NAMESPACE, f"no answer ({problem.errno})")
    return through(f"getaddrinfo {name}", str(found[0][4][0]))


def resolvers() -> Iterator[str]:
    """Yield the name servers that this system uses."""
    for line in read("/etc/resolv.conf").decode("utf-8", "replace").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            yield words[1].partition("%")[0]


def _ask_resolver(resolver: str, name: str) -> Try:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\0\0\x01\0\x01"
    family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
    what = f"a query to {resolver}"
    near = resolver.startswith("127.") or resolver == "::1"
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(DIRECT_S)
            sock.connect((resolver, 53))
            sock.send(query)
            answer = sock.recv(512)
    except TimeoutError:
        if near:
            return stopped(what, NAMESPACE, "no answer")
        return through(what, "a query was sent, and there was no answer")
    except OSError as problem:
        return refused(what, problem)
    if near and _knows_nothing(answer):
        return stopped(what, NAMESPACE, "no such name")
    return through(what, f"an answer of {len(answer)} bytes")


def _knows_nothing(answer: bytes) -> bool:
    """Tell whether an answer is NXDOMAIN without any record (RFC 1035, section 4.1.1)."""
    code, records = answer[3:4], answer[6:12]
    return bool(code) and code[0] & 0x0F == _NO_SUCH_NAME and not any(records)
