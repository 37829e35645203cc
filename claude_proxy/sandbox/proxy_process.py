"""Is the proxy of one run, in a process of its own that ends with its launcher.

Law 11: what keeps the proxy from starting is reported to the launcher, which then runs nothing.
The launcher's end, however it comes, closes the lifeline, and with it goes this process. Its
settings come pickled from the launcher; `launch/handover.py` says why that is safe.
"""

import contextlib
import os
import pickle
from typing import BinaryIO

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.proxy_process_ipc import READY, Task, encode_error

_EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h


def main(file: BinaryIO) -> int:
    """Do the task that is read from `file`; return the exit code."""
    with file:
        task = pickle.load(file)  # noqa: S301 - our own parent wrote it
    if not isinstance(task, Task):
        raise TypeError("no task for a companion")
    for descriptor in (task.report, task.lifeline):
        os.set_inheritable(descriptor, False)
    os.environ.update(task.environ)
    report = _Report(task.report)
    try:
        # mitmproxy comes with it.
        from claude_proxy.server.app import serve  # noqa: PLC0415
        from claude_proxy.system.sd_notify import Lifeline  # noqa: PLC0415

        lifeline = Lifeline(ready=lambda: report.give(READY), until=task.lifeline)
        return serve(task.settings, lifeline=lifeline)
    except ClaudeProxyError as error:
        report.give(encode_error(error))
        return error.exit_code
    except Exception as error:
        # Not its message: it may quote what no terminal or log may show (ninth law).
        what = f"internal error ({type(error).__name__}) in the proxy of the run"
        report.give(encode_error(ClaudeProxyError(what, fix="report it as a bug")))
        if os.environ.get("CLAUDE_PROXY_DEBUG"):
            raise
        return _EXIT_INTERNAL


class _Report:
    """What the launcher waits to hear: one thing, once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def give(self, data: bytes) -> None:
        """Tell it, if nothing has been told yet; the descriptor's number may be another's then."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(descriptor, data)
            os.close(descriptor)
