"""Policy reload: applies a changed policy while the proxy runs; an invalid one changes nothing.

Keeps "default-deny" at run time: the last good policy stays in force until there is a valid new
one that is not half of a file (`settling`), and tunnels whose rule has been removed are closed, as
only their rule allowed them. However many reloads are requested, one runs and one waits.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from claude_proxy.config.file_states import ABSENT, States, digest, fingerprint
from claude_proxy.config.loaded_policy import Loaded
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ConfigError
from claude_proxy.events import Notice
from claude_proxy.proxy.connection import ClientConnection
from claude_proxy.server import logs, off_loop
from claude_proxy.server.change_text import entries_text, opened_text
from claude_proxy.server.gates import Gates
from claude_proxy.server.prepared import OnApplied, ignore_applied
from claude_proxy.server.settling import SETTLED_S, SETTLED_TWICE_S, Settling
from claude_proxy.system.open_writers import is_open_for_writing
from claude_proxy.system.sd_notify import StateListener

logger = logging.getLogger(__name__)

_POLL_INTERVAL_S = 0.25
# The times of a file do not show a second change within one tick of its file system's clock, nor
# one through mmap(2): after a load, and then now and again, what is in the files is compared.
_VERIFY_AFTER_S = 2.0
_VERIFY_EVERY_S = 30.0

type RecordNotice = Callable[[Notice], None]


@dataclass(frozen=True, slots=True)
class _Change:
    """A policy that was read, compared with the one in force."""

    loaded: Loaded
    added: tuple[str, ...]
    removed: tuple[str, ...]
    opens: str  # what it allows more, in words; "": nothing is said about it
    loosens: bool


class Reloader:
    """Watches the files the policy was loaded from, and reloads it."""

    def __init__(  # noqa: PLR0913 - what a reload reads, changes and reports to
        self,
        settings: Settings,
        loaded: Loaded,
        gates: Gates,
        connections: Collection[ClientConnection],
        *,
        record: RecordNotice,
        announce: Callable[[str], None],
        loud: bool = True,
        news: StateListener | None = None,
        on_applied: OnApplied = ignore_applied,
        close_warm: Callable[[], object] = lambda: None,
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
        self._news = news
        self._on_applied = on_applied
        self._close_warm = close_warm  # connections that were opened by the policy before
        self._requests = asyncio.Event()
        self._is_requested = False
        self._settling = Settling(is_open_for_writing)
        self._held: _Change | None = None  # takes protection away, so it is looked at twice
        self._verify_at = 0.0
        self._asking: list[asyncio.Future[str]] = []  # who waits for a reload that has not begun
        self._answered: list[asyncio.Future[str]] = []  # and for the one that is going on

    @property
    def settings(self) -> Settings:
        """What says where the policy in force is from."""
        return self._settings

    @property
    def loaded(self) -> Loaded:
        """The policy in force, as it was read."""
        return self._loaded

    @property
    def is_rejected(self) -> bool:
        """Whether the files say something else now, which was rejected."""
        return self._rejected is not None

    async def apply_now(self) -> str:
        """Reload, and return what has changed once it is in force; ConfigError if it is rejected.

        A file that is still being written is waited for.
        """
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asking.append(done)
        self._requests.set()
        return await done

    def request(self) -> None:
        """Reload soon, whether or not a file has changed; requests until then are one."""
        self._requests.set()

    async def watch(self) -> None:
        """Reload on request, and whenever one of the policy's files has changed and settled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_INTERVAL_S):
                    await self._requests.wait()
            try:
                await self.look(asyncio.get_running_loop().time())
            except Exception:  # if it died, no change would ever be applied
                logger.exception("looking at the %s failed", self._what)
                await asyncio.sleep(_POLL_INTERVAL_S)

    async def look(self, now: float) -> None:
        """Reload if it is requested, or a file has changed, and what has changed has settled."""
        if self._requests.is_set():
            self._requests.clear()
            self._answered += self._asking
            self._asking = []
            if not self._is_requested and self._news is not None:
                self._news.reloading()
            self._is_requested = True
        self._use_own_allowlist()
        known = self._known()
        rest_s = self._settling.rest_s(now, *self._compared(known))
        if rest_s is None or rest_s < SETTLED_S:
            self._held = None
        if rest_s is None and (self._is_requested or self._narrowing_changed(known)):
            rest_s = math.inf
        elif rest_s is None and now > self._verify_at:
            self._verify_at = now + _VERIFY_EVERY_S
            if not await off_loop.wait_for(self._holds_what_was_read):
                rest_s = math.inf
        if self._settling.has_changed_for_long(now):
            logger.warning(
                "the %s has kept changing for a minute; the last one stays in force", self._what
            )
        enough_s = SETTLED_S if self._held is None else SETTLED_TWICE_S
        if rest_s is not None and rest_s >= enough_s:
            await self.reload(rest_s)

    def _known(self) -> States:
        """Return the states of the files as they were read last, whether applied or rejected."""
        return dict(self._loaded.states if self._rejected is None else self._rejected)

    def _compared(self, known: States) -> tuple[States, States]:
        """Return the known states and those of now, without the project's file.

        An agent may write it all the time; that must not keep a change of the owner's waiting.
        """
        own = {path: state for path, state in known.items() if path != self._settings.narrowing}
        return own, {path: fingerprint(path) for path in own}

    def _narrowing_changed(self, known: States) -> bool:
        path = self._settings.narrowing
        return path is not None and path in known and fingerprint(path) != known[path]

    def _holds_what_was_read(self) -> bool:
        return self._rejected is not None or _holds(self._loaded)

    def _use_own_allowlist(self) -> None:
        """Switch from the shipped allowlist to the user's own once `claude-proxy allow` made it."""
        own = self._settings.awaited_allowlist
        if own is not None and self._settings.policy is None and own.exists():
            self._announce(f"Now using your own allowlist: {own}")
            self._settings = replace(self._settings, allowlist=own, awaited_allowlist=None)
            self._rejected = {**self._loaded.states, own: ABSENT}

    async def reload(self, rest_s: float = math.inf) -> None:
        """Read the files; apply them if they are valid, otherwise report what is wrong.

        Files that have rested for less than `SETTLED_TWICE_S` only apply if no protection is lost.
        """
        seen: States = {}
        outcome: str | ConfigError
        try:
            change = await self._read(seen)
            if change is None or (change.loosens and rest_s < SETTLED_TWICE_S):
                self._held = change
                return
            policy = change.loaded.policy
            activate = await off_loop.wait_for(lambda: self._judges.prepare(policy))
        except ConfigError as error:
            outcome = error
            self._reject(seen, error)
        except Exception as problem:  # the watcher must survive a bug that a file triggers
            logger.exception("reading the %s failed", self._what)
            what = f"internal error ({type(problem).__name__})"
            outcome = ConfigError(what, where=str(self._settings.allowlist))
            self._reject(seen, outcome)
        else:
            activate()
            outcome = self._apply(change)
            if change.loaded.complaint is not None:
                self._complain("project's restrictions file", change.loaded.complaint)
            await self._tell_applied()
        self._held = None
        self._verify_at = asyncio.get_running_loop().time() + _VERIFY_AFTER_S
        if self._is_requested and not self._requests.is_set() and self._news is not None:
            self._news.reloaded()
        self._is_requested = False
        self._answer(outcome)

    def _answer(self, outcome: str | ConfigError) -> None:
        """Tell those who asked for this reload what came of it."""
        answered, self._answered = self._answered, []
        for done in (one for one in answered if not one.done()):
            if isinstance(outcome, ConfigError):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)

    async def _tell_applied(self) -> None:
        settings = self._settings
        try:
            await off_loop.wait_for(lambda: self._on_applied(settings))
        except Exception:  # the policy is in force, and the watcher must go on
            logger.exception("reporting the new %s failed", self._what)

    async def _read(self, seen: States) -> _Change | None:
        """Return what the files say now; None if one has changed while they were read."""
        settings, last, held = self._settings, self._loaded, self._held
        if held is not None and not held.loaded.is_stale:
            seen.update(held.loaded.states)
            if await off_loop.wait_for(lambda: _holds(held.loaded)):
                return held

        def read() -> _Change:
            from claude_proxy.config import policy_files  # noqa: PLC0415 - few proxies reload

            loaded = policy_files.load_for(settings, last, seen)
            _refuse_vanished(last, loaded, settings.allowlist)
            added, removed = last.policy.diff(loaded.policy)
            opens = opened_text(last.policy, loaded.policy, len(added) + len(removed))
            loosens = last.policy.is_loosened_by(loaded.policy)
            return _Change(loaded, added, removed, opens, loosens)

        change = await off_loop.compute(read)
        known, now = self._compared(dict(change.loaded.states))
        return change if known == now else None

    def _reject(self, seen: States, error: ConfigError) -> None:
        # If the error came before any file was read, watch the files of the last valid policy.
        self._rejected = seen or {path: fingerprint(path) for path in self._loaded.states}
        self._complain(self._what, error)

    def _complain(self, what: str, error: ConfigError) -> None:
        if self._loud:
            first = f"warning: the {what} was rejected; the last valid one stays in force"
            logs.report([first, *error.lines()])
        self._record(Notice(0, "policy-rejected", error.what))

    def _apply(self, change: _Change) -> str:
        """Close what is no longer allowed, and return what has changed."""
        self._loaded, self._rejected = change.loaded, None
        closed = sum(connection.withdraw() for connection in list(self._connections))
        self._close_warm()
        text = entries_text(change.added, change.removed)
        if change.opens:
            text += f"; {change.opens}"
        if closed:
            text += f"; {closed} open {'tunnel' if closed == 1 else 'tunnels'} closed"
        self._announce(f"{self._what.capitalize()} applied: {text}")
        self._record(Notice(0, "policy-applied", text))
        return text


def _holds(loaded: Loaded) -> bool:
    """Tell whether the files still contain what was read."""
    return all(digest(path) == one for path, one in loaded.digests.items())


def _refuse_vanished(last: Loaded, loaded: Loaded, main: Path) -> None:
    """Raise ConfigError if a file is gone, or says nothing any more, that is part of the policy.

    A save that was interrupted leaves such a file, and an own policy's name may also be the name of
    a built-in one, which would then apply.
    """
    for path, state in loaded.states.items():
        if path not in last.digests and path != main:
            continue
        if state == ABSENT and path not in loaded.digests:
            raise _vanished(path, "the file is gone", "write it again, or restart claude-proxy")
        if path in loaded.blank and path not in last.blank:
            fix = "write `allow: []` into it to deny everything, or restart claude-proxy"
            raise _vanished(path, "the file says nothing", fix)


def _vanished(path: Path, what: str, fix: str) -> ConfigError:
    return ConfigError(what, where=str(path), fix=fix)
