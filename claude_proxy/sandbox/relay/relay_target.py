"""Relay target: the upstream that a relay leads to.

A launcher names one and does not run the relay, whose imports take milliseconds.
"""

import socket

type Place = tuple[socket.AddressFamily, str | tuple[str, int]]

PATIENCE_S = 1.0  # for an upstream that is restarting


class RelayTarget:
    """The address that every connection goes to: a Unix socket or a TCP address."""

    is_proxy = True  # whether it is for clients of HTTP and SOCKS, which are told what is wrong

    def __init__(
        self,
        name: str,
        family: socket.AddressFamily,
        address: str | tuple[str, int],
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.name = name
        self.family = family
        self.address = address
        self.patience_s = patience_s

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it may be, tried in turn."""
        return ((self.family, self.address),)

    def open(self, family: socket.AddressFamily) -> socket.socket:
        """Return a new socket of a family, which is not connected."""
        return socket.socket(family, socket.SOCK_STREAM)
