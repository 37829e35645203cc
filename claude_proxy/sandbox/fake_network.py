"""Network of fake addresses: where clients in a sandbox that ignore the proxy arrive.

The addresses of 198.18.0.0/15, which are for benchmarks and are no host's (RFC 2544), lead from the
sandbox over a cable (veth) into a network namespace of the run's own. There all of them are local,
and a listener for each port accepts what is connected to any of them; getsockname(2) says to which.
It has nothing else: no other interface, no route, no process.

Law kept: the sandbox cannot move its own wall. The listeners are not in the sandbox's namespace,
so no port is taken there: a server of COMMAND's own can bind 0.0.0.0:443, and cannot shadow ours.
The namespace lives as long as the relay that holds its sockets; when that ends, the route is gone.
"""

import os
import socket
from collections.abc import Sequence

from claude_proxy.system.rtnetlink import Rtnetlink

POOL = "198.18.0.0/15"
INTERFACE = "claude-proxy"

# Of no other use than as the ends of such a link (RFC 7335, RFC 7600); neither is routed to.
_INSIDE, _OUTSIDE = "192.0.0.8", "192.0.0.9"
# Fixed, as answers to ARP depend on settings of the machine.
_HARDWARE_INSIDE, _HARDWARE_OUTSIDE = b"\x02\0\0\0\0\x08", b"\x02\0\0\0\0\x09"
_MTU = 65535
_BACKLOG = 1024


def build() -> int:
    """Connect the namespace that this process is in to a new one, and enter that.

    Returns a descriptor of the new one. Raises OSError.
    """
    sandbox = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.unshare(os.CLONE_NEWNET)
        own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        with Rtnetlink() as here:
            here.bring_up("lo")
            here.add_local_network("lo", POOL)
            here.add_pair(INTERFACE, sandbox, _MTU, (_HARDWARE_OUTSIDE, _HARDWARE_INSIDE))
            here.omit_ipv6(INTERFACE)
            here.add_address(INTERFACE, _OUTSIDE)
            here.bring_up(INTERFACE)
            here.add_link_route(INTERFACE, f"{_INSIDE}/32")
            here.add_neighbour(INTERFACE, _INSIDE, _HARDWARE_INSIDE)
        os.setns(sandbox, os.CLONE_NEWNET)
        with Rtnetlink() as inside:
            inside.omit_ipv6(INTERFACE)
            inside.add_address(INTERFACE, _INSIDE)
            inside.bring_up(INTERFACE)
            inside.add_neighbour(INTERFACE, _OUTSIDE, _HARDWARE_OUTSIDE)
            inside.add_route(INTERFACE, POOL, _OUTSIDE, _INSIDE)
        os.setns(own, os.CLONE_NEWNET)
        return own
    finally:
        os.close(sandbox)


def listening(port: int) -> socket.socket:
    """Return a socket that listens on a port of all addresses, in this process's namespace."""
    # asyncio switches Nagle's algorithm off only if the protocol is named.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("0.0.0.0", port))  # noqa: S104 - in a namespace that only the sandbox reaches
    sock.listen(_BACKLOG)
    return sock


def hand_over(channel: socket.socket, ports: Sequence[int]) -> None:
    """Build the network, and send the descriptors of its namespace and its listeners."""
    own = build()
    sockets = [listening(port) for port in ports]
    socket.send_fds(channel, [b"sockets"], [own, *(sock.fileno() for sock in sockets)])


def hand_over_one(channel: socket.socket, port: int) -> None:
    """Send the descriptor of one more listener, from a process that has entered the namespace."""
    with listening(port) as sock:
        socket.send_fds(channel, [b"sockets"], [sock.fileno()])
