"""Acknowledged bytes of a TCP connection: how much of what was sent the peer's kernel has taken."""

import socket
import struct
from typing import Final

# struct tcp_info of <linux/tcp.h>: 8 bytes, 24 numbers of 32 bits, two of 64, and then this one.
_BYTES_ACKED: Final = struct.Struct("=8x96x16xQ")


def acknowledged(sock: socket.socket) -> int | None:
    """Return how many bytes the peer has acknowledged so far; None if the system does not tell."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, option, _BYTES_ACKED.size)
    except OSError:
        return None
    return int(_BYTES_ACKED.unpack(info)[0]) if len(info) == _BYTES_ACKED.size else None
