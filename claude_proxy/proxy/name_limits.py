"""Limits on the names that the clients of a run look up below one wildcard.

A name that a rule spells out says nothing that the owner has not written. Below `*.example.com` a
client makes up names itself, so that each new one could tell something. Law kept: fail closed. What
exceeds a limit is denied until there is room; a name that was allowed stays allowed.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable

from claude_proxy.policy.patterns import HostPattern, PatternKind

NAMES_LIMIT = 64  # different names below one wildcard, in one run
RUN_LIMIT = 4096  # below all wildcards together; the only one where every host is allowed anyway
RATE_LIMIT = 32  # new ones in a minute

_MINUTE_S = 60.0
_RUNS_LIMIT = 256  # that are remembered; the one that has been silent longest is forgotten


class _Names:
    """The names of one run below one wildcard, and when the newest of them were new."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.recent: deque[float] = deque(maxlen=RATE_LIMIT)


class NameLimits:
    """The names that were allowed, by run and wildcard."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._runs: OrderedDict[str, dict[HostPattern, _Names]] = OrderedDict()

    def is_new(self, run: str, wildcard: HostPattern, name: str) -> bool:
        """Tell whether a name was not allowed before."""
        return name not in self._of(run, wildcard).known

    def admits(self, run: str, wildcard: HostPattern, name: str) -> bool:
        """Tell whether a run may look up one more name below a wildcard, or one it has had."""
        names = self._of(run, wildcard)
        if name in names.known:
            return True
        if sum(len(each.known) for each in self._runs[run].values()) >= RUN_LIMIT:
            return False
        if wildcard.kind is PatternKind.EVERY:
            return True
        if len(names.known) >= NAMES_LIMIT:
            return False
        return len(names.recent) < RATE_LIMIT or self._now() - names.recent[0] >= _MINUTE_S

    def add(self, run: str, wildcard: HostPattern, name: str) -> None:
        """Count a name that is allowed."""
        names = self._of(run, wildcard)
        if name not in names.known:
            names.known.add(name)
            names.recent.append(self._now())

    def _of(self, run: str, wildcard: HostPattern) -> _Names:
        wildcards = self._runs.setdefault(run, {})
        self._runs.move_to_end(run)
        if len(self._runs) > _RUNS_LIMIT:
            self._runs.popitem(last=False)
        return wildcards.setdefault(wildcard, _Names())
