"""Makes the file of a Unix socket, whole or not at all, and takes it away again.

Law 10: no other user can put a socket of theirs in its place. It is bound under another name, given
its mode, made to listen, and only then gets its own name; what it may take the place of was looked
at under a lock. It imports nothing heavy, as the relay makes sockets too.
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

# What `sun_path` of <sys/un.h> holds beside the NUL at its end.
PATH_BYTES = 107 if sys.platform == "linux" else 103

_OWNER_ALONE, _EVERYBODY = 0o600, 0o666
_DIRECTORY, _DIRECTORY_TO_PASS = 0o700, 0o711
_LOCK_S = 5.0
_LOCK_PAUSE_S = 0.01
_ATTEMPTS = 20
_PASSABLE = stat.S_IXGRP | stat.S_IXOTH


class SocketFile:
    """The name that a Unix socket of ours has in the file system."""

    # No dataclass: that module takes as long to import as a relay takes to start.
    def __init__(self, path: Path, identity: tuple[int, int]) -> None:
        self.path = path
        self.identity = identity  # device and inode

    def remove(self) -> None:
        """Take the name away, unless it is another socket's by now."""
        with contextlib.suppress(OSError, ConfigError), _alone_in(self.path.parent):
            if _identity_of(self.path) == self.identity:
                self.path.unlink()


def listen_at(path: Path, *, others: bool = False) -> tuple[socket.socket, SocketFile]:
    """Return a socket that listens at `path`; ConfigError if it cannot be had.

    It is the owner's alone, unless `others` are to connect: then whoever serves it must ask the
    kernel who they are.
    """
    _refuse_too_long(path)
    try:
        file_permissions.refuse_replaceable(path, "who listens at the socket")
        _make_directory(path.parent, _DIRECTORY_TO_PASS if others else _DIRECTORY)
        if others:
            _refuse_impassable(path)
        with _alone_in(path.parent):
            return _placed(path, _EVERYBODY if others else _OWNER_ALONE)
    except OSError as error:
        raise ConfigError(
            f"cannot listen there: {_words_of(error)}",
            where=f"unix:{path}",
            fix="choose a path in a directory that is yours, on a disk with room",
        ) from error


def _refuse_too_long(path: Path) -> None:
    longest = max(os.fsencode(path), os.fsencode(_partial(path)), key=len)
    if len(longest) > PATH_BYTES:
        raise ConfigError(
            f"the path of the socket is too long: {len(longest)} bytes, "
            f"and the system takes {PATH_BYTES}",
            where=f"unix:{path}",
            fix="choose a shorter one, in $XDG_RUNTIME_DIR or /run for example",
        )


def _make_directory(directory: Path, mode: int) -> None:
    """Make what is missing of the way to `directory`, for the owner alone."""
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for made in reversed(missing):
        with contextlib.suppress(FileExistsError):
            made.mkdir(mode=_DIRECTORY)
            made.chmod(mode)  # whatever the umask has left of it


def _refuse_impassable(path: Path) -> None:
    for directory in path.resolve().parents:
        mode = stat.S_IMODE(directory.stat().st_mode)
        if not mode & _PASSABLE:
            raise ConfigError(
                "other users are to connect, but cannot get through the directory of the socket",
                where=f"{directory} (mode {mode:04o})",
                fix=f"chmod o+x {directory}, or choose a path that others can reach",
            )


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Hold a lock on `directory` that every start takes; a file for it would be left behind."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_S
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise ConfigError(
                    "another program keeps the directory of the socket locked",
                    where=str(directory),
                    fix="end that program (lsof tells which it is), or choose another directory",
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
            # Not a rename, which would take the place of whatever somebody has put there now.
            os.link(partial, path, follow_symlinks=False)
        except FileExistsError:
            continue
        return
    raise OSError(errno.EEXIST, "something else comes there again and again")


def _bound_beside(path: Path, mode: int) -> tuple[socket.socket, Path]:
    """Return a socket of that mode, bound to a name beside `path` that nobody knows."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # There must be no moment with another mode. Nobody else runs in this process yet.
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
    raise OSError(errno.EADDRINUSE, "no name was free beside it")


def _partial(path: Path) -> Path:
    return path.with_name(f".{os.urandom(3).hex()}")


def _is_stale(path: Path) -> bool:
    """Tell whether a socket is left at `path` that nobody listens on.

    Makes room where an empty directory is, as container engines make it at the path of a mount
    that is not there. ConfigError if something is there that may not be replaced.
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
            kind = f"directory that cannot be removed ({_words_of(error)})"
        else:
            return False
    raise ConfigError(
        f"there is a {kind} where the socket is to be",
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
            pass  # its queue of clients is full: all the more it is alive
        except OSError as error:
            raise ConfigError(
                f"there is a socket that cannot be looked at: {_words_of(error)}",
                where=str(path),
                fix="remove it if it is no longer used, or choose another path",
            ) from error
    raise ConfigError(
        "another process listens on this socket already",
        where=str(path),
        fix="stop that one (lsof tells which it is), or choose another path",
    )


def _identity_of(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _words_of(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
