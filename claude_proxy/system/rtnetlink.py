"""Network configuration of the namespace that this process is in, over rtnetlink(7).

It does what `ip link`, `ip address` and `ip route` do, without those programs, which many machines
and all minimal images lack. Each call waits for the kernel's acknowledgement and raises OSError.
"""

import errno
import os
import socket
import struct
from types import TracebackType

_NEWLINK, _NEWADDR, _NEWROUTE, _NEWNEIGH = 16, 20, 24, 28
_ERROR = 2  # NLMSG_ERROR, which is an acknowledgement too
_REQUEST, _ACK, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x200, 0x400
_NESTED = 0x8000

_UP = 0x1  # IFF_UP
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU = 1, 3, 4
_IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_NET_NS_FD = 18, 26, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_ADDR_GEN_MODE, _NO_ADDRESS = 8, 1  # IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_NDA_DST, _NDA_LLADDR, _PERMANENT = 1, 2, 0x80
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7
_TABLE_MAIN, _TABLE_LOCAL = 254, 255
_PROTOCOL_STATIC = 4
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_HOST = 0, 253, 254
_UNICAST, _LOCAL = 1, 2
_ONLINK = 4  # the gateway needs no route of its own

_HEAD = struct.Struct("IHHII")
_LINK = struct.Struct("BxHiII")
_ROUTE = struct.Struct("8BI")
_ADDRESS = struct.Struct("4BI")
_NEIGHBOUR = struct.Struct("BxxxiHBB")
_ANSWER_LIMIT = 64 * 1024


class Rtnetlink:
    """A connection to the kernel; it configures the namespace in which it was opened."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)

    def __enter__(self) -> "Rtnetlink":  # noqa: PYI034 - typing takes long to import
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def add_pair(
        self, name: str, other_namespace: int, mtu: int, hardware: tuple[bytes, bytes]
    ) -> None:
        """Create two ends of a cable (veth(4)) of one name: here, and in the other namespace.

        `hardware` are the Ethernet addresses of this end and of the other one.
        """
        common = _attribute(_IFLA_IFNAME, _text(name)) + _attribute(_IFLA_MTU, _number(mtu))
        here, there = (_attribute(_IFLA_ADDRESS, address) for address in hardware)
        peer = _link() + common + there + _attribute(_IFLA_NET_NS_FD, _number(other_namespace))
        data = _attribute(_INFO_DATA | _NESTED, _attribute(_VETH_PEER | _NESTED, peer))
        info = _attribute(_IFLA_LINKINFO | _NESTED, _attribute(_INFO_KIND, _text("veth")) + data)
        self._ask(_NEWLINK, _CREATE | _EXCLUSIVE, _link() + common + here + info)

    def bring_up(self, name: str) -> None:
        """Bring an interface up."""
        self._ask(_NEWLINK, 0, _LINK.pack(0, 0, socket.if_nametoindex(name), _UP, _UP))

    def omit_ipv6(self, name: str) -> None:
        """Let an interface that is not up yet have no IPv6 address of its own."""
        mode = _attribute(_ADDR_GEN_MODE, bytes((_NO_ADDRESS,)))
        family = _attribute(socket.AF_INET6 | _NESTED, mode)
        link = _link(socket.if_nametoindex(name))
        try:
            self._ask(_NEWLINK, 0, link + _attribute(_IFLA_AF_SPEC | _NESTED, family))
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):  # a kernel without IPv6
                raise

    def add_address(self, name: str, address: str) -> None:
        """Give an interface an IPv4 address, without a network."""
        packed = socket.inet_aton(address)
        head = _ADDRESS.pack(socket.AF_INET, 32, 0, _SCOPE_UNIVERSE, socket.if_nametoindex(name))
        self._ask(
            _NEWADDR,
            _CREATE | _EXCLUSIVE,
            head + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed),
        )

    def add_neighbour(self, name: str, address: str, hardware: bytes) -> None:
        """Fix the Ethernet address of an IPv4 neighbour, so that nobody has to ask for it."""
        index = socket.if_nametoindex(name)
        head = _NEIGHBOUR.pack(socket.AF_INET, index, _PERMANENT, 0, 0)
        place = _attribute(_NDA_DST, socket.inet_aton(address))
        self._ask(_NEWNEIGH, _CREATE | _EXCLUSIVE, head + place + _attribute(_NDA_LLADDR, hardware))

    def add_local_network(self, name: str, network: str) -> None:
        """Make all addresses of an IPv4 network this machine's own, on an interface."""
        self._route(network, _LOCAL, _TABLE_LOCAL, _SCOPE_HOST, _out(name))

    def add_link_route(self, name: str, network: str) -> None:
        """Reach an IPv4 network on an interface directly."""
        self._route(network, _UNICAST, _TABLE_MAIN, _SCOPE_LINK, _out(name))

    def add_route(self, name: str, network: str, gateway: str, source: str) -> None:
        """Reach an IPv4 network on an interface through a neighbour, from a local address."""
        rest = (
            _out(name)
            + _attribute(_RTA_GATEWAY, socket.inet_aton(gateway))
            + _attribute(_RTA_PREFSRC, socket.inet_aton(source))
        )
        self._route(network, _UNICAST, _TABLE_MAIN, _SCOPE_UNIVERSE, rest, _ONLINK)

    def _route(  # noqa: PLR0913 - the fields of a route
        self, network: str, kind: int, table: int, scope: int, rest: bytes, flags: int = 0
    ) -> None:
        address, _, length = network.partition("/")
        head = _ROUTE.pack(
            socket.AF_INET, int(length), 0, 0, table, _PROTOCOL_STATIC, scope, kind, flags
        )
        destination = _attribute(_RTA_DST, socket.inet_aton(address))
        self._ask(_NEWROUTE, _CREATE | _EXCLUSIVE, head + destination + rest)

    def _ask(self, kind: int, flags: int, body: bytes) -> None:
        head = _HEAD.pack(_HEAD.size + len(body), kind, _REQUEST | _ACK | flags, 1, 0)
        self._socket.send(head + body)
        answer = self._socket.recv(_ANSWER_LIMIT)
        _, answered, _, _, _ = _HEAD.unpack_from(answer)
        if answered != _ERROR:
            raise OSError(errno.EPROTO, "rtnetlink sent no acknowledgement")
        (negative,) = struct.unpack_from("i", answer, _HEAD.size)
        if negative:
            raise OSError(-negative, os.strerror(-negative))


def _link(index: int = 0) -> bytes:
    return _LINK.pack(0, 0, index, 0, 0)


def _out(name: str) -> bytes:
    return _attribute(_RTA_OIF, _number(socket.if_nametoindex(name)))


def _attribute(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("HH", size, kind) + value + bytes(-size % 4)


def _number(value: int) -> bytes:
    return struct.pack("I", value)


def _text(value: str) -> bytes:
    return value.encode("ascii") + b"\0"
