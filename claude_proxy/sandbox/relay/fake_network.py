"""Fake network: gives allowed names addresses, and leads what is connected to them to the proxy.

It has a listener for each port that an allowed name may be reached at, in a namespace of the run's
own (`sandbox.fake_network`). Each connection becomes a CONNECT for the name and the port, so that
the proxy decides as for any other client. An address that was given to no name is refused.
"""

import socket
from collections.abc import Callable, Mapping

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.relay.fake_addresses import FakeAddresses
from claude_proxy.sandbox.relay.name_questions import NameQuestions
from claude_proxy.sandbox.relay.tunnel_opening import TunnelOpening

PORTS_LIMIT = 64

# Called with the address of a name, four octets; None: it may have none.
type OnAddress = Callable[[bytes | None], None]
type ListenAt = Callable[[int], socket.socket]
type OnListener = Callable[[socket.socket], None]


class FakeNetwork:
    """The names of one run that have addresses, and the listeners behind these."""

    def __init__(
        self,
        questions: NameQuestions,
        addresses: FakeAddresses,
        listeners: Mapping[int, socket.socket],
        listen_at: ListenAt,
        report: Callable[[str], None],
    ) -> None:
        self.on_listener: OnListener = lambda _: None  # called with each more
        self._questions = questions
        self._listeners = dict(listeners)
        self._listen_at = listen_at
        self._report = report
        self._addresses = addresses
        self._missed: set[int] = set()

    def find(self, name: str, on_address: OnAddress, on_silence: Callable[[], None]) -> None:
        """Find the address of a name; `on_silence` is called if the proxy does not answer."""

        def answered(ports: tuple[int, ...] | None) -> None:
            if ports is None:
                on_silence()
            elif not ports:
                on_address(None)
            else:
                self._listen(ports)
                on_address(self._addresses.of(name))

        self._questions.ask(name, answered)

    def opening_for(self, client: socket.socket) -> TunnelOpening | None:
        """Return what asks for the tunnel of a client; None if it asked for no name."""
        try:
            address, port = client.getsockname()
        except OSError:
            return None
        name = self._addresses.name_at(address)
        return None if name is None else TunnelOpening(f"{name}:{port}")

    def _listen(self, ports: tuple[int, ...]) -> None:
        """Listen on the ports of a name that is the first to need them."""
        for port in ports:
            if port not in self._listeners and port not in self._missed:
                self._listen_on(port)

    def _listen_on(self, port: int) -> None:
        if len(self._listeners) >= PORTS_LIMIT:
            self._miss(port, f"there are {PORTS_LIMIT} others")
            return
        try:
            listener = self._listen_at(port)
        except ClaudeProxyError as error:
            self._miss(port, error.what)
            return
        self._listeners[port] = listener
        self.on_listener(listener)

    def _miss(self, port: int, why: str) -> None:
        if len(self._missed) < PORTS_LIMIT:
            self._missed.add(port)
            self._report(f"nothing listens on port {port} of fake addresses: {why}")
