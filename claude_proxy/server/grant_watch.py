"""Grant watch: keeps the grants of a running proxy up to date, and tells of their begin and end.

Laws kept: default-deny: what only a grant allowed is withdrawn with it. Recorded: the end of each
grant is in the audit log once. The store and what reads it are imported when there is a store:
most proxies have none.
"""

import asyncio
import contextlib
import logging
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from claude_proxy.errors import AuditError
from claude_proxy.events import Notice, Phase
from claude_proxy.proxy.connection import Services
from claude_proxy.server.gates import Gates
from claude_proxy.server.prepared import Prepared

if TYPE_CHECKING:
    from claude_proxy.control.grant_store import News
    from claude_proxy.control.grants_in_force import Changes, GrantsInForce
    from claude_proxy.policy.grants import Grant
    from claude_proxy.server.grant_notices import GrantNotices

logger = logging.getLogger(__name__)

# A tunnel without a request, in which a client may be about to send one: that is denied by itself,
# with a reason. Then the tunnel is closed, as its grant is used up.
_IDLE_S = 5.0
_FILE = "grants.sqlite3"


class GrantWatch:
    """The grants of one process of a proxy."""

    def __init__(self, prepared: Prepared, services: Services, gates: Gates) -> None:
        self._prepared = prepared
        self._services = services
        self._gates = gates
        self._path = prepared.settings.statedir / _FILE
        self._known: GrantsInForce | None = None
        self._notices: GrantNotices | None = None
        self._idle_at = 0.0  # when idle tunnels of grants that are used up are closed

    def look(self) -> None:
        """Notice what has changed; called at the start and about once a second."""
        if self._is_in_use():
            self._follow(self._grants.look())

    def refresh(self) -> int:
        """Read the store now; return how many connections were closed."""
        return self._follow(self._grants.refresh()) if self._is_in_use() else 0

    def in_force(self) -> list["Grant"]:
        """Return the grants that are in force, for any client."""
        return [] if self._known is None else self._known.in_force()

    def status(self) -> list[dict[str, Any]]:
        """Return the grants in force, as JSON has them."""
        if self._known is None:
            return []
        from claude_proxy.control import grant_texts, present  # noqa: PLC0415 - few are asked

        now = present.now()
        return [grant_texts.as_json(grant, now) for grant in self.in_force()]

    def used_up(self) -> list[dict[str, Any]]:
        """Return the grants that are used up and by which something is open, as JSON has them."""
        if self._known is None or not self._known.has_spent:
            return []
        from claude_proxy.control import present, used_up  # noqa: PLC0415 - few are asked

        now, counts = present.now(), _open_by_grant(self._services)
        return [
            used_up.as_json(
                *(grant, now),
                tunnels=counts[grant.number, False],
                requests=counts[grant.number, True],
            )
            for grant in self._known.used_up()
            if counts[grant.number, False] or counts[grant.number, True]
        ]

    def close(self) -> None:
        """Close the store."""
        if self._known is not None:
            self._known.close()

    @property
    def _grants(self) -> "GrantsInForce":
        if self._known is None:
            raise LookupError("there are no grants")
        return self._known

    def _is_in_use(self) -> bool:
        """Tell whether there is a store; from then on the gate asks about grants."""
        if self._known is not None:
            return True
        if not os.path.lexists(self._path):
            return False
        from claude_proxy.control.grants_in_force import GrantsInForce, RunFacts  # noqa: PLC0415
        from claude_proxy.policy.grants import GrantedRun  # noqa: PLC0415 - as the line above
        from claude_proxy.server.grant_notices import GrantNotices  # noqa: PLC0415 - as above
        from claude_proxy.system.runs import living_run  # noqa: PLC0415 - as above

        settings = self._prepared.settings
        base = settings.runs

        def find_run(name: str) -> RunFacts | None:
            found = None if base is None else living_run(base, name)
            if found is None:
                return None
            return RunFacts(GrantedRun(found.name, found.folder), found.project or None)

        self._known = GrantsInForce(settings.statedir, find_run)
        self._notices = GrantNotices(self._prepared, self._services)
        # Not of the gateway: it has one upstream, which no grant changes.
        self._gates.proxy.grants = self._known
        return True

    def _follow(self, changes: "Changes") -> int:
        """Do what follows from changes; return how many connections were closed."""
        from claude_proxy.policy.grants import End  # noqa: PLC0415 - imported before

        closed = 0
        loop_time = asyncio.get_running_loop().time()
        if changes.stopped or any(each.why is not End.USES for each in changes.ended):
            closed = self._withdraw()
        if any(each.why is End.USES for each in changes.ended):
            self._sweep_warm()
            self._idle_at = loop_time + _IDLE_S
        elif self._grants.has_spent and loop_time > self._idle_at:
            self._idle_at = loop_time + _IDLE_S
            self._withdraw()
        if changes.made and self._services.asking is not None:
            self._services.asking.ask_again()
        for news in changes.news:
            self._record(news)
        if self._notices is not None:
            self._notices.tell(changes, self.in_force())
        return closed

    def _withdraw(self) -> int:
        closed = sum(one.withdraw() for one in list(self._services.connections))
        self._sweep_warm()
        return closed

    def _sweep_warm(self) -> None:
        if self._services.warm is not None:
            self._services.warm.sweep()

    def _record(self, news: "News") -> None:
        from claude_proxy.control import grant_texts  # noqa: PLC0415 - imported before

        run = None if news.grant.run is None else news.grant.run.name
        notice = Notice(
            0, *grant_texts.recorded(news.grant, news.ended_by, is_end=news.is_end), run
        )
        with contextlib.suppress(AuditError):  # it shows at the next decision
            self._prepared.store.record(notice)


def _open_by_grant(services: Services) -> Counter[tuple[int, bool]]:
    """Count the uses that go on, by the grant and by whether it is a request or a tunnel."""
    return Counter(
        (attempt.grant, attempt.event is not None and attempt.event.phase is Phase.REQUEST)
        for connection in list(services.connections)
        for attempt in list(connection.session.client_info.attempts.values())
        if attempt.grant is not None and attempt.took_use
    )
