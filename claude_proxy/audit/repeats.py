"""Repeated denials: equal denials within a minute, counted on the row of the first; pure.

Law: a flood of denials costs counts, not rows. The first denial has a row of its own before it is
obeyed, so "recorded or denied" holds; a repeat on the same connection only raises its count. On new
connections a denial gets a few more rows, so that each of a few clients can be told, and a client
that varies the path gets a bounded number a minute; the rest counts on the last row.
"""

from collections import OrderedDict
from typing import Final

from claude_proxy.audit.owner import owner_of
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.events import DecisionMade

WINDOW_S: Final = 60.0
CONNECTIONS: Final = 50  # rows a minute for equal denials on different connections
ROWS: Final = 200  # rows a minute for one kind of denial, whose path varies
KINDS: Final = 1024  # that are remembered; those seen longest ago are forgotten

# A client may invent as many methods as it wants.
_METHODS: Final = frozenset(
    {"", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "SOCKS"}
)
_OTHER_METHOD: Final = "*"

type _Kind = tuple[str | None, ...]


@dataclass(slots=True, eq=False)
class Repeated:
    """A recorded denial, and how often it was repeated since."""

    id: int
    connection: int
    rows: int = 1  # how many rows the denial has by now, this being the last of them
    count: int = 1
    last: int = 0
    has_outcome: bool = False


@dataclass(slots=True, eq=False)
class _Window:
    """The denials of one kind since `began`, by path."""

    began: float
    paths: dict[int, Repeated]  # by the hash of the path, which may be long
    newest: Repeated
    ids: list[int]  # of all its rows


class RepeatedDenials:
    """Tells which denials are repeats; `now` is a monotonic time in seconds."""

    def __init__(self) -> None:
        self._windows: OrderedDict[_Kind, _Window] = OrderedDict()
        self._by_id: dict[int, Repeated] = {}
        self._unwritten: dict[int, Repeated] = {}

    def counted(self, event: DecisionMade, now: float) -> Repeated | None:
        """Count a denial on an equal one of the same window; None if it needs a row of its own."""
        if event.attempt is not None:
            return None  # it ends an attempt that has a row of its own
        window = self._windows.get(_kind_of(event))
        if window is None or now - window.began > WINDOW_S:
            return None
        found = window.paths.get(hash(event.path))
        is_full = len(window.ids) >= ROWS
        if found is None:
            if not is_full:
                return None
            found = window.newest
        elif found.connection != event.connection and found.rows < CONNECTIONS and not is_full:
            return None
        found.count += 1
        found.last = event.time_ns
        self._unwritten[found.id] = found
        return found

    def recorded(self, event: DecisionMade, now: float) -> None:
        """Remember a denial that got a row of its own."""
        if event.attempt is not None:
            return
        kind = _kind_of(event)
        window = self._windows.get(kind)
        row = Repeated(event.id, event.connection)
        if window is None or now - window.began > WINDOW_S:
            self._forget(kind)
            window = self._windows[kind] = _Window(now, {}, row, [])
        before = window.paths.get(hash(event.path))
        if before is not None:
            row.rows = before.rows + 1
        window.ids.append(row.id)
        window.paths[hash(event.path)] = window.newest = row
        self._by_id[row.id] = row
        if len(self._windows) > KINDS:
            self._forget(next(iter(self._windows)))

    def adds_outcome(self, decision: int) -> bool:
        """Tell whether an outcome is the first of its row: those of repeats add nothing."""
        row = self._by_id.get(decision)
        if row is None:
            return True
        is_first, row.has_outcome = not row.has_outcome, True
        return is_first

    def unwritten(self, most: int) -> list[Repeated]:
        """Return rows whose count was not written yet, at most `most`."""
        return list(self._unwritten.values())[:most]

    def written(self, rows: list[Repeated]) -> None:
        """Note that the counts of these rows were written."""
        for row in rows:
            self._unwritten.pop(row.id, None)

    def clear(self) -> None:
        """Forget all rows, because they are in a file that is gone."""
        self._windows.clear()
        self._by_id.clear()
        self._unwritten.clear()

    def _forget(self, kind: _Kind) -> None:
        window = self._windows.pop(kind, None)
        if window is not None:
            for number in window.ids:
                self._by_id.pop(number, None)


def _kind_of(event: DecisionMade) -> _Kind:
    return (
        owner_of(event.client, event.run),
        event.listener,
        event.phase,
        event.scheme,
        event.target,
        event.method if event.method in _METHODS else _OTHER_METHOD,
        event.reason,
        event.rule_source,
        event.credential,
    )
