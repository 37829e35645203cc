"""Clone store: the clones that agents work in, each with its record, in the state directory.

Law kept: nothing of an agent's work is lost. A clone is made under another name and gets its own
when it is complete; it is removed by descriptors and without following links, only by its owner's
command, and never while a run uses it. The record is outside of what the sandbox sees.
"""

import contextlib
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, field
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.system.runs import is_name

DIRECTORY = "clones"

_RECORD = "record.json"
_RECORD_LIMIT = 16 * 1024 * 1024
_LOCK = "lock"
_READING = "reading"
_UNFINISHED = ".new-"
_REMOVED = ".removed-"
_MOST_ENTRIES = 500_000  # that are counted for the size


@dataclass(frozen=True, slots=True)
class CloneRecord:
    """What is known of a clone since it was made; the sandbox can neither see nor change it."""

    project: str  # the directory that it is a clone of, and its path inside
    branch: str  # that was checked out
    base: str | None  # the commit that was checked out; None: the repository had none
    created: float
    refs: Mapping[str, str] = field(default_factory=dict)  # of the project, when it was made
    packs: tuple[str, ...] = ()  # those that were made with it, so the project has their objects
    taken: Mapping[str, str] = field(default_factory=dict)  # branches and commits, by `take`


@dataclass(frozen=True, slots=True)
class Clone:
    """One clone: a work tree and a Git directory that an agent writes, and ours beside them."""

    name: str
    path: Path
    record: CloneRecord

    @property
    def tree(self) -> Path:
        """The work tree; written by the sandbox."""
        return self.path / "tree"

    @property
    def git(self) -> Path:
        """The Git directory; written by the sandbox."""
        return self.path / "git"

    @property
    def review(self) -> Path:
        """A bare repository of what was read from it; not visible in the sandbox."""
        return self.path / "review"


def directory_in(statedir: Path) -> Path:
    """Return the directory of all clones."""
    return statedir / DIRECTORY


def find(statedir: Path, name: str) -> Clone | None:
    """Return a clone by its name; None if there is none."""
    if not is_name(name):
        return None
    path = directory_in(statedir) / name
    record = _read_record(path)
    return None if record is None else Clone(name, path, record)


def named(statedir: Path, name: str) -> Clone:
    """Return a clone by its name; ClaudeProxyError if there is none."""
    found = find(statedir, name)
    if found is None:
        raise ClaudeProxyError(
            f"there is no clone called {name!r}", where="NAME", fix="see `claude-proxy clones`"
        )
    return found


def all_in(statedir: Path) -> list[Clone]:
    """Return all clones, the oldest first."""
    try:
        names = os.listdir(directory_in(statedir))  # noqa: PTH208 - names, not paths
    except OSError:
        return []
    found = [clone for name in names if (clone := find(statedir, name)) is not None]
    return sorted(found, key=lambda clone: (clone.record.created, clone.name))


@contextlib.contextmanager
def new_directory(statedir: Path, name: str) -> Iterator[Path]:
    """Lend a directory to make a clone in; it gets its name on the way out, if all went well."""
    above = directory_in(statedir)
    with _explained(above):
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(above)
        path = above / f"{_UNFINISHED}{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
    with locked(path):
        try:
            yield path
            with _explained(above):
                path.rename(above / name)  # fails if there is one: a directory that is not empty
        except BaseException:
            remove_tree(path)
            raise


def write_record(path: Path, record: CloneRecord) -> None:
    """Write the record of the clone in a directory, all of it or nothing."""
    new = path / f"{_RECORD}.{secrets.token_hex(4)}"
    with _explained(path):
        try:
            with new.open("x", encoding="utf-8") as file:
                json.dump(asdict(record), file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path / _RECORD)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a clone, as a run does; ClaudeProxyError if another process holds it."""
    with _explained(path):
        descriptor = os.open(
            path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClaudeProxyError(
                "a run is working in this clone",
                where=path.name,
                fix="wait for its end, or choose another name with --name",
            ) from None
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def read_alone(clone: Clone) -> Iterator[None]:
    """Wait until no other process reads the clone: the copies are shared."""
    with _explained(clone.path):
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(clone.path / _READING, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_in_use(clone: Clone) -> bool:
    """Tell whether a run works in a clone."""
    try:
        with locked(clone.path):
            return False
    except ClaudeProxyError:
        return True


def remove(clone: Clone) -> None:
    """Remove a clone; ClaudeProxyError if a run uses it, or if something of it is left."""
    with locked(clone.path):
        discard(clone)


def discard(clone: Clone) -> None:
    """Remove a clone that this process holds."""
    away = clone.path.with_name(f"{_REMOVED}{secrets.token_hex(8)}")
    with _explained(clone.path):
        clone.path.rename(away)
        remove_tree(away)
        if os.path.lexists(away):
            raise OSError(39, "something of it cannot be removed")


def size_of(path: Path) -> int:
    """Return about how many bytes a clone takes on the disk."""
    total = entries = 0
    with contextlib.suppress(OSError, RecursionError):
        # By descriptors: a directory that is swapped for a link meanwhile is not followed.
        for _, _, names, descriptor in os.fwalk(path):
            for name in names:
                with contextlib.suppress(OSError):
                    total += 512 * os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_blocks
            if (entries := entries + len(names)) > _MOST_ENTRIES:
                break
    return total


def remove_tree(path: Path) -> None:
    """Remove a directory that an agent may have written, however deep and whatever its modes.

    Each directory below is first moved up beside the others, so that its depth costs nothing.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        top = os.open(path, flags)
        try:
            found = True
            while found:
                found = False
                for name in os.listdir(top):  # noqa: PTH208 - by descriptor
                    found = _remove_one(top, name, flags) or found
        finally:
            os.close(top)
        path.rmdir()


def _remove_one(top: int, name: str, flags: int) -> bool:
    """Remove a file, or an empty directory after moving up what is in it."""
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=top)
            return True
        os.chmod(name, 0o700, dir_fd=top)
        below = os.open(name, flags, dir_fd=top)
        try:
            for inner in os.listdir(below):  # noqa: PTH208 - by descriptor
                _move_up(below, inner, top)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=top)
    except OSError:
        return False
    return True


def _move_up(below: int, name: str, top: int) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=below, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=below)
        return
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=below)
        return
    os.chmod(name, 0o700, dir_fd=below)  # a directory is moved only by one who may write in it
    os.rename(name, f".{secrets.token_hex(8)}", src_dir_fd=below, dst_dir_fd=top)


def _sweep(above: Path) -> None:
    """Remove what was never finished, or not completely removed."""
    for name in os.listdir(above):  # noqa: PTH208 - names, not paths
        if name.startswith((_UNFINISHED, _REMOVED)):
            with contextlib.suppress(ClaudeProxyError), locked(above / name):
                remove_tree(above / name)


def _read_record(path: Path) -> CloneRecord | None:
    try:
        with (path / _RECORD).open("rb") as file:
            given = json.loads(file.read(_RECORD_LIMIT))
        return CloneRecord(
            project=str(given["project"]),
            branch=str(given["branch"]),
            base=None if given["base"] is None else str(given["base"]),
            created=float(given["created"]),
            refs={str(name): str(at) for name, at in given["refs"].items()},
            packs=tuple(str(name) for name in given["packs"]),
            taken={str(name): str(at) for name, at in given["taken"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@contextlib.contextmanager
def _explained(where: Path) -> Iterator[None]:
    try:
        yield
    except ClaudeProxyError:
        raise
    except OSError as error:
        raise ConfigError(
            f"the clone cannot be kept: {(error.strerror or type(error).__name__).lower()}",
            where=str(where),
            fix="make room there, or name another directory with --statedir",
        ) from error
