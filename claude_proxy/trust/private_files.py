"""Private files: atomic writes and checked reads in a directory that only its owner can change.

Keeps "the sandbox cannot move its own wall": a directory or file that another user could have
written is refused, never repaired silently. All operations are relative to one open directory
descriptor, so what was checked is what is used. A file is written completely or not at all.
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Self

from claude_proxy.errors import ConfigError

SECRET = 0o600
PUBLIC = 0o644

_LOCK_FILE = ".ca.lock"
# Not as `file_replacement` calls them, which is used in the same directory without this lock: what
# it writes at the moment must not be removed.
_UNFINISHED = ".unwritten"
# Bytes; ten times the largest bundle. A larger file is not one of these, so it is not read whole.
_LARGEST_FILE = 4 * 1024 * 1024

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_ANY = stat.S_IRWXG | stat.S_IRWXO


class Folder:
    """An open directory that only this user can write to."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def make(cls, path: Path) -> Self:
        """Open the directory at `path`, created with its parents if missing (mode 0700).

        ConfigError if it cannot be used, or others can write to it.
        """
        with _explained(path, f"cannot use the directory {str(path)!r}"):
            _make_directories(path)
            descriptor = _open_directory(path)
        return cls._checked(path, descriptor)

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """Open the directory at `path`; None if there is none, ConfigError as in `make`."""
        with _explained(path, f"cannot use the directory {str(path)!r}"):
            try:
                descriptor = _open_directory(path)
            except FileNotFoundError:
                return None
        return cls._checked(path, descriptor)

    @classmethod
    def _checked(cls, path: Path, descriptor: int) -> Self:
        try:
            _check(os.fstat(descriptor), path, _OTHERS_WRITE)
        except ConfigError:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def read(self, name: str, mode: int) -> bytes | None:
        """Return the bytes of a file, None if it is missing.

        ConfigError if others have more access to it than `mode` (SECRET or PUBLIC) allows.
        """
        path = self.path / name
        with _explained(path, f"cannot read {str(path)!r}"):
            try:
                # O_NONBLOCK: opening a FIFO must not block.
                descriptor = self._opened(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                return None
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise ConfigError(
                        "it is not a regular file",
                        where=str(path),
                        fix=f"move {quote(str(path))} away",
                    )
                _check(found, path, _OTHERS_ANY if mode == SECRET else _OTHERS_WRITE)
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    return file.read(_LARGEST_FILE)
            finally:
                os.close(descriptor)

    def write(self, name: str, data: bytes, mode: int) -> None:
        """Create or replace the file `name` atomically; the caller must hold `locked`."""
        path = self.path / name
        unfinished = f".{name}.{secrets.token_hex(8)}{_UNFINISHED}"
        with _explained(path, f"cannot write {str(path)!r}"):
            try:
                self._write_new(unfinished, data, mode)
                os.rename(
                    unfinished, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor
                )
            except BaseException:
                self._remove(unfinished)
                raise
            os.fsync(self._descriptor)

    def keep_aside(self, name: str, stamp: str) -> Path | None:
        """Keep the file under a second name with `stamp`; return its path, None without a file.

        It is a hard link, not a copy: owner and mode stay, and the file need not be readable. A
        later `write` of `name` does not change it.
        """
        path = self.path / name
        suffixes = chain([stamp], (f"{stamp}-{number}" for number in count(2)))
        with _explained(path, f"cannot keep {str(path)!r} aside"):
            while True:
                kept = f"{path.stem}-{next(suffixes)}{path.suffix}"
                try:
                    self._link(name, kept)
                except FileNotFoundError:
                    return None
                except FileExistsError:
                    continue
                return self.path / kept

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory against other claude-proxy processes that write to it."""
        path = self.path / _LOCK_FILE
        # A separate lock file: NFS cannot lock a directory, and the key file is replaced.
        with _explained(path, f"cannot lock the directory {str(self.path)!r}"):
            descriptor = self._opened(_LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, SECRET)
        try:
            with _explained(path, f"cannot lock the directory {str(self.path)!r}"):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                self._remove_unfinished()
            yield
        finally:
            os.close(descriptor)

    def modes(self, names: tuple[str, ...]) -> dict[str, int]:
        """Return the permission bits of those of `names` that exist."""
        found = {}
        for name in names:
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
                found[name] = stat.S_IMODE(status.st_mode)
        return found

    def _opened(self, name: str, flags: int, mode: int = SECRET) -> int:
        return os.open(name, flags | os.O_CLOEXEC, mode, dir_fd=self._descriptor)

    def _link(self, name: str, other: str) -> None:
        here = self._descriptor
        os.link(name, other, src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)

    def _write_new(self, name: str, data: bytes, mode: int) -> None:
        descriptor = self._opened(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            # Regardless of the umask, and after the bytes: others can read only complete files.
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def _remove_unfinished(self) -> None:
        # Left by a killed process; this one holds the lock, so no other is writing.
        with os.scandir(self._descriptor) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(_UNFINISHED)]
        for name in names:
            self._remove(name)


def _open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _make_directories(path: Path) -> None:
    # 0700 for the parents too, as the XDG Base Directory Specification requires.
    if path.is_dir():
        return
    _make_directories(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)


def _check(found: os.stat_result, path: Path, refused: int) -> None:
    if found.st_uid != os.geteuid():
        raise ConfigError(
            f"{str(path)!r} belongs to another user (uid {found.st_uid}, not {os.geteuid()})",
            where=str(path),
            fix=f"run as that user, choose another --confdir, or: chown {os.geteuid()} "
            + quote(str(path)),
        )
    if loose := found.st_mode & refused:
        verb = "written" if loose & _OTHERS_WRITE else "read"
        take = "go-rwx" if refused == _OTHERS_ANY else "go-w"
        raise ConfigError(
            f"{str(path)!r} can be {verb} by others (mode {stat.S_IMODE(found.st_mode):04o})",
            where=str(path),
            fix=f"chmod {take} {quote(str(path))}; if others may have done so, run "
            "`claude-proxy ca rotate`",
        )


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    """Turn an OSError into a ConfigError with a fix."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ELOOP:
            reason, fix = "it is a symbolic link", f"replace it with the file itself: {path}"
        else:
            reason = (error.strerror or str(error)).lower()
            fix = f"check owner, mode and free space of {path.parent}, or use another --confdir"
        raise ConfigError(f"{what}: {reason}", where=str(path), fix=fix) from error
