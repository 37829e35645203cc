"""Channels to a keeper: the launcher's, while a start lasts, and the socket of later orders.

Each message is one JSON object. Only the owner can connect: the socket of orders is in a directory
that nobody else may enter.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import store

MESSAGE_LIMIT = 128 * 1024
PATIENCE_S = 5.0

type Reporter = Callable[[str], None]


class KeeperEndedError(ClaudeProxyError):
    """The keeper of a container ended before it had said what it was to say."""


class KeeperChannel:
    """The launcher's end of the channel to a keeper."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self._channel = channel

    def fileno(self) -> int:
        """Return the descriptor that is readable when the keeper says something."""
        return self._channel.fileno()

    def wait_for(self, event: str, say: Reporter) -> Mapping[str, Any]:
        """Wait for an event and return it; raise the error that comes instead."""
        while True:
            said = self._next()
            if said is None:
                raise KeeperEndedError(
                    "the process that keeps the container's proxy has ended",
                    where=f"process {self.pid}",
                    fix="give the container its proxy again: claude-proxy container start NAME",
                )
            if said["event"] == "say":
                say(str(said["line"]))
            elif said["event"] == "failed":
                from claude_proxy.sandbox import proxy_process_ipc  # noqa: PLC0415 - of failures

                error = proxy_process_ipc.decode_error(json.dumps(said["error"]).encode())
                raise error or ClaudeProxyError(str(said["error"]))
            elif said["event"] == event:
                return dict(said)

    def fail(self, exit_code: int, say: Reporter) -> None:
        """Tell the keeper that CMD was not started, and wait until it has recorded that."""
        self.send("failed", code=exit_code)
        while (said := self._next()) is not None and said["event"] != "ended":
            if said["event"] == "say":
                say(str(said["line"]))

    def leave(self, say: Reporter) -> None:
        """Leave the keeper alone, once it has said what it has to say by now."""
        self.send("leave")
        while (said := self._next()) is not None:
            if said["event"] == "say":
                say(str(said["line"]))

    def _next(self) -> Mapping[str, Any] | None:
        """Return what the keeper says next; None: it has ended."""
        try:
            data = self._channel.recv(MESSAGE_LIMIT)
        except OSError:
            data = b""
        return dict(json.loads(data)) if data else None

    def send(self, order: str, **more: object) -> None:
        """Tell the keeper something; nothing if it has ended."""
        with contextlib.suppress(OSError):
            self._channel.send(json.dumps({"order": order, **more}).encode())

    def close(self) -> None:
        """Leave the keeper alone."""
        self._channel.close()


class LauncherLink:
    """The keeper's end of that channel; the launcher may be gone."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel: socket.socket | None = channel

    @property
    def descriptors(self) -> list[int]:
        """The descriptor that is readable when the launcher says something, if it is there."""
        return [] if self._channel is None else [self._channel.fileno()]

    def tell(self, event: str, **more: object) -> None:
        """Tell the launcher something, if it is still there."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.send(json.dumps({"event": event, **more}).encode())

    def say(self, line: str) -> None:
        """Have the launcher print a line."""
        self.tell("say", line=line)

    def fail(self, error: ClaudeProxyError) -> None:
        """Tell the launcher why there is no container."""
        from claude_proxy.sandbox import proxy_process_ipc  # noqa: PLC0415 - of failures

        self.tell("failed", error=json.loads(proxy_process_ipc.encode_error(error)))

    def hear(self) -> Mapping[str, Any] | None:
        """Return what the launcher says; None: it is gone."""
        said = b""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                said = self._channel.recv(MESSAGE_LIMIT)
        if not said:
            self.drop()
            return None
        return dict(json.loads(said))

    def drop(self) -> None:
        """Go on without the launcher."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


# --- orders of later commands


def order_socket(directory: Path) -> socket.socket:
    """Return the socket on which a keeper takes orders, in the directory of its container."""
    path = directory / store.KEEPER_SOCKET
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # By a short name: the directory of the state may have a long one.
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        sock.bind(f"/proc/self/fd/{descriptor}/{path.name}")
        path.chmod(0o600)
        sock.listen(8)
    finally:
        os.close(descriptor)
    return sock


def ask(directory: Path, order: str, **more: object) -> Mapping[str, Any] | None:
    """Give the keeper of a container an order and return its answer; None: there is no keeper."""
    try:
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(f"/proc/self/fd/{descriptor}/{store.KEEPER_SOCKET}")
            sock.sendall(json.dumps({"order": order, **more}).encode() + b"\n")
            return dict(json.loads(line_from(sock)))
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)


def line_from(sock: socket.socket) -> bytes:
    """Return one line, or what there was of it."""
    data = b""
    while b"\n" not in data and len(data) < MESSAGE_LIMIT and (piece := sock.recv(MESSAGE_LIMIT)):
        data += piece
    return data
