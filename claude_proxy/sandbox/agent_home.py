"""Agent homes on disk: made from the user's settings at the first run, kept for each project.

    STATEDIR/homes/PROJECT-HASH/home.json   which project, and what was copied; never mounted
                                seed.lock   held while something is copied
                                use.lock    held by every run that uses the home
                                state/      mounted, entry by entry: what runs write

Law kept: the sandbox cannot move its own wall. What a run has written is never obeyed here, and no
link in it is followed. Something is copied into a directory that no run sees, and then renamed, so
a home is never half made.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import home_seeds, untrusted_trees
from claude_proxy.sandbox.plan.agent_home import HOMES, RECORD, directory_of
from claude_proxy.sandbox.plan.model import KEPT, AgentHome, Seed, flat_name
from claude_proxy.sandbox.untrusted_trees import TreeSize

type Reporter = Callable[[str], None]

_SEED_LOCK = "seed.lock"
_USE_LOCK = "use.lock"
_UNFINISHED = ".new-"
_REMOVED = ".removed-"
_LOCK_PATIENCE_S = 60.0
_LOCK_PAUSE_S = 0.02
_RECORD_BYTES = 256 * 1024
_OPEN_DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class HomeInfo:
    """One home, as --list-homes shows it."""

    project: str
    exists: bool  # the project's directory
    used_s: float  # when the last run started, in seconds since the epoch
    size: TreeSize
    in_use: bool


@contextlib.contextmanager
def prepared(home: AgentHome, say: Reporter) -> Iterator[None]:
    """Make the home of a run complete, and keep it from being removed meanwhile.

    Raises ClaudeProxyError if it cannot be made, for example because the disk is full; what was
    begun is removed then.
    """
    with contextlib.ExitStack() as stack:
        with _explained(home.directory), _removed_if_not_made(home):
            directory = stack.enter_context(_in_use(home))
            with _closed_on_error(stack):
                _complete(home, directory, say)
        yield


@contextlib.contextmanager
def _closed_on_error(stack: contextlib.ExitStack) -> Iterator[None]:
    try:
        yield
    except BaseException:
        stack.close()
        raise


@contextlib.contextmanager
def _removed_if_not_made(home: AgentHome) -> Iterator[None]:
    """Remove a home that was never complete; one without a record never was."""
    try:
        yield
    except BaseException:
        if not os.path.lexists(home.directory / RECORD):
            with contextlib.suppress(ClaudeProxyError):
                reset(home.directory.parent.parent, home.project)
        raise


def listed(statedir: Path) -> list[HomeInfo]:
    """Return every home, the one that was used last first."""
    found = []
    for name in _names_in(statedir / HOMES):
        with contextlib.suppress(OSError, ValueError):
            found.append(_look(statedir / HOMES / name))
    return sorted(found, key=lambda one: -one.used_s)


def reset(statedir: Path, project: Path) -> bool:
    """Remove the home of a project, and return whether there was one.

    Raises ConfigError if a run is using it.
    """
    path = directory_of(statedir, project)
    with _explained(path), contextlib.ExitStack() as stack:
        try:
            above = stack.enter_context(_opened(path.parent))
            directory = stack.enter_context(_opened(path))
        except FileNotFoundError:
            return False
        stack.enter_context(_locked(directory, _SEED_LOCK))
        if not _try_lock(stack.enter_context(_lock_file(directory, _USE_LOCK)), fcntl.LOCK_EX):
            raise ConfigError(
                "a run is using the home of this project",
                where=str(project),
                fix="end that run first; `claude-proxy runs` lists them",
            )
        for name in os.listdir(above):  # noqa: PTH208 - by descriptor
            if name.startswith(_REMOVED):  # by one that was killed
                untrusted_trees.remove_tree(name, above)
        # Under another name first: what a run starts meanwhile gets a new home.
        removed = f"{_REMOVED}{secrets.token_hex(8)}"
        os.rename(path.name, removed, src_dir_fd=above, dst_dir_fd=above)
        untrusted_trees.remove_tree(removed, above)
    return True


# --- one home


@contextlib.contextmanager
def _in_use(home: AgentHome) -> Iterator[int]:
    """Lend the home's directory, made if it is missing, locked against its removal."""
    _make_above(home.directory.parent)
    while True:
        with contextlib.suppress(FileExistsError):
            home.directory.mkdir(mode=0o700)
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(_opened(home.directory))
            try:
                use = stack.enter_context(_lock_file(directory, _USE_LOCK))
            except FileNotFoundError:
                continue  # it is being removed
            _wait_for(partial(_try_lock, use, fcntl.LOCK_SH), home.directory)
            if not _is_still(home.directory, directory):
                continue  # it was removed before the lock was taken
            yield directory
            return


def _complete(home: AgentHome, directory: int, say: Reporter) -> None:
    """Copy what is missing in a home."""
    with _locked(directory, _SEED_LOCK):
        record = _read_record(directory)
        for name in os.listdir(directory):
            if name.startswith(_UNFINISHED):  # of a run that was killed
                untrusted_trees.remove_tree(name, directory)
        with contextlib.suppress(FileExistsError):
            os.mkdir(KEPT, 0o700, dir_fd=directory)
        for entry in (home.directory / KEPT).iterdir():
            _make_usable(entry)
        missing = [name for name in home.state if not _is_kept(home, name)]
        said = _seed(home, missing, directory) if missing else []
        logins = _Logins(home, record.get("logins", {}))
        said += logins.update()
        record |= {"project": str(home.project), "used": time.time(), "logins": logins.known}
        _write_record(directory, record)
        for name in home.mount_points:
            _make_mount_point(home, name)
    for line in said:
        say(line)


def _make_usable(entry: Path) -> None:
    """Give the owner back the permissions of a directory that a run may have taken away."""
    if stat.S_ISDIR(entry.lstat().st_mode):
        entry.chmod(0o700)  # no run can replace it by a link, as it is mounted


def _is_kept(home: AgentHome, name: str) -> bool:
    """Tell whether an entry is there; its kind cannot have been changed from inside."""
    try:
        found = os.lstat(home.source_of(name))
    except FileNotFoundError:
        return False
    wanted = stat.S_ISDIR if name.endswith("/") else stat.S_ISREG
    if not wanted(found.st_mode):
        raise ConfigError(
            "what is kept for this project is not what the profile says: a directory for a name "
            "with a final /, else a file",
            where=str(home.source_of(name)),
            fix="correct home_state in the profile, or use `claude-proxy run --reset-home`",
        )
    return True


def _seed(home: AgentHome, missing: list[str], directory: int) -> list[str]:
    """Copy the user's settings for entries that are not kept yet; all of them or none."""
    name = f"{_UNFINISHED}{secrets.token_hex(8)}"
    os.mkdir(name, 0o700, dir_fd=directory)
    said: list[str] = []
    try:
        place = home.directory / name
        for entry in missing:
            said += _seed_entry(home, entry, place / flat_name(entry))
        for entry in missing:
            os.rename(place / flat_name(entry), home.source_of(entry))  # noqa: PTH104 - both paths
    finally:
        untrusted_trees.remove_tree(name, directory)
    sources = ", ".join(f"~/{entry.rstrip('/')}" for entry in missing)
    made = (
        f"this project has {sources} of its own from now on, copied from your settings; what "
        "COMMAND changes there does not reach yours"
    )
    return [made, *said]


def _seed_entry(home: AgentHome, entry: str, target: Path) -> list[str]:
    said: list[str] = []
    if entry.endswith("/"):
        target.mkdir(mode=0o700)
    for seed in home.seeds:
        below = PurePosixPath(seed.name)
        if below.is_relative_to(entry) and (entry.endswith("/") or seed.name == entry):
            said += home_seeds.copy_seed(seed, home, target / below.relative_to(entry))
    if not target.exists():
        # Claude Code reports an empty settings file as broken.
        home_seeds.write_new(target, b"{}\n" if entry.endswith(".json") else b"")
    return said


class _Logins:
    """The user's logins in a home: copied once, and again after the user has renewed them."""

    def __init__(self, home: AgentHome, known: object) -> None:
        self._home = home
        self.known: dict[str, str] = {}  # the digest of what was copied, by name
        if isinstance(known, dict):
            self.known = {str(name): str(digest) for name, digest in known.items()}

    def update(self) -> list[str]:
        """Copy what is missing or old, remove what stays outside, and return what to say."""
        said = [line for name in self._home.withheld for line in self._remove(name)]
        return said + [line for login in self._home.logins for line in self._copy(login)]

    def _remove(self, name: str) -> Iterator[str]:
        self.known.pop(name, None)
        with _parent_of(self._home, name) as (parent, last):
            if parent is None:
                return
            try:
                os.unlink(last, dir_fd=parent)
            except FileNotFoundError:
                return
            except IsADirectoryError:
                return  # of the run's own making
        yield f"the copy of your login ~/{name} was removed: the proxy injects a credential now"

    def _copy(self, login: Seed) -> Iterator[str]:
        read = home_seeds.read_plain(login.source)
        if read is None:
            return
        content, found = read
        digest = hashlib.sha256(content).hexdigest()
        before = self.known.get(login.name)
        if before == digest:
            return  # COMMAND may have renewed or removed its own copy since
        with _parent_of(self._home, login.name) as (parent, last):
            if parent is None or (before is not None and _is_newer(last, parent, found)):
                return
            _replace(parent, last, content, found.st_mtime_ns)
        self.known[login.name] = digest
        how = "was copied in" if before is None else "was copied in again, as you have renewed it"
        yield (
            f"your login ~/{login.name} {how}, so COMMAND can read it; to keep it outside, have "
            "the proxy inject a credential (claude-proxy credentials --help)"
        )


def _is_newer(name: str, parent: int, found: os.stat_result) -> bool:
    """Tell whether a run has renewed its copy after the user has renewed the original."""
    try:
        return os.lstat(name, dir_fd=parent).st_mtime_ns >= found.st_mtime_ns
    except OSError:
        return False


def _replace(parent: int, name: str, content: bytes, changed_ns: int) -> None:
    """Write a file in a directory that runs may write to; a link there is replaced."""
    new = f".{secrets.token_hex(12)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(new, flags, 0o600, dir_fd=parent), "wb") as file:  # noqa: PTH123 - the mode
            file.write(content)
            file.flush()
            os.utime(file.fileno(), ns=(changed_ns, changed_ns))
        os.rename(new, name, src_dir_fd=parent, dst_dir_fd=parent)
    except IsADirectoryError:
        _forget(new, parent)  # of the run's own making, and only a loss for it
    except BaseException:
        _forget(new, parent)
        raise


def _forget(name: str, parent: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=parent)


@contextlib.contextmanager
def _parent_of(home: AgentHome, name: str) -> Iterator[tuple[int | None, str]]:
    """Lend the directory of a file in a home; None if a link or something else is on the way."""
    above, last = _place_of(home, name)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(_opened(home.directory / KEPT))
        for part in above:
            try:
                below = os.open(part, _OPEN_DIRECTORY, dir_fd=directory)
            except OSError:
                yield None, last
                return
            stack.callback(os.close, below)
            directory = below
        yield directory, last


def _make_mount_point(home: AgentHome, name: str) -> None:
    """Make an empty file or directory; anything else that a run has put in the way is removed.

    Otherwise bwrap would mount where a link leads, which the comparison of mounts refuses.
    """
    above, last = _place_of(home, name)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(_opened(home.directory / KEPT))
        for part in above:
            _make_way(part, directory, is_directory=True)
            directory = os.open(part, _OPEN_DIRECTORY, dir_fd=directory)
            stack.callback(os.close, directory)
        _make_way(last, directory, is_directory=name.endswith("/"))


def _make_way(name: str, directory: int, *, is_directory: bool) -> None:
    try:
        mode = os.lstat(name, dir_fd=directory).st_mode
    except FileNotFoundError:
        mode = 0
    if mode and (stat.S_ISDIR(mode) if is_directory else stat.S_ISREG(mode)):
        return
    if stat.S_ISDIR(mode):
        untrusted_trees.remove_tree(name, directory)
    elif mode:
        os.unlink(name, dir_fd=directory)
    if is_directory:
        os.mkdir(name, 0o700, dir_fd=directory)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o600, dir_fd=directory))


def _place_of(home: AgentHome, name: str) -> tuple[list[str], str]:
    """Return the directories below what is kept that lead to a file, and its name."""
    pure = PurePosixPath(name)
    entry = next(one for one in home.state if pure.is_relative_to(one))
    *above, last = (flat_name(entry), *pure.relative_to(entry).parts)
    return above, last


# --- the record, which only the launcher writes


def _read_record(directory: int) -> dict[str, Any]:
    try:
        descriptor = os.open(RECORD, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return {}
    with open(descriptor, "rb") as file:  # noqa: PTH123 - by descriptor
        try:
            found = json.loads(file.read(_RECORD_BYTES))
        except ValueError:
            return {}  # cut short by a full disk
    return found if isinstance(found, dict) else {}


def _write_record(directory: int, record: dict[str, Any]) -> None:
    _replace(directory, RECORD, json.dumps(record).encode() + b"\n", time.time_ns())


def _look(path: Path) -> HomeInfo:
    with _opened(path) as directory:
        record = _read_record(directory)
        project = str(record.get("project", ""))
        if not project:
            raise ValueError(path)
        state = os.open(KEPT, _OPEN_DIRECTORY, dir_fd=directory)
        try:
            size = untrusted_trees.size_of(state)
        finally:
            os.close(state)
        with _lock_file(directory, _USE_LOCK) as use:
            in_use = not _try_lock(use, fcntl.LOCK_EX)
        used = record.get("used", 0.0)
        used_s = float(used) if isinstance(used, int | float) else 0.0
        return HomeInfo(project, Path(project).is_dir(), used_s, size, in_use)


# --- directories and locks


def _names_in(directory: Path) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if not name.startswith(".")]  # noqa: PTH208 - names
    except OSError:
        return []


def _make_above(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConfigError(
            "the directory of the homes is not owned by this user, or others can write to it",
            where=str(path),
            fix=f"chown it to yourself, and: chmod 700 {path}",
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _OPEN_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _lock_file(directory: int, name: str) -> Iterator[int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(directory: int, name: str) -> Iterator[None]:
    with _lock_file(directory, name) as descriptor:
        _wait_for(partial(_try_lock, descriptor, fcntl.LOCK_EX), Path(name))
        yield


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for(locked: Callable[[], bool], where: Path) -> None:
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while not locked():
        if time.monotonic() > deadline:
            raise ConfigError(
                "another run has not finished copying into the home of this project",
                where=str(where),
                fix="resume it if it is suspended (fg), or end it",
            )
        time.sleep(_LOCK_PAUSE_S)


def _is_still(path: Path, directory: int) -> bool:
    try:
        found, opened = os.lstat(path), os.fstat(directory)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


@contextlib.contextmanager
def _explained(where: Path) -> Iterator[None]:
    try:
        yield
    except ClaudeProxyError:
        raise
    except OSError as error:
        raise ClaudeProxyError(
            "the home of this project cannot be used: "
            f"{(error.strerror or type(error).__name__).lower()}",
            where=str(where),
            fix="make room there; or remove it with `claude-proxy run --reset-home`",
        ) from error
