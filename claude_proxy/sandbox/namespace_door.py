"""Door to the network namespace of a sandbox: makes sockets there, and shows who listens.

Law kept: the sandbox cannot move its own wall. A socket belongs to the namespace in which it was
made, so that it is made in a child that has entered, and connected by the caller outside, who
copies the bytes. The child has no other task and no other descriptor; it ends with the caller.
Nothing in the sandbox sees it, as it stays in the process namespace outside.
"""

import contextlib
import errno
import os
import signal
import socket
from types import TracebackType
from typing import Self

from claude_proxy.sandbox import netns
from claude_proxy.system import listening_ports

_PATIENCE_S = 10.0
_MESSAGE_LIMIT = 256
_FAMILIES = {b"4": socket.AF_INET, b"6": socket.AF_INET6}
_OPENED = b"opened"
_MADE = b"made"


class NamespaceDoor:
    """A child in the network namespace of process `pid`; only for a caller without threads."""

    def __init__(self, pid: int) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._tables: tuple[int, ...] = ()
        self.child = os.fork()
        if self.child == 0:
            _serve(pid, theirs)
        theirs.close()
        self._channel.settimeout(_PATIENCE_S)
        try:
            self._tables = self._opened()
        except BaseException:
            self.close()
            raise

    def _opened(self) -> tuple[int, ...]:
        wanted = len(listening_ports.TABLES)
        try:
            message, descriptors, _, _ = socket.recv_fds(self._channel, _MESSAGE_LIMIT, wanted)
        except OSError as error:
            raise netns.failed(str(error.strerror or error).encode()) from error
        if message != _OPENED:
            raise netns.failed(message)
        return tuple(descriptors)

    def make(self, family: socket.AddressFamily) -> socket.socket:
        """Return a TCP socket of the namespace, not connected; OSError if it cannot be made."""
        word = next(word for word, one in _FAMILIES.items() if one is family)
        self._channel.send(word)
        message, descriptors, _, _ = socket.recv_fds(self._channel, _MESSAGE_LIMIT, 1)
        if descriptors:
            return socket.socket(fileno=descriptors[0])
        # One that was made and did not arrive: this process has too many files open.
        code = errno.EMFILE if message == _MADE else int(message or b"%d" % errno.EPIPE)
        raise OSError(code, "no socket can be made in the sandbox")

    def listening(self) -> frozenset[int]:
        """Return the ports inside that 127.0.0.1 or [::1] leads to."""
        return listening_ports.of_tables(self._tables)

    def close(self) -> None:
        """End the child."""
        self._channel.close()
        for table in self._tables:
            os.close(table)
        self._tables = ()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# In the child process


def _serve(pid: int, channel: socket.socket) -> None:
    """Enter, and make sockets until the caller is gone; never returns."""
    try:
        _keep_only(channel.fileno())
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the end of the channel is its end
        netns.enter(netns.network_of(pid))
        tables = [os.open(path, os.O_RDONLY) for path in _existing_tables()]
        socket.send_fds(channel, [_OPENED], tables)
        for table in tables:
            os.close(table)
        while word := channel.recv(_MESSAGE_LIMIT):
            _answer(channel, _FAMILIES[word])
    except BaseException as error:  # noqa: BLE001 - the child ends here
        text = getattr(error, "strerror", None) or type(error).__name__
        with contextlib.suppress(OSError):
            channel.send(str(text).encode())
    finally:
        os._exit(0)


def _existing_tables() -> list[str]:
    return [path for path in listening_ports.TABLES if os.path.exists(path)]  # noqa: PTH110 - no pathlib here


def _answer(channel: socket.socket, family: socket.AddressFamily) -> None:
    try:
        with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as made:
            socket.send_fds(channel, [_MADE], [made.fileno()])
    except OSError as error:
        channel.send(b"%d" % (error.errno or 0))


def _keep_only(descriptor: int) -> None:
    """Close what the caller had open: listeners must not stay open because of this process."""
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
