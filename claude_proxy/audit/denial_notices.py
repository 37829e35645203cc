"""Notices of denials: every so often, what a proxy denied and the line that would allow it.

Law kept: a decision never waits for a sink. Lines come at most once a minute, as a summary
of a few lines, so that a terminal stays readable.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from claude_proxy.audit.denials import DeniedRow, summary
from claude_proxy.audit.sinks import Output
from claude_proxy.events import DecisionMade, Event, OutcomeSeen

GATHER_S: Final = 5.0  # a failed command makes several denials; then its user looks
PAUSE_S: Final = 60.0
_MOST_ROWS: Final = 2048  # a flood is counted, not kept
_OTHERS: Final = DeniedRow("", "", "other targets", "", "", "several reasons", None)


class DenialNotices:
    """A sink that prints a summary of denials."""

    def __init__(
        self,
        output: Output,
        options: tuple[str, ...],
        *,
        gather_s: float = GATHER_S,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._options = options
        self._gather_s, self._pause_s = gather_s, pause_s
        self._clock = clock
        self._rows: dict[DeniedRow, int] = {}
        self._without_address: dict[int, DeniedRow] = {}  # by the attempt that ended so
        self._since = clock()
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._stop = threading.Event()
        # A daemon: a terminal that stops reading must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="denial-notices", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Count an event if it is a denial."""
        if isinstance(event, OutcomeSeen) and event.decision in self._without_address:
            self._add_address(event)
        if not isinstance(event, DecisionMade) or event.allowed:
            return
        row = DeniedRow.of(event)
        with self._lock:
            if not self._rows:
                self._since = self._clock()
            if row not in self._rows and len(self._rows) >= _MOST_ROWS:
                row = _OTHERS
            self._rows[row] = self._rows.get(row, 0) + 1
            if event.attempt is not None and len(self._without_address) < _MOST_ROWS:
                self._without_address[event.attempt] = row
        self._news.set()

    def _add_address(self, event: OutcomeSeen) -> None:
        """Note the address that was denied, which only the outcome of its attempt has."""
        with self._lock:
            row = self._without_address.pop(event.decision)
            count = self._rows.pop(row, 0)
            if count:
                known = row._replace(address=event.upstream)
                self._rows[known] = self._rows.get(known, 0) + count

    def close(self) -> None:
        """Print what is left, and end."""
        self._stop.set()
        self._news.set()
        self._thread.join(self._gather_s)
        self.print_summary()

    def print_summary(self) -> None:
        """Print the denials since the last summary, if there were any."""
        with self._lock:
            rows, self._rows = self._rows, {}
            self._without_address.clear()
            seconds = max(1, round(self._clock() - self._since))
        lines = summary(
            (row._replace(times=count) for row, count in rows.items()),
            options=self._options,
            more="claude-proxy log --denied",
            heading=f"Denied in the last {seconds} s: {{}}",
        )
        if lines:
            self._write("".join(f"{line}\n" for line in lines))

    def _write(self, text: str) -> None:
        # Where nobody reads it, the audit log has every denial.
        with suppress(OSError):
            self._output.write(text.encode("utf-8", "backslashreplace"))

    def _run(self) -> None:
        while not self._stop.is_set():
            self._news.wait()
            self._news.clear()
            if not self._stop.wait(self._gather_s):
                self.print_summary()
                self._stop.wait(self._pause_s)
