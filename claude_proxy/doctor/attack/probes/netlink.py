"""Netlink probes: changes to routes, addresses, devices."""

import socket
import struct
from collections.abc import Iterator

from claude_proxy.doctor.attack.probes.outcome import DIRECT_S, Spec, Try, attempt

_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 20, 24
_NLM_REQUEST_ACK, _NLM_CREATE = 0x5, 0x400
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")


def netlink(_: Spec) -> Iterator[Try]:
    """Add a route, an address and a device to this network namespace."""
    lo = 1
    route = struct.pack("=8BI", socket.AF_INET, 0, 0, 0, 254, 3, 253, 1, 0)
    route += struct.pack("=HHI", 8, 4, lo)
    address = struct.pack("=4BI", socket.AF_INET, 24, 0, 0, lo)
    address += struct.pack("=HH", 8, 2) + socket.inet_aton("192.0.2.9")
    link = struct.pack("=BxHiII", 0, 0, 0, 1, 1)  # a dummy device, up
    kind = b"dummy"
    info = struct.pack("=HH", 4 + len(kind), 1) + kind + b"\0" * 3
    link += struct.pack("=HH", 4 + len(info), 18) + info
    yield attempt("a default route", lambda: _netlink(_RTM_NEWROUTE, route))
    yield attempt("an address", lambda: _netlink(_RTM_NEWADDR, address))
    yield attempt("a device", lambda: _netlink(_RTM_NEWLINK, link))


def _netlink(kind: int, payload: bytes) -> None:
    flags = _NLM_REQUEST_ACK | _NLM_CREATE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(DIRECT_S)
        sock.bind((0, 0))
        sock.send(_HEADER.pack(_HEADER.size + len(payload), kind, flags, 1, 0) + payload)
        answer = sock.recv(4096)
    if _HEADER.unpack_from(answer)[1] == _NLMSG_ERROR:
        (code,) = struct.unpack_from("=i", answer, _HEADER.size)
        if code:
            raise OSError(-code, "netlink")
