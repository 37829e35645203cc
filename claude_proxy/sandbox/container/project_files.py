"""Project files of `container init`: compared with what is there, and written below one directory.

Law kept: nothing is written outside of that directory. An agent may have worked in it, so no link
is followed on the way, and what is no regular file is not read, replaced or removed.
"""

import difflib
import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container.files.model import RenderedFile

_LONGEST = 4 * 1024 * 1024
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FileChange(StrEnum):
    """What writing a file comes to."""

    NEW = "new"
    SAME = "unchanged"
    DIFFERENT = "different"
    KEPT = "kept"  # its owner's


@dataclass(frozen=True, slots=True)
class ComparedFile:
    """A file to write, and what is in its place."""

    file: RenderedFile
    change: FileChange
    before: str = ""

    def diff(self) -> Iterator[str]:
        """Yield the lines of a unified diff from what is there to what would be written."""
        name = str(self.file.path)
        yield from difflib.unified_diff(
            self.before.splitlines(),
            self.file.text.splitlines(),
            f"{name} (as it is)",
            f"{name} (as it would be)",
            lineterm="",
        )


def compared(directory: Path, files: Sequence[RenderedFile]) -> list[ComparedFile]:
    """Compare files with what is below a directory; ConfigError if something cannot be replaced."""
    return [_compared(directory, file) for file in files]


def write(directory: Path, files: Sequence[RenderedFile]) -> None:
    """Write files below a directory, each whole or not at all; ClaudeProxyError if that fails."""
    for file in files:
        where = directory / file.path
        try:
            with _parent(directory, file.path, create=True) as parent:
                _replace(parent, file.path.name, file.text.encode())
        except OSError as error:
            raise ClaudeProxyError(
                f"the file cannot be written: {(error.strerror or '').lower()}",
                where=str(where),
                fix=_fix(error, "check the permissions of the directory and the free space"),
            ) from error


def _compared(directory: Path, file: RenderedFile) -> ComparedFile:
    try:
        before = _read(directory, file.path)
    except FileNotFoundError:
        return ComparedFile(file, FileChange.NEW)
    except (OSError, ValueError) as error:
        said = (getattr(error, "strerror", None) or str(error)).lower()
        raise ConfigError(
            f"what is there cannot be replaced: {said}",
            where=str(directory / file.path),
            fix=_fix(error, "move it away, or choose another directory"),
        ) from error
    if before == file.text:
        return ComparedFile(file, FileChange.SAME, before)
    return ComparedFile(file, FileChange.KEPT if file.own else FileChange.DIFFERENT, before)


def _fix(error: Exception, otherwise: str) -> str:
    if isinstance(error, OSError) and error.errno in {errno.ELOOP, errno.ENOTDIR}:
        return "replace the link by a directory or file of its own: no link is followed"
    return otherwise


def _read(directory: Path, path: PurePosixPath) -> str:
    with _parent(directory, path, create=False) as parent:
        # A pipe that nobody writes to would hold the command up for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(path.name, flags, dir_fd=parent), "rb") as file:  # noqa: PTH123 - open
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("it is not a regular file")
            raw = file.read(_LONGEST + 1)
    if len(raw) > _LONGEST:
        raise ValueError("it is too large")
    return raw.decode("utf-8", "surrogateescape")


@contextmanager
def _parent(directory: Path, path: PurePosixPath, *, create: bool) -> Iterator[int]:
    """Open the directory that a file is in, below one that the user named."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in path.parent.parts:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o777, dir_fd=descriptor)
            below = os.open(name, _OPEN_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(parent: int, name: str, data: bytes) -> None:
    unfinished = f".{name}.{secrets.token_hex(8)}.unfinished"
    try:
        mode = stat.S_IMODE(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        mode = None  # as the umask has it
    try:
        with open(os.open(unfinished, _NEW_FILE, 0o666, dir_fd=parent), "wb") as file:  # noqa: PTH123
            file.write(data)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
        os.rename(unfinished, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished, dir_fd=parent)
        raise
