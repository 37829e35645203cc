"""Turns the signals that end a run into one exception, so that everything is taken down for them.

Without it SIGTERM and SIGHUP would end the launcher on the spot. It is raised once: what takes
things down must not be interrupted in its turn.
"""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The run is to end because of a signal; no Exception, so that nothing swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interruptions:
    """Raises Interrupted for the first such signal, for as long as it is entered."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _HANDLED:
            # What whoever started us ignores (nohup) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._raise)
        return self

    def ignore(self) -> None:
        """Let nothing interrupt any more."""
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
