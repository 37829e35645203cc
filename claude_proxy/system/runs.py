"""Runs of this user: the directory above their directories, and the token that proves a run's name.

Law: nobody names another's run. A relay that joins a running proxy shows the token of its run. The
token is in the directory of the run, which only its user can read and no sandbox sees, so a program
that merely reaches the proxy cannot name a run.
"""

import contextlib
import fcntl
import hmac
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from claude_proxy.deferred.patterns import lazy_pattern

TOKEN_FILE = "token"  # noqa: S105 - the name of the file
RECORD = "record"  # lines of JSON, locked by the launcher as long as it lives
CONTROL = "control"  # beside the directories of the runs: the sockets by which proxies are asked

# Where the units of a system's services put theirs; whose user runs one, finds it there.
_OF_SERVICES = (
    Path("/run/claude-proxy/claude-proxy"),
    Path("/run/claude-proxy-gateway/claude-proxy"),
)

_TOKEN_BYTES = 64
_HEAD_BYTES = 16 * 1024  # of a record
_DIRECTORIES = 4096  # that are looked at
_NAME = lazy_pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_UNSAFE = lazy_pattern(r"[^A-Za-z0-9._+-]")
_PROGRAM_BOUND = 64


def is_name(text: str) -> bool:
    """Return whether `text` can be the name of a run: a file name that is readable in a list."""
    return _NAME.fullmatch(text) is not None


def shown_name(text: str) -> str:
    """Return what a stranger gives as the name of a run or a program, in harmless characters."""
    return _UNSAFE.sub("?", text[:_PROGRAM_BOUND])


def base_of(environ: Mapping[str, str]) -> Path:
    """Return the directory that contains the run directories of this user."""
    # A system's service has no session's directory, but one of its own (systemd.exec(5)); its /tmp
    # is hidden from the commands of its owner.
    given = environ.get("XDG_RUNTIME_DIR") or environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if given.startswith("/"):
        # After `sudo` it may be another user's; after an old login it may be gone.
        with contextlib.suppress(OSError):
            found = os.stat(given)  # noqa: PTH116 - one call, and its owner is what matters
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                return Path(given) / "claude-proxy"
    return _without_runtime_directory()


def bases_of(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return every directory that `base_of` may have named for a process of this user.

    A service is started without the variable that a terminal has. Who names a directory of their
    own with it means that one alone.
    """
    own = base_of(environ)
    usual = (
        Path(f"/run/user/{os.geteuid()}/claude-proxy"),
        _without_runtime_directory(),
        *_OF_SERVICES,
    )
    return tuple(dict.fromkeys((own, *usual))) if own in usual else (own,)


def _without_runtime_directory() -> Path:
    return Path(f"/tmp/claude-proxy-{os.geteuid()}")  # noqa: S108 - checked before it is used


class LivingRun(NamedTuple):
    """A run whose launcher lives."""

    name: str
    folder: str  # the name of its directory, which no other run has
    project: str = ""  # the directory that it works in
    terminal: str = ""  # the device of its launcher's terminal


def living_run(base: Path, name: str) -> LivingRun | None:
    """Return the living run called `name`, whose directory is in `base`; None if there is none."""
    if not is_name(name):
        return None
    return next((run for run in living_runs(base) if run.name == name), None)


def living_runs(base: Path) -> Iterator[LivingRun]:
    """Yield the living runs whose directories are in `base`."""
    with contextlib.suppress(OSError):
        above = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if _is_private(above):
                with os.scandir(above) as found:
                    folders = [one.name for one, _ in zip(found, range(_DIRECTORIES), strict=False)]
                yield from filter(None, (_living_in(above, folder) for folder in folders))
        finally:
            os.close(above)


def _living_in(above: int, folder: str) -> LivingRun | None:
    name = folder.rpartition(".")[0]
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        record = os.open(f"{folder}/{RECORD}", flags, dir_fd=above)
    except OSError:
        return None
    try:
        if not is_name(name) or not _is_locked(record):
            return None
        head = json.loads(os.pread(record, _HEAD_BYTES, 0).partition(b"\n")[0])
        project, terminal = str(head.get("project", "")), str(head.get("terminal", ""))
    except (OSError, ValueError, AttributeError):
        return None
    finally:
        os.close(record)
    return LivingRun(name, folder, project, terminal)


def _is_locked(record: int) -> bool:
    try:
        # Shared, so that two who look at the same time do not take each other for the launcher.
        fcntl.flock(record, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def proves_run(base: Path, name: str, token: str) -> bool:
    """Return whether `token` is that of a run called `name`, whose directory is in `base`."""
    if not is_name(name) or not token.isascii():
        return False
    try:
        above = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not _is_private(above):
            return False
        with os.scandir(above) as found:
            folders = [entry.name for entry, _ in zip(found, range(_DIRECTORIES), strict=False)]
        return any(
            hmac.compare_digest(token, _token_in(above, folder))
            for folder in folders
            if folder.rpartition(".")[0] == name
        )
    except OSError:
        return False
    finally:
        os.close(above)


def _is_private(directory: int) -> bool:
    found = os.fstat(directory)
    return found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _token_in(above: int, folder: str) -> str:
    """Return the token in the directory of a run; one that nobody has where there is none."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(f"{folder}/{TOKEN_FILE}", flags, dir_fd=above)
    except OSError:
        return os.urandom(32).hex()
    try:
        # Shorter than that, it is being written.
        held = os.read(descriptor, _TOKEN_BYTES + 1)
        return held.decode("ascii") if len(held) == _TOKEN_BYTES else os.urandom(32).hex()
    finally:
        os.close(descriptor)
