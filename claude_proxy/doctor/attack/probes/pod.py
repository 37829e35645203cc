"""Pod probes: ways out of a network namespace that has addresses, beside the proxy.

A wall of a cluster may drop a packet after it was sent, without an error. So a try is through when
somebody answers, and each wall needs canaries that would: addresses which answer everybody else.
"""

import socket
import struct
from collections.abc import Iterator, Sequence

from claude_proxy.doctor.attack.probes.dns import resolvers
from claude_proxy.doctor.attack.probes.network import raw_sockets
from claude_proxy.doctor.attack.probes.outcome import (
    DIRECT_S,
    NAMESPACE,
    POLICY,
    Spec,
    Try,
    attempt,
    stopped,
    through,
)
from claude_proxy.doctor.attack.probes.proxy_client import answer_of, login, proxy

_DENIED = 403
_METADATA = ("169.254.169.254", "fd00:ec2::254")
_DOCUMENTATION = ("192.0.2.1", "2001:db8::1")
_FOREIGN_RESOLVER = "192.0.2.53"
_ROUTES = "/proc/net/route"


def pod_proxy(spec: Spec) -> Iterator[Try]:
    """Ask the proxy for a host that it denies: other denials prove something only if it answers."""
    what = f"the proxy at {spec['proxy'][0]} port {spec['proxy'][1]}"
    target = f"{spec['denied_host']}:443"
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login(spec)}\r\n"
    with proxy(spec) as sock:
        sock.sendall(request.encode())
        answer = answer_of(sock)
    if answer.status == _DENIED and answer.reason:
        yield through(what, f"denied {target} ({answer.reason})")
    else:
        yield stopped(what, POLICY, f"answered {answer.status} {answer.reason}".rstrip())


def pod_tcp(spec: Spec) -> Iterator[Try]:
    """Connect to the canaries, to name servers, to the metadata service, to other machines."""
    places = [tuple(place) for place in spec["canaries"]["tcp"]]
    places += [(server, 53) for server in resolvers()]
    places += [(address, 80) for address in _METADATA]
    places += [(address, 443) for address in _DOCUMENTATION]
    for address, port in dict.fromkeys(places):
        yield _connected(address, port)


def _connected(address: str, port: int) -> Try:
    what = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    try:
        socket.create_connection((address, port), DIRECT_S).close()
    except TimeoutError:
        return stopped(what, NAMESPACE, "no answer")
    except OSError as error:
        return stopped(what, NAMESPACE, (error.strerror or type(error).__name__).lower())
    return through(what, "connected")


def pod_udp(spec: Spec) -> Iterator[Try]:
    """Ask name servers by UDP, and the canaries."""
    question = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x07example\x03com\0\0\x01\0\x01"
    places = [tuple(place) for place in spec["canaries"]["udp"]]
    places += [(server, 53) for server in (*resolvers(), _FOREIGN_RESOLVER)]
    for address, port in dict.fromkeys(places):
        yield _answered(f"UDP {address} port {port}", address, port, question)


def _answered(what: str, address: str, port: int, data: bytes) -> Try:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(DIRECT_S)
            sock.connect((address, port))
            sock.send(data)
            got = sock.recv(512)
    except TimeoutError:
        return stopped(what, NAMESPACE, "no answer")
    except OSError as error:
        return stopped(what, NAMESPACE, (error.strerror or "").lower())
    return through(what, f"an answer of {len(got)} bytes")


def pod_names(spec: Spec) -> Iterator[Try]:
    """Look up names as programs do."""
    for name in spec["lookups"]:
        try:
            found = socket.getaddrinfo(name, 443)
        except socket.gaierror as problem:
            yield stopped(f"getaddrinfo {name}", NAMESPACE, f"no answer ({problem.errno})")
        else:
            yield through(f"getaddrinfo {name}", str(found[0][4][0]))


def pod_ping(spec: Spec) -> Iterator[Try]:
    """Ping what would answer: the canaries and the gateway of the namespace."""
    hosts = [address for address, _ in spec["canaries"]["tcp"]]
    for address in dict.fromkeys([*hosts, *_gateways(), "192.0.2.1"]):
        yield _pinged(address)


def _pinged(address: str) -> Try:
    six = ":" in address
    family = socket.AF_INET6 if six else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    request = b"\x80\x00\x00\x00\x00\x00\x00\x00" if six else b"\x08\x00\xf7\xff\x00\x00\x00\x00"
    try:
        with socket.socket(family, socket.SOCK_DGRAM, protocol) as sock:
            sock.settimeout(DIRECT_S)
            sock.sendto(request, (address, 0))
            sock.recv(64)
    except TimeoutError:
        return stopped(f"ping {address}", NAMESPACE, "no answer")
    except OSError as error:
        return stopped(f"ping {address}", NAMESPACE, (error.strerror or "").lower())
    return through(f"ping {address}", "answered")


def _gateways() -> Sequence[str]:
    """Return the IPv4 addresses of the routers of this network namespace."""
    found = []
    try:
        with open(_ROUTES, encoding="ascii") as file:  # noqa: PTH123 - imports less
            rows = [line.split() for line in file][1:]
    except OSError:
        return []
    for row in rows:
        gateway = int(row[2], 16)
        if gateway:
            found.append(socket.inet_ntoa(struct.pack("=I", gateway)))
    return found


def pod_raw(_: Spec) -> Iterator[Try]:
    """Create sockets for raw IP."""
    for what, make in raw_sockets():
        yield attempt(what, make)
