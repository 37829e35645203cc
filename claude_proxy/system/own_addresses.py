"""Own addresses: whether an IP address is one of this machine's."""

import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

_ANY_PORT = 9  # discard; nothing is sent


def is_own(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether `address` belongs to this machine; OSError if no socket can be made.

    Connecting a UDP socket sends nothing; the kernel only chooses the source address, which is the
    destination itself if the destination is this machine.
    """
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
    with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect((str(address), _ANY_PORT))
        return ip_address(probe.getsockname()[0]) == address
    return False


def is_known_to_be_own(address: IPv4Address | IPv6Address) -> bool:
    """Tell the same for a message to a person; False where it cannot be found out."""
    with suppress(OSError):
        return is_own(address)
    return False
