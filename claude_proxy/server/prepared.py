"""What a start has checked and opened before there is an engine, and how it tells its owner.

Imports no mitmproxy: see `app`.
"""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

from claude_proxy.audit.store import AuditStore
from claude_proxy.config.loaded_policy import Loaded
from claude_proxy.config.settings import LogFormat, Settings, Verbosity
from claude_proxy.control.places import Place
from claude_proxy.errors import AuditError
from claude_proxy.events import Notice
from claude_proxy.server import logs
from claude_proxy.server.listening_sockets import OpenListener
from claude_proxy.server.stop_signals import StopSignals
from claude_proxy.server.workers import WorkerSlot
from claude_proxy.system.sd_notify import StateListener
from claude_proxy.trust.certificate_authority import CertificateAuthority
from claude_proxy.vault.vault import Vault

type OnApplied = Callable[[Settings], None]


def ignore_applied(_: Settings) -> None:
    """Do nothing about a policy that was applied."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What startup has prepared before there is an event loop."""

    settings: Settings
    loaded: Loaded
    authority: CertificateAuthority | None  # None: a gateway alone needs no CA
    vault: Vault
    roots: str | None
    descriptors_warning: str | None
    listening: tuple[OpenListener, ...]
    store: AuditStore
    slot: WorkerSlot
    news: StateListener
    signals: StopSignals
    of_run: bool  # a launcher has started it for one run
    on_applied: OnApplied
    place: Place | None = None  # of the workers' control sockets

    def announce(self, text: str) -> None:
        """Print a line about the whole proxy, from one worker only."""
        settings = self.settings
        quiet = settings.verbosity is Verbosity.QUIET or settings.log_format is LogFormat.JSON
        if quiet or not self.slot.speaks:
            return
        logs.write(sys.stdout, text + "\n")

    def report(self, lines: list[str]) -> None:
        """Print what is wrong with the whole proxy, from one worker only."""
        if self.slot.speaks:
            logs.report(lines)

    def record(self, notice: Notice) -> None:
        """Record a notice, from one worker only; a failure shows at the next decision."""
        if self.slot.speaks:
            with contextlib.suppress(AuditError):
                self.store.record(notice)
