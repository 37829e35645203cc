"""Control sockets: where each proxy of this user listens for its owner, and which proxies live.

`BASE/control/NAME/` holds a socket for each worker and the facts about the proxy, whose file its
process keeps locked: the kernel releases the lock however the process ends. Law kept: the sandbox
cannot move its own wall. Only its owner may enter the directories. They are checked through the
descriptors that are then used, so nobody can replace them, and no sandbox sees them, as they are
below the directory of the runs. Imports nothing heavy, as every proxy claims a place.
"""

import contextlib
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.system.runs import CONTROL

LOCK = ".lock"
FACTS = "facts"
FACTS_BYTES = 64 * 1024
_SUFFIX = ".sock"
_MODE, _SOCKET_MODE = 0o700, 0o600
_BACKLOG = 64
_MOST = 4096  # directories that are looked at
_NAMES = 1000  # that are tried
_SWEPT = 8  # places that a claim looks at
_PATIENCE_S = 2.0
_PAUSE_S = 0.01
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """The directory of one proxy's control sockets, locked while any of its processes lives."""

    # Not a data class: what it holds are descriptors.
    def __init__(self, name: str, path: Path, above: int, directory: int, facts: int) -> None:
        self.name = name
        self.path = path
        self._above = above
        self._directory = directory
        self._facts = facts
        self.owner = os.getpid()  # which removes it

    def write(self, facts: bytes) -> None:
        """Write the facts about the proxy, which commands read without asking it."""
        os.pwrite(self._facts, facts, 0)
        os.ftruncate(self._facts, len(facts))

    def listen(self, worker: int) -> socket.socket:
        """Return the socket on which a worker is asked; OSError if it cannot be made."""
        name = f"{worker}{_SUFFIX}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._directory)  # of the process that this one replaces
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(OSError):  # elsewhere than on Linux; the directory is private
                os.fchmod(sock.fileno(), _SOCKET_MODE)
            sock.bind(address_in(self._directory, self.path, name))
            os.chmod(name, _SOCKET_MODE, dir_fd=self._directory)
            sock.listen(_BACKLOG)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock

    def remove(self) -> None:
        """Remove the directory, if this process has made it, and let go of it."""
        if os.getpid() == self.owner:
            with contextlib.suppress(OSError):
                _empty(self._directory)
                os.rmdir(self.name, dir_fd=self._above)
        for descriptor in (self._facts, self._directory, self._above):
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class FoundPlace:
    """The control directory of a proxy that is alive."""

    name: str
    path: Path
    facts: bytes  # as they were written
    workers: tuple[int, ...]  # those that have a socket


def claim(base: Path, name: str) -> Place:
    """Return a new place called `name`, or `name-2` if a living proxy has it, and so on.

    A few places of dead proxies are removed; `living` removes all, but a start among a hundred must
    not look at each of them. OSError or ConfigError if it cannot be made.
    """
    with contextlib.ExitStack() as closing:
        above = _opened(base / CONTROL, make=True)
        closing.callback(os.close, above)
        with _locked(above):
            names = _names_in(above)
            first = os.getpid() % len(names) if names else 0
            for each in names[first : first + _SWEPT]:
                if _look(above, each, None) is None:
                    _remove(above, each)
            taken = _free_name(above, name)
            os.mkdir(taken, _MODE, dir_fd=above)
            directory = os.open(taken, _DIRECTORY, dir_fd=above)
            closing.callback(os.close, directory)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            facts = os.open(FACTS, flags, _SOCKET_MODE, dir_fd=directory)
            closing.callback(os.close, facts)
            fcntl.flock(facts, fcntl.LOCK_EX)
        closing.pop_all()
    return Place(taken, base / CONTROL / taken, above, directory, facts)


def living(base: Path) -> list[FoundPlace]:
    """Return the places of proxies that are alive, by name; the others are removed.

    ConfigError if the directory is another user's, or others can enter it; OSError if it is none.
    """
    try:
        above = _opened(base / CONTROL, make=False)
    except FileNotFoundError:
        return []
    try:
        with _locked(above):
            return sorted(_sweep(above, base / CONTROL), key=lambda one: one.name)
    finally:
        os.close(above)


def address_in(directory: int, path: Path, name: str) -> str:
    """Return the address of a socket in an open directory, however long its path is."""
    short = f"/proc/self/fd/{directory}"
    return f"{short}/{name}" if os.path.isdir(short) else str(path / name)  # noqa: PTH112 - one call


def socket_name(worker: int) -> str:
    """Return the name of a worker's socket."""
    return f"{worker}{_SUFFIX}"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Yield a descriptor of a private directory of this user; OSError or ConfigError if it is none.

    The directory above it has been checked when it was found.
    """
    descriptor = os.open(path, _DIRECTORY)
    try:
        _refuse_unsafe(descriptor, path)
        yield descriptor
    finally:
        os.close(descriptor)


def _opened(path: Path, *, make: bool) -> int:
    """Return a descriptor of `path`, whose parent must be private as well."""
    if make:
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(mode=_MODE)
    parent = os.open(path.parent, _DIRECTORY)
    try:
        _refuse_unsafe(parent, path.parent)
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path.name, _MODE, dir_fd=parent)
        descriptor = os.open(path.name, _DIRECTORY, dir_fd=parent)
    finally:
        os.close(parent)
    try:
        _refuse_unsafe(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_unsafe(directory: int, path: Path) -> None:
    found = os.fstat(directory)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(
            "the directory of the control sockets is not owned by this user, or other users can "
            "access it",
            where=str(path),
            fix=f"remove it, or: chmod 700 {path}; or set XDG_RUNTIME_DIR to your own directory",
        )


@contextlib.contextmanager
def _locked(above: int) -> Iterator[None]:
    """Serialize claims and looks: a new place looks dead until its owner has locked its facts."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(LOCK, flags, _SOCKET_MODE, dir_fd=above)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise ConfigError(
                    "another claude-proxy has not finished looking for control sockets",
                    fix="resume it if it is suspended (fg), or end it",
                )
            time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sweep(above: int, path: Path) -> list[FoundPlace]:
    """Remove the places of dead proxies, and return those of the living."""
    found = []
    for name in _names_in(above):
        one = _look(above, name, path)
        if one is not None:
            found.append(one)
        else:
            _remove(above, name)
    return found


def _names_in(above: int) -> list[str]:
    with os.scandir(above) as entries:
        names = [entry.name for entry, _ in zip(entries, range(_MOST), strict=False)]
    return [name for name in names if name != LOCK]


def _look(above: int, name: str, path: Path | None) -> FoundPlace | None:
    try:
        directory = os.open(name, _DIRECTORY, dir_fd=above)
    except OSError:
        return None
    try:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        facts = os.open(FACTS, flags, dir_fd=directory)
        try:
            if _try_lock(facts):
                return None
            written = os.pread(facts, FACTS_BYTES, 0)
        finally:
            os.close(facts)
        return FoundPlace(name, (path or Path()) / name, written, _workers_in(directory))
    except OSError:
        return None  # killed before it wrote them, or not ours
    finally:
        os.close(directory)


def _workers_in(directory: int) -> tuple[int, ...]:
    with os.scandir(directory) as entries:
        stems = [one.name.removesuffix(_SUFFIX) for one in entries if one.name.endswith(_SUFFIX)]
    return tuple(sorted(int(stem) for stem in stems if stem.isdecimal() and stem.isascii()))


def _free_name(above: int, name: str) -> str:
    for number in range(1, _NAMES):
        tried = name if number == 1 else f"{name}-{number}"
        if _look(above, tried, None) is None:
            _remove(above, tried)
            return tried
    raise ConfigError(
        "too many proxies of this user have this name", where=name, fix="stop those not needed"
    )


def _remove(above: int, name: str) -> None:
    """Remove a place, whatever it is, without following a link."""
    with contextlib.suppress(OSError):
        directory = os.open(name, _DIRECTORY, dir_fd=above)
        try:
            _empty(directory)
        finally:
            os.close(directory)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=above)
        return
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=above)


def _empty(directory: int) -> None:
    with os.scandir(directory) as entries:
        names = [entry.name for entry, _ in zip(entries, range(_MOST), strict=False)]
    for name in names:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)
