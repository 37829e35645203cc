"""Entry point of the proxy process of one run.

Law kept: no quiet downgrade: if the proxy cannot start, it reports the error to the launcher, which
then runs nothing. When the launcher ends, for any reason, the lifeline closes and this process ends
as well. Its settings come pickled from the launcher; see `proxy_process_ipc`.
"""

import contextlib
import os
import socket
import sys
from importlib import import_module
from typing import NoReturn

from claude_proxy.config.settings import Settings
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.proxy_process_ipc import (
    CHECKED,
    READY,
    decode,
    encode_error,
    encode_unrecorded,
)
from claude_proxy.sandbox.waiting_process import LENGTH_BYTES
from claude_proxy.system import collection, file_shortage

_EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
_CHECKS = "claude_proxy.server.app"  # all that may stop a start, and no engine
_MOST_DESCRIPTORS = 16


def run(descriptor: int) -> NoReturn:
    """Wait for the task that arrives at a socket, run the proxy, and end the process."""
    with collection.paused():
        code = main(socket.socket(fileno=descriptor))
    # Everything is closed and written; the interpreter's own end takes a tenth of a second, and the
    # launcher waits for it.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def main(channel: socket.socket) -> int:
    """Run the proxy as the task says that arrives at a socket; return the exit code."""
    with channel:
        with contextlib.suppress(Exception):  # it fails again below, where it is reported
            import_module(_CHECKS)  # while the launcher finds out what the task is
        received = _received(channel)
    if received is None:
        return 0  # the launcher has none
    data, descriptors = received
    task = decode(data).received(descriptors)
    for stream in (1, 2):
        os.dup2(task.log, stream)
    os.close(task.log)
    os.environ.update(task.environ)
    report = _StartReport(task.report)
    try:
        from claude_proxy.server.app import serve  # noqa: PLC0415 - its errors are reported too
        from claude_proxy.system.sd_notify import Lifeline  # noqa: PLC0415 - as above

        def follow(settings: Settings) -> None:
            if task.followed is not None:
                from claude_proxy.sandbox import shown_list  # noqa: PLC0415 - few lists change

                shown_list.follow(task.followed, settings)

        def tell_unrecorded(count: int, why: ClaudeProxyError) -> None:
            if task.unrecorded is not None:
                with contextlib.suppress(OSError):
                    os.write(task.unrecorded, encode_unrecorded(count, why))

        lifeline = Lifeline(
            checked=report.checked,
            ready=lambda: report.send(READY),
            until=task.lifeline,
            unrecorded=tell_unrecorded,
        )
        return serve(task.settings, loaded=task.loaded, lifeline=lifeline, on_applied=follow)
    except ClaudeProxyError as error:
        shown = file_shortage.explained(error) or error
        report.send(encode_error(shown))
        return shown.exit_code
    except Exception as error:
        # Without its message, which may quote a secret: secrets stay outside.
        what = f"internal error ({type(error).__name__}) in the proxy of the run"
        bug = ClaudeProxyError(what, fix="report it as a bug")
        report.send(encode_error(file_shortage.explained(error) or bug))
        if os.environ.get("CLAUDE_PROXY_DEBUG"):
            raise
        return _EXIT_INTERNAL


def _received(channel: socket.socket) -> tuple[bytes, list[int]] | None:
    """Return a task and its descriptors; None if the launcher has ended before it sent them."""
    head, descriptors, _, _ = socket.recv_fds(channel, LENGTH_BYTES, _MOST_DESCRIPTORS)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    length = int.from_bytes(head)
    data = bytearray()
    while head and len(data) < length and (piece := channel.recv(length - len(data))):
        data += piece
    return (bytes(data), descriptors) if head and len(data) == length else None


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
