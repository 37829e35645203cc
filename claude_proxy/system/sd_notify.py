"""Tells whoever started the proxy how it is doing: a service manager, or another process of ours.

The protocol is that of sd_notify(3), spoken here in a few lines. It keeps one law: no news is worth
a failure, so what cannot be delivered is dropped.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Lifeline:
    """What a proxy that another process has started tells it, and hears from it."""

    ready: Callable[[], None]  # called once, when all listeners accept
    until: int  # a descriptor that becomes readable, or ends, when the proxy is to stop


class News(Protocol):
    """What is told of the proxy, to whomever."""

    def ready(self) -> None:
        """Tell that all listeners accept."""

    def reloading(self) -> None:
        """Tell that the configuration is being read."""

    def reloaded(self) -> None:
        """Tell that it was read, and applied or not."""

    def stopping(self) -> None:
        """Tell that no client is let in any more."""


class Announcer:
    """Tells the service manager and the process at the other end of the lifeline."""

    def __init__(self, address: str | None, lifeline: Lifeline | None) -> None:
        self._address = address
        self._lifeline = lifeline

    def ready(self) -> None:
        """Tell that all listeners accept."""
        if self._lifeline is not None:
            self._lifeline.ready()
        self._send("READY=1")

    def reloading(self) -> None:
        """Tell that the configuration is being read."""
        # The time tells this reload from an earlier one (systemd's Type=notify-reload).
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def reloaded(self) -> None:
        """Tell that the reload is over."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Tell that no client is let in any more."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        address = self._address
        if not address or address[0] not in "/@":
            return
        if address.startswith("@"):
            address = "\0" + address[1:]  # a name of the abstract namespace
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            # A manager that does not read must not hold up the proxy.
            sock.setblocking(False)
            sock.sendto(text.encode(), address)


_READY, _RELOADING, _RELOADED = b"+", b"~", b"="


class WorkerNews:
    """Tells the parent of the workers, who tells it on: a manager listens to one process alone."""

    def __init__(self, pipe: int, *, speaks: bool) -> None:
        self._pipe = pipe
        self._speaks = speaks

    def ready(self) -> None:
        """Tell that this worker's listeners accept."""
        self._write(_READY)

    def reloading(self) -> None:
        """Tell that the configuration is being read, if this worker speaks for all."""
        if self._speaks:
            self._write(_RELOADING)

    def reloaded(self) -> None:
        """Tell that the reload is over, if this worker speaks for all."""
        if self._speaks:
            self._write(_RELOADED)

    def stopping(self) -> None:
        """Say nothing: it is the parent who tells the workers to stop."""

    def _write(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._pipe, word)


class WorkersHeard:
    """Adds up what the workers tell, at the parent's end of their pipe."""

    def __init__(self, count: int, news: News) -> None:
        self._awaited = count
        self._news = news

    def hear(self, words: bytes) -> None:
        """Take in some of what was told, and tell on what holds for all."""
        for word in (words[at : at + 1] for at in range(len(words))):
            if word == _READY:
                self._awaited -= 1
                if self._awaited == 0:
                    self._news.ready()
            elif word == _RELOADING:
                self._news.reloading()
            elif word == _RELOADED:
                self._news.reloaded()
