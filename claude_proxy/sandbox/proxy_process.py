"""Entry point of the proxy process of one run.

Law kept: no quiet downgrade: if the proxy cannot start, it reports the error to the launcher, which
then runs nothing. When the launcher ends, for any reason, the lifeline closes and this process ends
as well. Its settings come pickled from the launcher; see `proxy_process_ipc`.
"""

import contextlib
import os
import pickle
import sys
from typing import BinaryIO, NoReturn

from claude_proxy.config.settings import Settings
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.proxy_process_ipc import CHECKED, READY, Task, encode_error

_EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h


def run(file: BinaryIO) -> NoReturn:
    """Run the proxy as the task read from `file` says, and end the process."""
    code = main(file)
    # Everything is closed and written; the interpreter's own end takes a tenth of a second, and the
    # launcher waits for it.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def main(file: BinaryIO) -> int:
    """Run the proxy as the task read from `file` says; return the exit code."""
    with file:
        task = pickle.load(file)  # noqa: S301 - our own parent wrote it
    if not isinstance(task, Task):
        raise TypeError("not a task for a proxy process")
    for descriptor in (task.report, task.lifeline):
        os.set_inheritable(descriptor, False)
    os.environ.update(task.environ)
    report = _StartReport(task.report)
    try:
        from claude_proxy.server.app import serve  # noqa: PLC0415 - its errors are reported too
        from claude_proxy.system.sd_notify import Lifeline  # noqa: PLC0415 - as above

        def follow(settings: Settings) -> None:
            if task.followed is not None:
                from claude_proxy.sandbox import shown_list  # noqa: PLC0415 - few lists change

                shown_list.follow(task.followed, settings)

        lifeline = Lifeline(
            checked=report.checked, ready=lambda: report.send(READY), until=task.lifeline
        )
        return serve(task.settings, loaded=task.loaded, lifeline=lifeline, on_applied=follow)
    except ClaudeProxyError as error:
        report.send(encode_error(error))
        return error.exit_code
    except Exception as error:
        # Without its message, which may quote a secret: secrets stay outside.
        what = f"internal error ({type(error).__name__}) in the proxy of the run"
        report.send(encode_error(ClaudeProxyError(what, fix="report it as a bug")))
        if os.environ.get("CLAUDE_PROXY_DEBUG"):
            raise
        return _EXIT_INTERNAL


class _StartReport:
    """The report to the launcher: that all is checked, and then ready or failed, each sent once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def checked(self) -> None:
        """Report that nothing that is configured stops the start, and go on."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, CHECKED)

    def send(self, data: bytes) -> None:
        """Send the last report, unless one was sent: its descriptor may be another file's now."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(descriptor, data)
            os.close(descriptor)
