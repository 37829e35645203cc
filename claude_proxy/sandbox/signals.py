"""Signals that end a run: the first one raises an exception, so that everything is cleaned up.

By default SIGTERM and SIGHUP would end the launcher at once. Later signals are ignored, so that
they do not interrupt the clean-up.
"""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal ends the run; not an Exception, so that no handler catches it by accident."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interruptions:
    """A context in which the first such signal raises Interrupted."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _HANDLED:
            # A signal that the parent process ignores (nohup) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._raise)
        return self

    def ignore(self) -> None:
        """Ignore all further signals."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        self.ignore()
        raise Interrupted(number)
