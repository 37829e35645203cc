"""Policy reload: applies a changed policy while the proxy runs; an invalid one changes nothing.

Keeps "default-deny" at run time: the last good policy stays in force until there is a valid new
one, and tunnels whose rule has been removed are closed, as only their rule allowed them.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import replace

from claude_proxy.config import policy_files
from claude_proxy.config.owner_files import States, changed, fingerprint
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ConfigError
from claude_proxy.events import Notice
from claude_proxy.proxy.connection import ClientConnection
from claude_proxy.server import logs
from claude_proxy.server.gates import Gates

logger = logging.getLogger(__name__)

_POLL_INTERVAL_S = 1.0
_MAX_LISTED = 10  # changes that are listed by name; the rest is only counted

type RecordNotice = Callable[[Notice], None]


class Reloader:
    """Watches the files the policy was loaded from, and reloads it."""

    def __init__(  # noqa: PLR0913 - what a reload reads, changes and reports to
        self,
        settings: Settings,
        loaded: policy_files.Loaded,
        gates: Gates,
        connections: Collection[ClientConnection],
        *,
        record: RecordNotice,
        announce: Callable[[str], None],
        loud: bool = True,
    ) -> None:
        self._settings = settings
        self._what = "allowlist" if settings.policy is None else "policy"
        self._loaded = loaded
        self._rejected: States | None = None
        self._judges = gates
        self._connections = connections
        self._record = record
        self._announce = announce
        self._loud = loud
        self._lock = asyncio.Lock()

    async def watch(self) -> None:
        """Reload whenever one of the policy's files has changed since it was last read."""
        while True:
            await asyncio.sleep(_POLL_INTERVAL_S)
            known = self._loaded.states if self._rejected is None else self._rejected
            if self._use_own_allowlist() or changed(known):
                await self.reload()

    def _use_own_allowlist(self) -> bool:
        """Switch from the shipped allowlist to the user's own once `claude-proxy allow` made it."""
        own = self._settings.awaited_allowlist
        if own is not None and self._settings.policy is None and own.exists():
            self._announce(f"Now using your own allowlist: {own}")
            self._settings = replace(self._settings, allowlist=own, awaited_allowlist=None)
            self._rejected = None
            return True
        return False

    async def reload(self) -> None:
        """Read the files; apply them if they are valid, otherwise report what is wrong."""
        async with self._lock:
            self._use_own_allowlist()
            loop = asyncio.get_running_loop()
            settings, last = self._settings, self._loaded
            seen: States = {}
            try:
                # On a thread: a list of 100,000 hosts takes seconds to read.
                loaded = await loop.run_in_executor(
                    None, policy_files.load_for, settings, last, seen
                )
                activate = await loop.run_in_executor(None, self._judges.prepare, loaded.policy)
            except ConfigError as error:
                self._reject(seen, error)
                return
            except Exception as problem:  # the watcher must survive a bug that a file triggers
                logger.exception("reading the %s failed", self._what)
                what = f"internal error ({type(problem).__name__})"
                self._reject(seen, ConfigError(what, where=str(settings.allowlist)))
                return
            activate()
            self._apply(loaded)
            if loaded.complaint is not None:
                self._complain("project's restrictions file", loaded.complaint)

    def _reject(self, seen: States, error: ConfigError) -> None:
        # If the error came before any file was read, watch the files of the last valid policy.
        self._rejected = seen or {path: fingerprint(path) for path in self._loaded.states}
        self._complain(self._what, error)

    def _complain(self, what: str, error: ConfigError) -> None:
        if self._loud:
            first = f"warning: the {what} was rejected; the last valid one stays in force"
            logs.report([first, *error.lines()])
        self._record(Notice(0, "policy-rejected", error.what))

    def _apply(self, loaded: policy_files.Loaded) -> None:
        added, removed = self._loaded.policy.diff(loaded.policy)
        self._loaded, self._rejected = loaded, None
        closed = sum(connection.withdraw() for connection in list(self._connections))
        text = _change(added, removed)
        if closed:
            text += f"; {closed} open {'tunnel' if closed == 1 else 'tunnels'} closed"
        self._announce(f"{self._what.capitalize()} applied: {text}")
        self._record(Notice(0, "policy-applied", text))


def _change(added: tuple[str, ...], removed: tuple[str, ...]) -> str:
    parts = [f"+ {name}" for name in added[:_MAX_LISTED]] + [
        f"- {name}" for name in removed[:_MAX_LISTED]
    ]
    if not parts:
        return "no rule changed"
    more = len(added) + len(removed) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more else "")
