"""Sees what leaves the host: every packet on the cable that would start something.

A client's status says what the proxy claims; the cable says what it did.
"""

import socket
import struct
import threading
import time
from dataclasses import dataclass
from ipaddress import IPv6Address

from tests.support.waiting import PATIENCE_S

from .namespaces import CABLE_INTERNET, INTERNET_ADDRESS, Namespace

_ALL_PROTOCOLS = 0x0300  # ETH_P_ALL in network order
_PACKET_LEVEL = 263
_PACKET_IGNORE_OUTGOING = 23
_TCP, _UDP = 6, 17
_SYN_OF_SYN_ACK = 0x12
_MARK_PORT = 9


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of something: a TCP SYN, or any datagram."""

    protocol: str
    address: str
    port: int


class Wire:
    """Records, from the internet's end of the cable, what the host sends."""

    def __init__(self, host: Namespace, internet: Namespace) -> None:
        self._sniffer = internet.new_socket(socket.AF_PACKET, socket.SOCK_DGRAM, _ALL_PROTOCOLS)
        self._sniffer.bind((CABLE_INTERNET, 0))
        self._sniffer.setsockopt(_PACKET_LEVEL, _PACKET_IGNORE_OUTGOING, 1)
        self._sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self._marker = host.new_socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._packets: list[Packet] = []
        self._marks = 0
        self._marked = threading.Condition()
        threading.Thread(target=self._read, name="wire", daemon=True).start()

    def close(self) -> None:
        """Stop reading."""
        self._sniffer.close()
        self._marker.close()

    def packets(self) -> list[Packet]:
        """Return all that was sent until now, in order."""
        # A packet of our own goes last; when it has arrived, so have those before it.
        with self._marked:
            seen = self._marks
            deadline = time.monotonic() + PATIENCE_S
            while self._marks == seen:
                self._marker.sendto(b"mark", (INTERNET_ADDRESS, _MARK_PORT))
                self._marked.wait(1.0)
                if time.monotonic() > deadline:
                    raise AssertionError("the cable's recorder does not see its own mark")
            return list(self._packets)

    def _read(self) -> None:
        while True:
            try:
                frame = self._sniffer.recv(128)
            except OSError:
                return
            packet = _packet_of(frame)
            if packet is None:
                continue
            with self._marked:
                if packet == Packet("udp", INTERNET_ADDRESS, _MARK_PORT):
                    self._marks += 1
                    self._marked.notify_all()
                else:
                    self._packets.append(packet)


def _packet_of(frame: bytes) -> Packet | None:
    version = frame[0] >> 4 if frame else 0
    if version == 4:
        protocol, address = frame[9], socket.inet_ntoa(frame[16:20])
        rest = frame[(frame[0] & 15) * 4 :]
    elif version == 6:
        protocol, address = frame[6], str(IPv6Address(frame[24:40]))
        rest = frame[40:]
    else:  # ARP and the like
        return None
    if protocol == _TCP:
        # Only what opens a connection; an answer (SYN with ACK) or data do not.
        if rest[13] & _SYN_OF_SYN_ACK != 0x02:
            return None
        return Packet("tcp", address, struct.unpack("!H", rest[2:4])[0])
    if protocol == _UDP:
        return Packet("udp", address, struct.unpack("!H", rest[2:4])[0])
    if version == 6:  # neighbour discovery and multicast listener reports of the kernel itself
        return None
    return Packet(f"ip-{protocol}", address, 0)
