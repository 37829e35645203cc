"""Shares of the audit log: whose rows are removed when the log has reached its size.

Law: nobody pushes another's rows out. Room is made from the owner with the most, down to the level
at which all that remain fit; an owner below that level loses nothing. Adding the log up takes a
moment, so it is done on a thread of its own, which only reads.
"""

import sqlite3
import threading
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import field
from pathlib import Path
from typing import Final

from claude_proxy.audit.database import connect
from claude_proxy.audit.owner import OWNER_IN_SQL
from claude_proxy.deferred.data_classes import dataclass

# A row with its outcome takes some 200 bytes, and what a client made of it.
ROW_BYTES: Final = "200 + length(target) + length(path)"

_ADD_UP: Final = (
    f"SELECT {OWNER_IN_SQL} AS owner, min(id),"  # noqa: S608 - constants of this package
    f" sum({ROW_BYTES}) FROM decision GROUP BY owner"
)


@dataclass(slots=True)
class Plan:
    """What to remove: for each owner so many bytes of its oldest rows."""

    excess: dict[str, int]  # bytes, by owner
    start: int  # the id at which the oldest of these rows is
    removed: dict[str, int] = field(default_factory=dict)  # rows, by owner

    def takes(self, owner: str, size: int) -> bool:
        """Tell whether a row of `owner` is to be removed, and count it."""
        left = self.excess.get(owner, 0)
        if left <= 0:
            return False
        self.excess[owner] = left - size
        self.removed[owner] = self.removed.get(owner, 0) + 1
        return True

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to remove."""
        return all(left <= 0 for left in self.excess.values())


def plan_of(sizes: Mapping[str, tuple[int, int]], kept: float) -> Plan:
    """Return what to remove so that a part of the log is kept, from 0 to 1; pure.

    `sizes` are the first ids and the bytes of the owners.
    """
    level = _level([size for _, size in sizes.values()], kept)
    excess = {owner: size - level for owner, (_, size) in sizes.items() if size > level}
    start = min((sizes[owner][0] for owner in excess), default=0)
    return Plan(excess, start)


def _level(sizes: Iterable[int], kept: float) -> int:
    """Return the most bytes that an owner keeps, so that a part of the whole is kept."""
    waiting = sorted(sizes)
    keep = int(sum(waiting) * kept)
    for at, size in enumerate(waiting):
        share = keep // (len(waiting) - at)
        if size > share:
            return share
        keep -= size
    return waiting[-1] if waiting else 0


class SharePlanner:
    """Makes plans on a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: threading.Thread | None = None
        self._plan: Plan | None = None

    def plan(self, kept: float) -> Plan | None:
        """Return the next plan, once; None while it is being made, which this begins."""
        made, self._plan = self._plan, None
        if made is None and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(
                target=self._run, args=(kept,), name="audit-shares", daemon=True
            )
            self._thread.start()
        return made

    def close(self, timeout_s: float) -> None:
        """Wait for the thread, if it runs."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, kept: float) -> None:
        # The writer meets and reports the same errors of the file, and has a hard bound as well.
        try:
            with closing(connect(self._path, mode="ro")) as connection:
                rows = connection.execute(_ADD_UP).fetchall()
        except sqlite3.Error:
            return
        self._plan = plan_of({owner: (first, size) for owner, first, size in rows}, kept)
