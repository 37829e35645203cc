"""Network probes without the proxy: other machines, other families, the host's loopback."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial

from claude_proxy.doctor.attack.probes.outcome import (
    DENIED,
    DIRECT_S,
    DOCUMENTATION,
    DOCUMENTATION_6,
    Spec,
    Try,
    attempt,
    refused,
    through,
)
from claude_proxy.doctor.attack.probes.syscalls import HIGH_BIT, call


def direct_tcp(_: Spec) -> Iterator[Try]:
    """Connect to other machines without the proxy."""
    ports = (443, 80, 53, 22)
    for address, port in zip((*DOCUMENTATION, DOCUMENTATION_6), ports, strict=True):
        yield _direct(address, port)


def _direct(address: str, port: int) -> Try:
    what = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(DIRECT_S)
            sock.connect((address, port))
    except TimeoutError:
        return through(what, "a packet was sent, and there was no answer")
    except OSError as problem:
        if problem.errno in {errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.ECONNRESET}:
            return through(what, f"a packet was sent: {problem.strerror}")
        return refused(what, problem)
    return through(what, "connected")


def direct_udp(_: Spec) -> Iterator[Try]:
    """Send datagrams to other machines: DNS, QUIC, NTP."""
    for address, port in (("192.0.2.53", 53), ("198.51.100.1", 443), (DOCUMENTATION_6, 123)):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def act(address: str = address, port: int = port, family: int = family) -> None:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"claude-proxy doctor", (address, port))

        yield attempt(f"{address} port {port}", act)


def raw_ip(_: Spec) -> Iterator[Try]:
    """Create sockets for raw IP: ICMP, and any protocol."""
    for what, make in raw_sockets():
        yield attempt(what, make)
    yield attempt("ping", _ping)


def raw_sockets() -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield what makes each kind of socket for raw IP."""
    kinds = (
        ("raw ICMP", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        ("raw IP", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
        ("raw ICMPv6", socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    )
    for what, family, kind, protocol in kinds:
        yield what, partial(_make, family, kind, protocol)


def _ping() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        sock.sendto(b"\x08\x00\xf7\xff\x00\x00\x00\x00", ("192.0.2.1", 0))


# Families whose sockets ignore network namespaces, or receive whole frames.
_FAMILIES = {
    "AF_PACKET": 17,
    "AF_RDS": 21,
    "AF_CAN": 29,
    "AF_TIPC": 30,
    "AF_BLUETOOTH": 31,
    "AF_ALG": 38,
    "AF_NFC": 39,
    "AF_VSOCK": 40,
    "AF_QIPCRTR": 42,
    "AF_XDP": 44,
}


def packet_sockets(_: Spec) -> Iterator[Try]:
    """Create a socket that sends and receives whole frames."""
    for kind, name in ((socket.SOCK_RAW, "raw"), (socket.SOCK_DGRAM, "cooked")):
        act = partial(_make, _FAMILIES["AF_PACKET"], kind)
        yield attempt(f"AF_PACKET {name}", act, filtered=True)


def vsock(spec: Spec) -> Iterator[Try]:
    """Connect to the host of this VM, or to a listener on it, by AF_VSOCK."""
    family = _FAMILIES["AF_VSOCK"]
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        what = f"a socket of kind {int(kind)}"
        yield attempt(what, partial(_make, family, kind), filtered=True)
    port = spec["canaries"].get("vsock")
    if port is not None:
        yield attempt("the canary", partial(_vsock_connect, port), filtered=True)


def _vsock_connect(port: int) -> None:
    local = 1  # VMADDR_CID_LOCAL
    with socket.socket(_FAMILIES["AF_VSOCK"], socket.SOCK_STREAM) as sock:
        sock.settimeout(DIRECT_S)
        sock.connect((local, port))


def other_families(_: Spec) -> Iterator[Try]:
    """Create sockets of other families, also with bits set that a wrong filter ignores."""
    for name, number in _FAMILIES.items():
        if name in {"AF_PACKET", "AF_VSOCK"}:
            continue
        yield attempt(name, partial(_any_socket, number), filtered=True)
    yield attempt("AF_VSOCK with a high bit", _vsock_with_a_high_bit, filtered=True)


def _make(family: int, kind: int, protocol: int = 0) -> None:
    socket.socket(family, kind, protocol).close()


def _vsock_with_a_high_bit() -> None:
    os.close(call("socket", _FAMILIES["AF_VSOCK"] | HIGH_BIT, int(socket.SOCK_STREAM), 0))


def _any_socket(family: int) -> None:
    kinds = (socket.SOCK_RAW, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM)
    problem = OSError(errno.EAFNOSUPPORT, "no kind of it")
    for kind in kinds:
        try:
            socket.socket(family, kind, 0).close()
        except OSError as found:
            # A denial is more telling than an unknown kind.
            problem = found if found.errno in DENIED else problem
        else:
            return
    raise problem


def host_loopback(spec: Spec) -> Iterator[Try]:
    """Connect to listeners on the host's loopback interface."""
    for address, port in spec["canaries"].get("tcp", []):
        what = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

        def act(address: str = address, port: int = port) -> str:
            with socket.create_connection((address, port), DIRECT_S) as sock:
                return sock.recv(64).decode("ascii", "replace").strip()

        yield attempt(what, act)
    for address, port in spec["canaries"].get("udp", []):

        def datagram(address: str = address, port: int = port) -> str:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(DIRECT_S)
                sock.connect((address, port))
                sock.send(b"?")
                return sock.recv(64).decode("ascii", "replace")

        yield attempt(f"UDP {address}:{port}", datagram)
