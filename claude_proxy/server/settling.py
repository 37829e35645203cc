"""Settling of changed files: when one that is written in place may be read.

Law kept: default-deny. A file that arrives by rename is complete. One that is written in place is
complete when it has not changed for a while and nobody has it open for writing; until then the
last policy stays in force. Pure but for the two questions about files that it is given.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from claude_proxy.config.file_states import ABSENT, Fingerprint, arrived_whole, is_another

# A copy over a network pauses for less, and an owner who saves a file waits no longer.
SETTLED_S = 2.0
# What takes away a denial or a credential may be the first part of a file.
SETTLED_TWICE_S = 2 * SETTLED_S
# A new file was renamed to its path, as a rule; if it was written there, it is open meanwhile.
_NEW_FILE_S = 0.5
# A program that keeps a file open for good does not keep it from being read.
_LONGEST_OPEN_S = 60.0


class Settling:
    """The changes of a set of files, and since when they rest."""

    def __init__(self, is_open_for_writing: Callable[[Path], bool]) -> None:
        self._is_open_for_writing = is_open_for_writing
        self._changed: dict[Path, Fingerprint] = {}
        self._rests_since = 0.0
        self._written_at = 0.0
        self._restless_since: float | None = None

    def rest_s(
        self, now: float, known: Mapping[Path, Fingerprint], seen: Mapping[Path, Fingerprint]
    ) -> float | None:
        """Return for how long what has changed since `known` rests; None if nothing has changed.

        It is infinite for files that arrived by rename.
        """
        changed = {path: state for path, state in seen.items() if state != known.get(path)}
        if not changed:
            self._changed, self._restless_since = {}, None
            return None
        if self._restless_since is None:
            self._restless_since = now
        if changed != self._changed:
            self._changed = changed
            self._rests_since = self._written_at = now
        if now - self._written_at < _LONGEST_OPEN_S and any(
            map(self._is_open_for_writing, changed)
        ):
            self._rests_since = now
            return 0.0
        rest_s = now - self._rests_since
        is_whole = is_another if rest_s >= _NEW_FILE_S else arrived_whole
        if all(is_whole(known.get(path, ABSENT), state) for path, state in changed.items()):
            return math.inf
        return rest_s

    def has_changed_for_long(self, now: float) -> bool:
        """Tell, once a minute, that files have not come to rest for so long."""
        since = self._restless_since
        if since is None or now - since < _LONGEST_OPEN_S:
            return False
        self._restless_since = now
        return True
