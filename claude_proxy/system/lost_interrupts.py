"""Lost interrupts: a Ctrl-C that Python swallows in a callback is raised again after it.

In a weak reference's callback (the import system has one) or a `__del__`, Python prints the
exception of a signal's handler as "ignored", with a traceback, and goes on. Law kept: what ends the
program ends it, and no traceback is at a terminal.
"""

import signal
import sys
from types import FrameType
from typing import Final

_AGAIN_S: Final = 0.001
_NOT_OF_SIGNALS: Final = (Exception, GeneratorExit, SystemExit)


def raise_again() -> None:
    """From now on, raise in the main thread what a signal's handler raised in vain."""
    report = sys.unraisablehook

    def on_swallowed(swallowed: "sys.UnraisableHookArgs") -> None:
        error = swallowed.exc_value
        if error is None or isinstance(error, _NOT_OF_SIGNALS):
            report(swallowed)
        else:
            _raise_soon(error)

    sys.unraisablehook = on_swallowed


def _raise_soon(error: BaseException) -> None:
    # Not here, where it would be swallowed as well.
    def raise_it(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        raise error.with_traceback(None)

    signal.signal(signal.SIGALRM, raise_it)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
