"""Keeper's side of a container that holds a network namespace, and hands over sockets made there.

The keeper listens on a Unix socket in a directory that only that container sees, and the process in
it connects. Law kept: fail closed: what arrives is used only if it is from another namespace than
ours, with nothing in it but the loopback interface.
"""

import errno
import json
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.loopback_sockets import HOST

SOCKET_NAME = "keeper.sock"

_PATIENCE_S = 30.0
_ANSWER_LIMIT = 64 * 1024
_SOCKETS_LIMIT = 253  # SCM_MAX_FD
_NETNS_COOKIE = 71  # SO_NETNS_COOKIE (Linux 5.14): tells the namespace of a socket


class HolderError(ClaudeProxyError):
    """The container that holds the network does not do what it is there for."""

    def __init__(self, what: str) -> None:
        super().__init__(
            what,
            where="the container that holds the network",
            fix="see its log with the engine's `logs`; `claude-proxy container start NAME` "
            "makes a new one",
        )


class NetworkHolder:
    """One such container: first listens for it, then asks it for sockets."""

    def __init__(self, directory: Path) -> None:
        """Listen in `directory`, which is created; all above it is the user's alone."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whoever the container's user is on this machine: the directories above keep others out.
        directory.chmod(0o711)
        path = directory / SOCKET_NAME
        with suppress(FileNotFoundError):
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # By a short name: the directory of the state may have a long one.
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            self._listener.bind(f"/proc/self/fd/{descriptor}/{SOCKET_NAME}")
        finally:
            os.close(descriptor)
        path.chmod(0o666)
        self._listener.listen(1)
        self._path = path
        self._channel: socket.socket | None = None

    def wait(self, ended: int | None = None, patience_s: float = _PATIENCE_S) -> None:
        """Wait for the process in the container and check what it holds; HolderError otherwise.

        `ended` is a descriptor that is readable once the container cannot come any more.
        """
        deadline = time.monotonic() + patience_s
        watched = [self._listener.fileno(), *([] if ended is None else [ended])]
        ready, _, _ = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))
        if self._listener.fileno() not in ready:
            raise HolderError("it ended at once" if ready else "it did not start in time")
        self._channel, _ = self._listener.accept()
        self._channel.settimeout(patience_s)
        self._listener.close()  # there is one such process
        self._path.unlink(missing_ok=True)
        self._check(self._ask({"facts": True})[0])

    def listeners(
        self, ports: Sequence[int], datagram_ports: Sequence[int] = ()
    ) -> list[socket.socket]:
        """Return sockets made there: those that listen on TCP ports, then those for UDP."""
        wanted = {"listen": [*ports], "receive": [*datagram_ports]}
        return self._sockets(wanted, len(ports) + len(datagram_ports))

    def connect(self, port: int) -> socket.socket:
        """Return a connection to a server there."""
        (connection,) = self._sockets({"connect": [port]}, 1)
        return connection

    def fileno(self) -> int:
        """Return a descriptor that is readable once the container has ended."""
        return -1 if self._channel is None else self._channel.fileno()

    def close(self) -> None:
        """Let go of the container, which then ends."""
        self._listener.close()
        self._path.unlink(missing_ok=True)
        if self._channel is not None:
            self._channel.close()

    def _sockets(self, wanted: dict[str, Any], count: int) -> list[socket.socket]:
        _, sockets = self._ask(wanted)
        if len(sockets) == count and all(map(_is_elsewhere, sockets)):
            return sockets
        for sock in sockets:
            sock.close()
        raise HolderError("its sockets are not of a network namespace of its own")

    def _ask(self, wanted: dict[str, Any]) -> tuple[dict[str, Any], list[socket.socket]]:
        if self._channel is None:
            raise HolderError("it has not started")
        try:
            self._channel.send(json.dumps(wanted).encode())
            message, descriptors, _, _ = socket.recv_fds(
                self._channel, _ANSWER_LIMIT, _SOCKETS_LIMIT
            )
            answer = json.loads(message)
        except (OSError, ValueError) as error:
            raise HolderError("it has ended, or does not answer") from error
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if "error" in answer:
            raise HolderError(f"it cannot make sockets: {answer['error']}")
        return answer, sockets

    @staticmethod
    def _check(facts: dict[str, Any]) -> None:
        own = Path("/proc/self/ns/net").stat().st_ino
        if facts.get("namespace") in (None, own):
            raise HolderError("it has no network namespace of its own")
        if facts.get("interfaces") != ["lo"] or facts.get("routes") != 0:
            raise HolderError("its network has more than a loopback interface")


def _is_elsewhere(sock: socket.socket) -> bool:
    """Tell whether a socket is on loopback in another network namespace than this process."""
    if sock.family != socket.AF_INET or sock.getsockname()[0] != HOST:
        return False
    try:
        with socket.socket() as own:
            return _cookie(sock) != _cookie(own)
    except OSError as error:  # an older kernel: the report about the namespace has to do
        return error.errno == errno.ENOPROTOOPT


def _cookie(sock: socket.socket) -> int:
    return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _NETNS_COOKIE, 8))[0])
