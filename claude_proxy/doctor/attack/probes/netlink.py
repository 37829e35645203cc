"""Netlink probes: changes to routes, addresses, devices. What could be changed is changed back."""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from claude_proxy.doctor.attack.probes.outcome import DIRECT_S, Spec, Try, attempt

_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 20, 24  # rtnetlink(7): to delete is one more
_NLM_REQUEST_ACK, _NLM_CREATE = 0x5, 0x400
_NLMSG_ERROR = 2
_DEVICE = b"cpattack0\0\0\0"  # its name, with zeros up to a multiple of four
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
    link += struct.pack("=HH", 4 + len(_DEVICE), 3) + _DEVICE
    yield attempt("a default route", lambda: _make(_RTM_NEWROUTE, route))
    yield attempt("an address", lambda: _make(_RTM_NEWADDR, address))
    yield attempt("a device", lambda: _make(_RTM_NEWLINK, link))


def _make(kind: int, payload: bytes) -> None:
    """Make something, and delete it: a machine that let it happen must not stay changed."""
    _netlink(kind, payload, _NLM_REQUEST_ACK | _NLM_CREATE)
    with suppress(OSError):
        _netlink(kind + 1, payload, _NLM_REQUEST_ACK)


def _netlink(kind: int, payload: bytes, flags: int) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(DIRECT_S)
        sock.bind((0, 0))
        sock.send(_HEADER.pack(_HEADER.size + len(payload), kind, flags, 1, 0) + payload)
        answer = sock.recv(4096)
    if _HEADER.unpack_from(answer)[1] == _NLMSG_ERROR:
        (code,) = struct.unpack_from("=i", answer, _HEADER.size)
        if code:
            raise OSError(-code, "netlink")
