"""Notices of open times: a line on every terminal concerned when one begins, lasts and ends.

No line holds up the proxy: what a terminal does not take at once is lost, and is in the audit log.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from time import monotonic

from claude_proxy.config.settings import InheritedListen
from claude_proxy.control import grant_texts, present
from claude_proxy.control.grants_in_force import Changes
from claude_proxy.policy.grants import End, Grant, GrantedRun, GrantKind, Moment
from claude_proxy.proxy.connection import Services
from claude_proxy.server.prepared import Prepared
from claude_proxy.system.runs import LivingRun, living_runs

_AGAIN_S = 60.0
_PREFIX = "claude-proxy: "


class GrantNotices:
    """What one process tells the terminals of its proxy and of the runs that use it."""

    def __init__(
        self,
        prepared: Prepared,
        services: Services,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._prepared = prepared
        self._services = services
        self._clock = clock
        self._open: dict[int, Grant] = {}
        self._told: dict[tuple[int, str], float] = {}  # when, by grant and terminal; "": our own

    def tell(self, changes: Changes, in_force: Iterable[Grant]) -> None:
        """Tell what has changed, and now and then what is still open."""
        there = {each.number: each for each in in_force if each.kind is GrantKind.OPEN}
        if not self._prepared.slot.speaks or not (there or self._open):
            return
        why = {each.grant.number: each.why.value for each in changes.ended}
        for number, grant in self._open.items():
            if number not in there:
                self._tell_end(grant, why.get(number, End.TIME.value))
        self._open = there
        now, places = present.now(), list(self._places())
        for grant in there.values():
            for terminal, run in places:
                if _concerns(grant, run):
                    self._remind(grant, terminal, now)

    def _tell_end(self, grant: Grant, why: str) -> None:
        line = grant_texts.closed_line(grant, why)
        for key in [key for key in self._told if key[0] == grant.number]:
            self._say(key[1], line)
            del self._told[key]

    def _remind(self, grant: Grant, terminal: str, now: Moment) -> None:
        key = (grant.number, terminal)
        last, time = self._told.get(key), self._clock()
        if last is not None and time - last < _AGAIN_S:
            return
        self._told[key] = time
        make = grant_texts.opened_line if last is None else grant_texts.still_open_line
        self._say(terminal, make(grant, now))

    def _places(self) -> Iterator[tuple[str, LivingRun | None]]:
        """Yield the terminals: our own, which is "", and those of the runs that use this proxy."""
        settings = self._prepared.settings
        own = {
            one.run.name
            for one in settings.listen
            if isinstance(one, InheritedListen) and one.run is not None
        }
        if not own:
            yield "", None
        joined = {one.session.client_info.run for one in list(self._services.connections)}
        if settings.runs is not None and (names := own | joined - {None}):
            yield from (
                (run.terminal, run)
                for run in living_runs(settings.runs)
                if run.name in names and run.terminal
            )

    def _say(self, terminal: str, line: str) -> None:
        text = "".join(each if each.isprintable() else "?" for each in line)
        if terminal:
            _write(terminal, f"\r{_PREFIX}{text}\r\n")
        else:
            self._prepared.report([text])


def _concerns(grant: Grant, run: LivingRun | None) -> bool:
    if run is None:
        return grant.run is None
    return grant.concerns(GrantedRun(run.name, run.folder), run.project or None)


def _write(terminal: str, text: str) -> None:
    """Write a line to a terminal of this user, without waiting for it."""
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(terminal, flags)
        try:
            if os.isatty(descriptor) and os.fstat(descriptor).st_uid == os.geteuid():
                os.write(descriptor, text.encode("utf-8", "replace"))
        finally:
            os.close(descriptor)
