"""Export and import of a container's history of Claude Code, as one archive without credentials.

Laws kept: secrets stay outside; the sandbox cannot move its own wall. The agent has written the
home, and somebody else may have written the archive. So only plain files of the names in
`history_selection` count; nothing follows a link; and each file is written through descriptors
below the home, whose owner it gets.
"""

import contextlib
import io
import os
import secrets
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container.plan import history_selection as selection
from claude_proxy.sandbox.container.plan.history_selection import Suspect

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLAIN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written into an archive."""

    files: int
    left_out: int  # files of the history whose content had nothing to take
    redacted: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What was written into a home."""

    files: int
    kept: tuple[str, ...]  # those that were there


def export(home: Path, archive: Path, *, redact: bool, replace: bool) -> Exported:
    """Write the history in the directory `home` into an archive, for the owner alone.

    ClaudeProxyError if something in it looks like a credential, unless it is to be redacted.
    """
    found: list[Suspect] = []
    files = left_out = redacted = 0
    with _written(archive, replace=replace) as out, tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path, data in _history_in(home):
            content = selection.content_of(path, data)
            if content is None:
                left_out += 1
                continue
            suspects = [*selection.suspects(path, content)]
            if suspects and redact:
                content, redacted = selection.redacted(content), redacted + 1
            elif suspects:
                found += suspects
                continue
            files += 1
            _refuse_too_much(files, len(content))
            _add(tar, path, content)
        if found:
            raise _looks_secret(found)
        if not files:
            raise ClaudeProxyError(
                "there is no history of Claude Code in the container's home",
                where=str(home),
                fix="run `claude` in the container first",
            )
    return Exported(files, left_out, redacted)


def restore(archive: Path, home: Path, *, replace: bool) -> Imported:
    """Write the history of an archive into the directory `home`.

    The archive is read as a whole first: if anything in it is not history, nothing is written. A
    file that is there is kept, unless it is to be replaced.
    """
    for _ in _entries(archive):
        pass
    files, kept = 0, []
    with _folder(home) as root:
        owner = os.fstat(root)
        for path, data in _entries(archive):
            content = selection.content_of(path, data)
            if content is None:
                continue
            if _place(root, path, content, owner, replace=replace):
                files += 1
            else:
                kept.append(path)
    return Imported(files, tuple(kept))


def _looks_secret(found: list[Suspect]) -> ClaudeProxyError:
    shown = ", ".join(map(str, found[:_SHOWN]))
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    lines = "a line" if len(found) == 1 else f"{len(found)} lines"
    look = "looks like a credential" if len(found) == 1 else "look like credentials"
    return ClaudeProxyError(
        f"{lines} of the history {look}; nothing was written",
        where=f"{shown}{more}",
        fix="look at them, and remove them; or replace each with --redact",
    )


def _refuse_too_much(files: int, size: int) -> None:
    if files > selection.MOST_FILES or size > selection.MOST_OF_A_FILE:
        raise ClaudeProxyError(
            "the history is larger than an archive may be",
            where=f"{files} files, one of {size >> 20} MiB",
            fix="remove old sessions in .claude/projects and .claude/file-history",
        )


# --- out of a home


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, _FOLDER)
    except OSError as error:
        raise ClaudeProxyError(
            f"the container's home cannot be opened: {(error.strerror or '').lower()}",
            where=str(path),
            fix="run this as the user of the engine (with Docker: as root)",
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _history_in(home: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the history below a home: path and content, ordered by name."""
    with _folder(home) as root:
        yield from _read(root, selection.STATE, selection.STATE)
        yield from _walk(root, selection.CLAUDE, selection.CLAUDE)


def _walk(above: int, name: str, path: str) -> Iterator[tuple[str, bytes]]:
    if not selection.may_hold_history(path):
        return
    try:
        descriptor = os.open(name, _FOLDER, dir_fd=above)
    except OSError:
        return  # none, or a link
    try:
        with os.scandir(descriptor) as listing:
            entries = sorted((one.name, one.is_dir(follow_symlinks=False)) for one in listing)
        for entry, is_folder in entries:
            below = f"{path}/{entry}"
            yield from (_walk if is_folder else _read)(descriptor, entry, below)
    finally:
        os.close(descriptor)


def _read(above: int, name: str, path: str) -> Iterator[tuple[str, bytes]]:
    if not selection.is_history(path):
        return
    try:
        descriptor = os.open(name, _PLAIN_FILE, dir_fd=above)
    except OSError:
        return  # none, or a link
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor with special flags
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            data = file.read(selection.MOST_OF_A_FILE + 1)
            _refuse_too_much(0, len(data))
            yield path, data


@contextlib.contextmanager
def _written(archive: Path, *, replace: bool) -> Iterator[IO[bytes]]:
    """Yield a new file that gets the archive's name once it is complete."""
    if os.path.lexists(archive) and not replace:
        raise ConfigError(
            "the file exists", where=str(archive), fix="name another one, or add --force"
        )
    new = archive.with_name(f".{archive.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - the mode is the point
                yield file
            new.replace(archive)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the archive cannot be written: {(error.strerror or '').lower()}",
            where=str(archive),
            fix="name a file in a directory that you may write",
        ) from error


def _add(tar: tarfile.TarFile, path: str, content: bytes) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), 0o600
    tar.addfile(entry, io.BytesIO(content))


# --- into a home


def _entries(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what is in an archive; ClaudeProxyError at the first entry that is not history."""
    total = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for number, entry in enumerate(tar, 1):
                total += entry.size
                if why := _refused(entry) or _too_much(number, total):
                    raise _not_history(archive, entry.name, why)
                file = tar.extractfile(entry)
                if file is not None:
                    yield entry.name, file.read()
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ConfigError(
            f"the archive cannot be read: {reason.lower()}",
            where=str(archive),
            fix="name a file that `claude-proxy container export` has written",
        ) from error


def _refused(entry: tarfile.TarInfo) -> str | None:
    """Return why an entry is not taken; None: it is."""
    if entry.type not in {tarfile.REGTYPE, tarfile.AREGTYPE} or entry.sparse is not None:
        return "it is not a plain file"
    if not selection.is_history(entry.name):
        return "it is not a file of Claude Code's history"
    if entry.size > selection.MOST_OF_A_FILE:  # before it is read into memory
        return "it is larger than a file of the history may be"
    return None


def _too_much(number: int, total: int) -> str | None:
    if number > selection.MOST_FILES or total > selection.MOST_BYTES:
        return "the archive is larger than one may be"
    return None


def _not_history(archive: Path, name: str, why: str) -> ClaudeProxyError:
    return ClaudeProxyError(
        f"{name!r} in the archive is refused: {why}; nothing was written",
        where=str(archive),
        fix="take an archive that `claude-proxy container export` has written",
    )


def _place(root: int, path: str, content: bytes, owner: os.stat_result, *, replace: bool) -> bool:
    """Write one file below the home; tell whether it was written, or one that was there kept."""
    *folders, name = path.split("/")
    with contextlib.ExitStack() as stack:
        above = root
        for folder in folders:
            above = _folder_in(above, folder, path, owner)
            stack.callback(os.close, above)
        if not replace and _exists(above, name):
            return False
        try:
            _replace(above, name, content, owner)
        except OSError as error:
            raise ClaudeProxyError(
                f"a file of the history cannot be written: {(error.strerror or '').lower()}",
                where=f"{path} in the container's home",
                fix="make room; if something else has this name there, remove it",
            ) from error
    return True


def _replace(above: int, name: str, content: bytes, owner: os.stat_result) -> None:
    """Write a file under another name first, so that it is there as a whole or not at all."""
    new = f".{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(new, flags, 0o600, dir_fd=above)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor with special flags
            file.write(content)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.rename(new, name, src_dir_fd=above, dst_dir_fd=above)
    except OSError:
        os.unlink(new, dir_fd=above)
        raise


def _exists(above: int, name: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=above, follow_symlinks=False)
        return True
    return False


def _folder_in(above: int, name: str, path: str, owner: os.stat_result) -> int:
    """Open a directory of the home, or make it; ClaudeProxyError if it is a link."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=above)
            os.chown(name, owner.st_uid, owner.st_gid, dir_fd=above, follow_symlinks=False)
        return os.open(name, _FOLDER, dir_fd=above)
    except OSError as error:
        raise ClaudeProxyError(
            f"{name!r} in the container's home is not a directory of its own: "
            f"{(error.strerror or '').lower()}",
            where=path,
            fix="find out who put it there; remove it, or import into another container",
        ) from error
