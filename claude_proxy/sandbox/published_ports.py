"""Published ports of a sandbox: their listeners on this machine, and the program that serves them.

Law kept: no quiet downgrade. A port that cannot be listened on stops the start, before anything
runs. Nothing beyond loopback is listened on unless the owner said so (`cli.run_choices`).
"""

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from claude_proxy.config.port_mappings import Forward, Published
from claude_proxy.config.settings import AuditFailure, Settings
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import (
    helper_end,
    own_programs,
    port_publisher,
    proxy_process_ipc,
    start_patience,
)
from claude_proxy.sandbox.helper_processes import HelperProcess, start_program
from claude_proxy.sandbox.plan.port_checks import RESERVED
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import RunLog
from claude_proxy.sandbox.start_patience import StartPatience

_BACKLOG = 1024
_WORDS_OF_ADDRESS = 2


@dataclass(frozen=True, slots=True)
class HostListener:
    """A listening socket of this machine, and the port inside that it leads to."""

    socket: socket.socket
    place: str  # "127.0.0.1:3000"
    port: int

    def __str__(self) -> str:
        return f"{self.place} leads to port {self.port} inside"


@contextlib.contextmanager
def opened(published: Sequence[Published]) -> Iterator[tuple[HostListener, ...]]:
    """Listen on this machine, for the duration of a `with`; ConfigError if a port is taken."""
    with contextlib.ExitStack() as stack:
        yield tuple(_listening(one, stack) for one in published)


def _listening(one: Published, stack: contextlib.ExitStack) -> HostListener:
    family = socket.AF_INET6 if ":" in one.address else socket.AF_INET
    try:
        # asyncio is not used here; the protocol is named as everywhere else.
        sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((one.address, one.host_port))
        sock.listen(_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {one.listens_at} ({(error.strerror or str(error)).lower()})",
            where=f"--publish {one}",
            fix="stop the program that listens there, or take another port of this machine; 0 "
            f"takes a free one: 0:{one.port}",
        ) from error
    host, port = sock.getsockname()[:_WORDS_OF_ADDRESS]
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return HostListener(sock, place, one.port)


class PortPublisher(HelperProcess):
    """The program that copies between published ports and servers inside."""

    loss = "after that no port of it was published"

    def __init__(
        self, process: subprocess.Popen[bytes], lifeline: int, report: int, log: Path
    ) -> None:
        super().__init__("port publisher", process, lifeline)
        self._report = report
        self._log = log

    def wait_until_ready(self, patience: StartPatience) -> None:
        """Wait until it serves; raise the error that it reports instead."""
        try:
            said = b""
            while not said.endswith(b"\n"):
                if not patience.readable(self._report, self.pid):
                    self.process.kill()
                    raise self._late()
                piece = os.read(self._report, proxy_process_ipc.REPORT_LIMIT)
                if not piece:
                    break
                said += piece
        finally:
            os.close(self._report)
        if said != port_publisher.READY:
            raise proxy_process_ipc.decode_error(said) or self.failed(self._log)

    def _late(self) -> ClaudeProxyError:
        return ClaudeProxyError(
            f"the ports of this run were not published after {start_patience.LIMIT_S:.0f} seconds",
            where=helper_end.place_of(self._log, f"process {self.pid}, which was ended"),
            fix="check that nothing stops or slows this process, or leave --publish out",
        )


def start(  # noqa: PLR0913 - what is published of which sandbox, and where it is recorded
    listeners: Sequence[HostListener],
    init: int,
    run_directory: RunDirectory,
    log: RunLog,
    settings: Settings,
    *,
    forwards: Sequence[Forward] = (),
    auto: bool = False,
    terminal: int = 2,
) -> PortPublisher:
    """Start to serve the listeners of a sandbox whose first process is `init`.

    With `auto`, each port that a program inside begins to listen on is published as well, which is
    said on the descriptor `terminal`. The listeners are closed here, as they are the program's.
    """
    until, lifeline = os.pipe()
    heard, report = os.pipe()
    said = os.dup(terminal)  # not its own number, which is the log's in a helper process
    numbers = [listener.socket.fileno() for listener in listeners]
    task = {
        "pid": init,
        "until": until,
        "report": report,
        "terminal": said,
        "ports": [
            [number, listener.place, listener.port]
            for number, listener in zip(numbers, listeners, strict=True)
        ],
        "auto": auto,
        "skipped": _never_published(listeners, forwards),
        "record": {
            "statedir": str(settings.statedir),
            "days": settings.audit_days,
            "bytes": settings.audit_bytes,
            "run": run_directory.name,
            "required": settings.audit_failure is AuditFailure.DENY,
        },
    }
    words = own_programs.words_with_packages(port_publisher, json.dumps(task))
    try:
        process = start_program(words, (until, report, said, *numbers), log)
    except BaseException:
        os.close(lifeline)
        os.close(heard)
        raise
    finally:
        for descriptor in (until, report, said):
            os.close(descriptor)
    for listener in listeners:
        listener.socket.close()
    run_directory.note(process.pid)
    return PortPublisher(process, lifeline, heard, log.path)


def _never_published(listeners: Sequence[HostListener], forwards: Sequence[Forward]) -> list[int]:
    """Return the ports that are not published by themselves: those of the run, and ways back."""
    return sorted(
        {
            *RESERVED,
            *(listener.port for listener in listeners),
            *(forward.port for forward in forwards),
            *(forward.target.port for forward in forwards if forward.to_host),
        }
    )
