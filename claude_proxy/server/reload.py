"""Takes a changed policy into use while the proxy runs; a bad one changes nothing.

Law 1 at run time: the last good policy stays until there is a better one, and tunnels whose rule
is gone are closed, because a tunnel was allowed by its rule and by nothing else.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import replace

from claude_proxy.config import policy_files
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ConfigError
from claude_proxy.events import Notice
from claude_proxy.proxy.connection import ClientConnection
from claude_proxy.server import logs
from claude_proxy.server.gates import Judges

logger = logging.getLogger(__name__)

_LOOK_S = 1.0
_NAMED = 10  # changes that are spelled out; the rest is counted

type Tell = Callable[[Notice], None]


class Reloader:
    """Watches the files that the policy was made from."""

    def __init__(  # noqa: PLR0913 - what a reload reads, changes and tells
        self,
        settings: Settings,
        loaded: policy_files.Loaded,
        judges: Judges,
        connections: Collection[ClientConnection],
        *,
        tell: Tell,
        say: Callable[[str], None],
        loud: bool = True,
    ) -> None:
        self._settings = settings
        self._what = "allowlist" if settings.policy is None else "policy"
        self._loaded = loaded
        self._rejected: policy_files.Fingerprint | None = None
        self._judges = judges
        self._connections = connections
        self._tell = tell
        self._say = say
        self._loud = loud
        self._turn = asyncio.Lock()

    async def watch(self) -> None:
        """Reload whenever a file is another than the one that was read last."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self._look_for_own()
            known = self._rejected or self._loaded.fingerprint
            if policy_files.fingerprint_for(self._settings) != known:
                await self.reload()

    def _look_for_own(self) -> None:
        """Change over from the shipped list once the user's own exists (`claude-proxy allow`)."""
        own = self._settings.awaited_allowlist
        if own is not None and self._settings.policy is None and own.exists():
            self._say(f"Your own allowlist takes over: {own}")
            self._settings = replace(self._settings, allowlist=own, awaited_allowlist=None)
            self._rejected = None

    async def reload(self) -> None:
        """Read the files; apply them if they are sound, say loudly what is wrong if not."""
        async with self._turn:
            self._look_for_own()
            loop = asyncio.get_running_loop()
            settings, last = self._settings, self._loaded
            seen = policy_files.fingerprint_for(settings)
            try:
                # On a thread: a list of 100,000 hosts takes seconds to read.
                loaded = await loop.run_in_executor(None, policy_files.load_for, settings, last)
                take = await loop.run_in_executor(None, self._judges.prepare, loaded.policy)
            except ConfigError as error:
                self._reject(seen, error)
                return
            except Exception as fault:  # the watch must outlive a bug that a file has found
                logger.exception("reading the %s failed", self._what)
                what = f"internal error ({type(fault).__name__})"
                self._reject(seen, ConfigError(what, where=str(settings.allowlist)))
                return
            take()
            self._apply(loaded)
            if loaded.complaint is not None:
                self._complain("file that narrows it", loaded.complaint)

    def _reject(self, seen: policy_files.Fingerprint, error: ConfigError) -> None:
        self._rejected = seen
        self._complain(self._what, error)

    def _complain(self, what: str, error: ConfigError) -> None:
        if self._loud:
            first = f"warning: the {what} was rejected; the last good one stays in force"
            logs.report([first, *error.lines()])
        self._tell(Notice(0, "policy-rejected", error.what))

    def _apply(self, loaded: policy_files.Loaded) -> None:
        added, removed = self._loaded.policy.diff(loaded.policy)
        self._loaded, self._rejected = loaded, None
        closed = sum(connection.withdraw() for connection in list(self._connections))
        text = _change(added, removed)
        if closed:
            text += f"; {closed} open {'tunnel' if closed == 1 else 'tunnels'} closed"
        self._say(f"{self._what.capitalize()} applied: {text}")
        self._tell(Notice(0, "policy-applied", text))


def _change(added: tuple[str, ...], removed: tuple[str, ...]) -> str:
    parts = [f"+ {name}" for name in added[:_NAMED]] + [f"- {name}" for name in removed[:_NAMED]]
    if not parts:
        return "no rule changed"
    more = len(added) + len(removed) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more else "")
