"""Unix socket files: created atomically, and removed again.

Keeps "the sandbox cannot move its own wall": no other user can replace the socket with theirs. It
is bound under a temporary name, given its mode and made to listen, and only then gets its real
name; whatever it replaces has been checked under a lock. It imports nothing heavy, as the relay
creates sockets too.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from claude_proxy.errors import ConfigError
from claude_proxy.system import file_permissions

BACKLOG = 4096

# What `sun_path` of <sys/un.h> holds without the final NUL.
PATH_BYTES = 107 if sys.platform == "linux" else 103

_OWNER_ALONE, _EVERYBODY = 0o600, 0o666
_DIRECTORY, _DIRECTORY_TO_PASS = 0o700, 0o711
_LOCK_S = 5.0
_LOCK_PAUSE_S = 0.01
_ATTEMPTS = 20
_PASSABLE = stat.S_IXGRP | stat.S_IXOTH


class SocketFile:
    """The file of a Unix socket that this process created."""

    # Not a dataclass: importing that module takes as long as starting a relay.
    def __init__(self, path: Path, identity: tuple[int, int]) -> None:
        self.path = path
        self.identity = identity  # device and inode

    def remove(self) -> None:
        """Remove the file, unless another socket has taken its place."""
        with contextlib.suppress(OSError, ConfigError), _directory_locked(self.path.parent):
            if _identity_of(self.path) == self.identity:
                self.path.unlink()


def listen_at(path: Path, *, others: bool = False) -> tuple[socket.socket, SocketFile]:
    """Return a socket that listens at `path`; ConfigError if that is not possible.

    Only the owner can connect, unless `others` is set: then the server must check the peer's
    credentials.
    """
    _refuse_too_long(path)
    try:
        file_permissions.refuse_replaceable(path, "who listens at the socket")
        _make_directory(path.parent, _DIRECTORY_TO_PASS if others else _DIRECTORY)
        if others:
            _refuse_impassable(path)
        with _directory_locked(path.parent):
            return _placed(path, _EVERYBODY if others else _OWNER_ALONE)
    except OSError as error:
        raise ConfigError(
            f"cannot listen there: {_text_of(error)}",
            where=f"unix:{path}",
            fix="choose a path in a directory that you own, on a disk with free space",
        ) from error


def _refuse_too_long(path: Path) -> None:
    longest = max(os.fsencode(path), os.fsencode(_partial(path)), key=len)
    if len(longest) > PATH_BYTES:
        raise ConfigError(
            f"the path of the socket is too long: {len(longest)} bytes, "
            f"and the system allows {PATH_BYTES}",
            where=f"unix:{path}",
            fix="choose a shorter one, in $XDG_RUNTIME_DIR or /run for example",
        )


def _make_directory(directory: Path, mode: int) -> None:
    """Create `directory` and its missing parents, for the owner alone."""
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for made in reversed(missing):
        with contextlib.suppress(FileExistsError):
            made.mkdir(mode=_DIRECTORY)
            made.chmod(mode)  # regardless of the umask


def _refuse_impassable(path: Path) -> None:
    for directory in path.resolve().parents:
        mode = stat.S_IMODE(directory.stat().st_mode)
        if not mode & _PASSABLE:
            raise ConfigError(
                "other users should be able to connect, but cannot enter the socket's directory",
                where=f"{directory} (mode {mode:04o})",
                fix=f"chmod o+x {directory}, or choose a path that others can reach",
            )


@contextlib.contextmanager
def _directory_locked(directory: Path) -> Iterator[None]:
    """Hold the lock on `directory` that every start takes; a lock file would be left behind."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_S
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise ConfigError(
                    "another program holds the lock on the directory of the socket",
                    where=str(directory),
                    fix="stop that program (lsof shows which), or choose another directory",
                )
            time.sleep(_LOCK_PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _placed(path: Path, mode: int) -> tuple[socket.socket, SocketFile]:
    sock, partial = _bound_beside(path, mode)
    try:
        try:
            sock.listen(BACKLOG)
            sock.setblocking(False)
            file = SocketFile(path, _identity_of(partial))
            _give_name(partial, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()
    except BaseException:
        sock.close()
        raise
    return sock, file


def _give_name(partial: Path, path: Path) -> None:
    for _ in range(_ATTEMPTS):
        if _is_stale(path):
            partial.rename(path)
            return
        try:
            # Not a rename, which would replace whatever has appeared there meanwhile.
            os.link(partial, path, follow_symlinks=False)
        except FileExistsError:
            continue
        return
    raise OSError(errno.EEXIST, "something else keeps appearing there")


def _bound_beside(path: Path, mode: int) -> tuple[socket.socket, Path]:
    """Return a socket of that mode, bound to a random name beside `path`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode must be right from the first moment. No other thread runs yet.
    before = os.umask(0o777 & ~mode)
    try:
        return sock, _bound(sock, path)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)


def _bound(sock: socket.socket, path: Path) -> Path:
    for _ in range(_ATTEMPTS):
        partial = _partial(path)
        try:
            sock.bind(os.fsencode(partial))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return partial
    raise OSError(errno.EADDRINUSE, "no free temporary name")


def _partial(path: Path) -> Path:
    return path.with_name(f".{os.urandom(3).hex()}")


def _is_stale(path: Path) -> bool:
    """Return whether `path` is a socket on which nobody listens any more.

    Remove an empty directory there: container engines create one for a missing mount. ConfigError
    if `path` must not be replaced.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISSOCK(mode):
        return _is_abandoned(path)
    kind = "symbolic link" if stat.S_ISLNK(mode) else "file"
    if stat.S_ISDIR(mode):
        try:
            path.rmdir()
        except OSError as error:
            kind = f"directory that cannot be removed ({_text_of(error)})"
        else:
            return False
    raise ConfigError(
        f"a {kind} is where the socket should be",
        where=str(path),
        fix="move it away, or choose another path",
    )


def _is_abandoned(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fsencode(path))
        except ConnectionRefusedError:
            return True
        except FileNotFoundError:
            return False
        except BlockingIOError:
            pass  # its backlog is full, so it is alive
        except OSError as error:
            raise ConfigError(
                f"the existing socket cannot be checked: {_text_of(error)}",
                where=str(path),
                fix="remove it if it is no longer used, or choose another path",
            ) from error
    raise ConfigError(
        "another process already listens on this socket",
        where=str(path),
        fix="stop that process (lsof shows which), or choose another path",
    )


def _identity_of(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _text_of(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
