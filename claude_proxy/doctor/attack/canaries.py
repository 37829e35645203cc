"""Canaries outside a sandbox: listeners, files and a process that nothing inside may reach.

Listeners on loopback, Unix sockets of every kind, files and a process that contain a secret. They
are evidence from outside, which the sandbox cannot forge.
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_GREETING: Final = b"canary\n"
_PAUSE_S: Final = 0.2
_ANY_CID: Final = 0xFFFFFFFF
_SLEEP: Final = "import sys; print(flush=True); sys.stdin.read()"
SECRET_VARIABLE: Final = "CLAUDE_PROXY_DOCTOR_CANARY"  # noqa: S105 - the name of a variable


def fresh_token() -> str:
    """Return a secret that must not be visible in a sandbox."""
    return secrets.token_hex(16)


class Canaries:
    """Everything outside that a sandbox must not reach."""

    def __init__(self, folder: Path, project: Path | None, token: str | None = None) -> None:
        """Create them below `folder`, and in `project`, whose files are visible inside."""
        self.token = token or fresh_token()
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._seen: dict[str, list[str]] = {"loopback": [], "unix": []}
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self.tcp: list[tuple[str, int]] = []
        self.udp: list[tuple[str, int]] = []
        self.abstract: list[str] = []
        self.unix: list[str] = []
        self.vsock: int | None = None
        self.files: list[Path] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = folder
        self._project = project

    def __enter__(self) -> Self:
        try:
            self._listen()
            self._hide()
            self.process = self._start_process()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def seen(self, kind: str) -> tuple[str, ...]:
        """Stop all canaries, and return what reached those of a kind ("loopback" or "unix")."""
        self._stop()
        with self._lock:
            return tuple(self._seen[kind])

    def facts(self) -> dict[str, object]:
        """Return their addresses, for the probes."""
        return {
            "tcp": self.tcp,
            "udp": self.udp,
            "abstract": self.abstract,
            "unix": self.unix,
            "vsock": self.vsock,
        }

    def _listen(self) -> None:
        self._tcp("127.0.0.1", socket.AF_INET)
        with suppress(OSError):  # a machine without IPv6
            self._tcp("::1", socket.AF_INET6)
        datagrams = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.bind(("127.0.0.1", 0))
        self.udp.append(datagrams.getsockname())
        self._watch(datagrams, "loopback", "a datagram")
        if sys.platform == "linux":
            self._abstract(socket.SOCK_STREAM)
            self._abstract(socket.SOCK_DGRAM)
            with suppress(OSError):
                self._vsock()
        for directory in (self._folder, self._project):
            if directory is not None:
                self._unix(directory / "canary.sock")

    def _tcp(self, address: str, family: socket.AddressFamily) -> None:
        listener = self._stack.enter_context(socket.create_server((address, 0), family=family))
        self.tcp.append((address, int(listener.getsockname()[1])))
        self._watch(listener, "loopback", f"a connection to {address}")

    def _abstract(self, kind: socket.SocketKind) -> None:
        name = f"claude-proxy-doctor-{secrets.token_hex(8)}"
        listener = self._stack.enter_context(socket.socket(socket.AF_UNIX, kind))
        listener.bind(b"\0" + name.encode())
        if kind == socket.SOCK_STREAM:
            listener.listen()
        self.abstract.append(name)
        self._watch(listener, "unix", "something on an abstract socket")

    def _unix(self, path: Path) -> None:
        listener = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(path))
        self._stack.callback(path.unlink, missing_ok=True)
        listener.listen()
        self.unix.append(str(path))
        self._watch(listener, "unix", f"a connection to {path.name}")

    def _vsock(self) -> None:
        listener = self._stack.enter_context(socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))
        listener.bind((_ANY_CID, _ANY_CID))
        listener.listen()
        self.vsock = int(listener.getsockname()[1])
        self._watch(listener, "loopback", "a connection by AF_VSOCK")

    def _watch(self, listener: socket.socket, kind: str, what: str) -> None:
        listener.settimeout(_PAUSE_S)
        take = self._take_datagram if listener.type == socket.SOCK_DGRAM else self._take

        def note() -> None:
            with self._lock:
                self._seen[kind].append(what)

        def watch() -> None:
            # To the end of the queue, so that connections before the close are recorded.
            while True:
                try:
                    take(listener, note)
                except TimeoutError:
                    if self._closed.is_set():
                        return

        thread = threading.Thread(target=watch, daemon=True)
        self._threads.append(thread)
        thread.start()

    @staticmethod
    def _take(listener: socket.socket, note: Callable[[], None]) -> None:
        connection, _ = listener.accept()
        note()
        with connection, suppress(OSError):
            connection.sendall(_GREETING)

    @staticmethod
    def _take_datagram(listener: socket.socket, note: Callable[[], None]) -> None:
        _, sender = listener.recvfrom(4096)
        note()
        if sender:
            with suppress(OSError):
                listener.sendto(_GREETING, sender)

    def _hide(self) -> None:
        """Write the secret where other programs keep files: none of them may be visible inside."""
        for directory in (self._folder, Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")):  # noqa: S108
            if os.access(directory, os.W_OK):
                descriptor, name = tempfile.mkstemp(prefix="claude-proxy-doctor-", dir=directory)
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    file.write(self.token)
                self.files.append(Path(name))
                self._stack.callback(Path(name).unlink, missing_ok=True)

    def _start_process(self) -> subprocess.Popen[bytes]:
        """Start a process with the secret in its command line and its environment."""
        process = subprocess.Popen(  # noqa: S603 - this interpreter
            [sys.executable, "-I", "-S", "-c", _SLEEP, self.token],
            env={SECRET_VARIABLE: self.token},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._stack.callback(_end, process)
        if process.stdout is not None:
            process.stdout.readline()  # before this line it may still be a copy of this process
        return process

    def _stop(self) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join()

    def _close(self) -> None:
        self._stop()
        self._stack.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
