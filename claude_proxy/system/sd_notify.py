"""State notifications to the service manager (sd_notify(3)) or to the launching process.

A notification that cannot be delivered is dropped: it is never a reason to fail.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Protocol

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError


@dataclass(frozen=True, slots=True)
class Lifeline:
    """The connection between a proxy and the process that started it."""

    checked: Callable[[], None]  # called once, when nothing that is configured can stop the start
    ready: Callable[[], None]  # called once, when all listeners accept
    until: int  # a descriptor that becomes readable, or closes, when the proxy should stop
    # Called at the end, with the number of decisions that could not be recorded, and why.
    unrecorded: Callable[[int, ClaudeProxyError], None] = lambda _, __: None


class StateListener(Protocol):
    """Receiver of the proxy's state changes."""

    def ready(self) -> None:
        """Report that all listeners accept."""

    def reloading(self) -> None:
        """Report that the configuration is being read."""

    def reloaded(self) -> None:
        """Report that it was read, whether applied or rejected."""

    def stopping(self) -> None:
        """Report that no new client is accepted."""


class StateNotifier:
    """Notifies the service manager and the launching process."""

    def __init__(self, address: str | None, lifeline: Lifeline | None) -> None:
        self._address = address
        self._lifeline = lifeline

    def checked(self) -> None:
        """Report to the launching process that nothing that is configured can stop the start."""
        if self._lifeline is not None:
            self._lifeline.checked()

    def ready(self) -> None:
        """Report that all listeners accept."""
        if self._lifeline is not None:
            self._lifeline.ready()
        self._send("READY=1")

    def reloading(self) -> None:
        """Report that the configuration is being read."""
        # The time distinguishes this reload from an earlier one (systemd's Type=notify-reload).
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def reloaded(self) -> None:
        """Report that the reload has finished."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Report that no new client is accepted."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        address = self._address
        if not address or address[0] not in "/@":
            return
        if address.startswith("@"):
            address = "\0" + address[1:]  # an abstract socket
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            # A manager that does not read must not block the proxy.
            sock.setblocking(False)
            sock.sendto(text.encode(), address)


_READY, _RELOADING, _RELOADED = b"+", b"~", b"="


class WorkerNotifier:
    """Notifies the parent of the workers, as a service manager listens to one process only."""

    def __init__(self, pipe: int, *, speaks: bool) -> None:
        self._pipe = pipe
        self._speaks = speaks

    def ready(self) -> None:
        """Report that this worker's listeners accept."""
        self._write(_READY)

    def reloading(self) -> None:
        """Report that the configuration is being read, if this worker reports for all."""
        if self._speaks:
            self._write(_RELOADING)

    def reloaded(self) -> None:
        """Report that the reload has finished, if this worker reports for all."""
        if self._speaks:
            self._write(_RELOADED)

    def stopping(self) -> None:
        """Do nothing: the parent is what stops the workers."""

    def _write(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._pipe, word)


class WorkerReports:
    """Combines what the workers report, at the parent's end of their pipe."""

    def __init__(self, count: int, news: StateListener) -> None:
        self._awaited = count
        self._news = news

    @property
    def is_ready(self) -> bool:
        """Whether every worker has accepted clients."""
        return self._awaited <= 0

    def receive(self, data: bytes) -> None:
        """Read reports, and pass on what is true of all workers."""
        for word in (data[at : at + 1] for at in range(len(data))):
            if word == _READY:
                self._awaited -= 1
                if self._awaited == 0:
                    self._news.ready()
            elif word == _RELOADING:
                self._news.reloading()
            elif word == _RELOADED:
                self._news.reloaded()
