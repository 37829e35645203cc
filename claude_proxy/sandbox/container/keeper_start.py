"""Start of a keeper: a child of the launcher, which it outlives.

What a keeper needs is imported in the child, while the launcher starts the engine.
"""

import contextlib
import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import waiting_process
from claude_proxy.sandbox.container.keeper_link import KeeperChannel, LauncherLink
from claude_proxy.sandbox.container.keeper_task import KeeperTask
from claude_proxy.sandbox.run_log import log_of


def start_keeper(task: KeeperTask) -> KeeperChannel:
    """Start the keeper of a container as a child of this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        ours.close()
        _become_keeper(task, LauncherLink(theirs))
    theirs.close()
    waiting_process.leave()
    return KeeperChannel(child, ours)


def _become_keeper(task: KeeperTask, launcher: LauncherLink) -> NoReturn:
    """Do the work of a keeper, and exit without running the parent's clean-up."""
    code = 1
    try:
        waiting_process.adopt()
        _leave_launcher()
        from claude_proxy.sandbox.container.keeper import Keeper  # noqa: PLC0415 - not the launcher

        with ExitStack() as stack:
            try:
                Keeper(task, launcher, stack).keep()
                code = 0
            except ClaudeProxyError as error:
                launcher.fail(error)
            except BaseException as error:  # noqa: BLE001 - before the log is closed
                launcher.fail(_unexpected(error, log_of(task.run.settings.statedir, task.name)))
        launcher.tell("ended")
    except BaseException as error:  # noqa: BLE001 - the child ends here
        launcher.fail(_unexpected(error, None))
    finally:
        os._exit(code)


def _unexpected(error: BaseException, log: Path | None) -> ClaudeProxyError:
    """Note a failure that nobody foresaw, and return it for the launcher.

    Without its message, which may quote a secret: secrets stay outside.
    """
    what = f"the process that keeps the container's proxy failed: {type(error).__name__}"
    with contextlib.suppress(OSError):
        os.write(2, f"claude-proxy: {what}\n".encode())
        if os.environ.get("CLAUDE_PROXY_DEBUG"):
            sys.excepthook(type(error), error, error.__traceback__)
    return ClaudeProxyError(
        what,
        where=None if log is None else str(log),
        fix="report it as a bug, with what CLAUDE_PROXY_DEBUG=1 adds to that file",
    )


def _leave_launcher() -> None:
    """Leave the terminal, the signals and the working directory of the launcher."""
    os.setsid()
    os.chdir("/")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
