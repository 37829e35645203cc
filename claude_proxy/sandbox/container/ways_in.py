"""Ways into a container besides its engine's hook: what is set up before the engine starts CMD.

The network is there, with its listening sockets, before the container that uses it is started; so
CMD never runs without them. Law kept: fail closed: without the holder or the mounted socket there
is no container, and when the keeper is gone, no network.
"""

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import enter, holder_image
from claude_proxy.sandbox.container.engine import Engine, EngineError
from claude_proxy.sandbox.container.network_holder import NetworkHolder
from claude_proxy.sandbox.container.plan.model import Way
from claude_proxy.sandbox.container.plan.way_plans import PROXY_SOCKET, HolderPlan

HOLDER_DIRECTORY = "holder"  # in the container's directory; only its holder sees it
WAY_OUT_DIRECTORY = "way-out"  # the same, for a container with the relay inside

_BACKLOG = 1024

type Listeners = Callable[[Sequence[int], Sequence[int]], list[socket.socket]]


@dataclass(frozen=True, slots=True)
class WayTask:
    """What is set up for one container."""

    way: Way
    holder: HolderPlan | None = None


class OpenedWay:
    """A network that is ready for a container."""

    pid = 0  # of a process in it that can be entered; 0: there is none
    notes_lookups = True  # whether it takes datagrams, for the listener that notes name lookups

    def listeners(
        self, ports: Sequence[int], datagram_ports: Sequence[int] = ()
    ) -> list[socket.socket]:
        """Return sockets that clients in the container reach: for TCP, then for UDP."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of it."""


def open_way(task: WayTask, engine: Engine, directory: Path) -> OpenedWay:
    """Set up the network of a container; ClaudeProxyError if that fails."""
    if task.holder is None:
        return _MountedSocket(directory / WAY_OUT_DIRECTORY)
    if task.way is Way.PAUSE:
        return _HandedOver(task.holder, engine, directory / HOLDER_DIRECTORY)
    return _EnteredHolder(task.holder, engine)


class _MountedSocket(OpenedWay):
    """A Unix socket in a directory that is mounted into the container, for the relay there."""

    notes_lookups = False

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whoever the container's user is on this machine: the directories above keep others out.
        directory.chmod(0o755)
        self._path = directory / PROXY_SOCKET
        self._remove()
        self._listener = socket.socket(socket.AF_UNIX)
        # By a short name: the directory of the state may have a long one.
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            self._listener.bind(f"/proc/self/fd/{descriptor}/{PROXY_SOCKET}")
        finally:
            os.close(descriptor)
        self._path.chmod(0o666)
        self._listener.listen(_BACKLOG)

    def listeners(
        self, ports: Sequence[int], datagram_ports: Sequence[int] = ()
    ) -> list[socket.socket]:
        del ports, datagram_ports  # the relay inside has them
        return [self._listener]

    def close(self) -> None:
        self._listener.close()
        self._remove()

    def _remove(self) -> None:
        """Remove a socket, or the directory that an engine makes for a mount without a source."""
        with contextlib.suppress(FileNotFoundError):
            if self._path.is_dir() and not self._path.is_symlink():
                self._path.rmdir()
            else:
                self._path.unlink()


class _HandedOver(OpenedWay):
    """A holder that makes the sockets, and hands them over."""

    def __init__(self, holder: HolderPlan, engine: Engine, directory: Path) -> None:
        self._engine, self._holder = engine, holder
        self._network = NetworkHolder(directory)
        try:
            _start(engine, holder, holder_image.empty_image())
            with ended_with(engine.waiting(holder.name)) as ended:
                self._network.wait(ended)
        except BaseException:
            self.close()
            raise

    def listeners(
        self, ports: Sequence[int], datagram_ports: Sequence[int] = ()
    ) -> list[socket.socket]:
        return self._network.listeners(ports, datagram_ports)

    def close(self) -> None:
        self._network.close()


class _EnteredHolder(OpenedWay):
    """A holder that only waits, and whose namespace is entered from outside."""

    def __init__(self, holder: HolderPlan, engine: Engine) -> None:
        self._engine, self._holder = engine, holder
        _start(engine, holder, holder_image.waiting_image(os.uname().machine))
        state = engine.inspect(holder.name)
        self.pid = 0 if state is None else state.pid
        if _words_of(self.pid) != holder.command:
            raise ClaudeProxyError(
                "the engine's processes are not those of this machine",
                where=f"{engine.kind} inspect {holder.name}: process {self.pid}",
                fix="use --way pause, which needs to see none of them",
            )

    def listeners(
        self, ports: Sequence[int], datagram_ports: Sequence[int] = ()
    ) -> list[socket.socket]:
        return enter.sockets(self.pid, ports, datagram_ports)

    def close(self) -> None:
        with contextlib.suppress(ClaudeProxyError):
            self._engine.kill(self._holder.name, "KILL")


def _start(engine: Engine, holder: HolderPlan, image: bytes) -> None:
    """Make and start the holder of a container, in place of one of the last time."""
    words = ("run", "--detach", *holder.words)
    try:
        engine.call(*words)
    except EngineError:
        # The image is not there yet, or a holder of the last time still is.
        ensure_image(engine, holder.image, image)
        with contextlib.suppress(EngineError):
            engine.remove(holder.name, force=True)
        engine.call(*words)


@contextlib.contextmanager
def ended_with(process: "subprocess.Popen[bytes]") -> Iterator[int]:
    """Yield a descriptor that is readable once a process has ended, which is ended at last."""
    ended = os.pidfd_open(process.pid)
    try:
        yield ended
    finally:
        os.close(ended)
        process.kill()
        process.wait()


def ensure_image(engine: Engine, name: str, content: bytes) -> None:
    """Have the engine know an image, which is made here and never fetched."""
    try:
        engine.call("image", "inspect", "--format", "{{.Id}}", "--", name)
    except EngineError:
        engine.call("import", "-", name, given=content)


def _words_of(pid: int) -> tuple[str, ...]:
    try:
        found = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in found.split(b"\0")[:-1])
