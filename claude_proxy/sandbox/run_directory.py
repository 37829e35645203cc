"""Run directory: the sockets of one run, the files it shows to the sandbox, and a record of it.

Law kept: the sandbox cannot move its own wall. Only its owner may enter the directory, and its name
cannot be guessed; the directory above is checked through the descriptor that is then used, so that
it cannot be replaced. Whether a run is alive depends on a lock, never on a process id: the launcher
keeps its record locked, and the kernel releases the lock however the launcher ends. The next start
removes the directories of dead runs, and kills those of their processes that are provably the
recorded ones: same id, same start time, same boot, same owner.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.system.runs import CONTROL, RECORD, TOKEN_FILE, base_of, is_name

NAME_LIMIT = 32
SOCKET = "proxy.sock"
GATEWAY_SOCKET = "gate.sock"  # no longer than the other, whose length is checked

_LOCK = ".lock"
_LOCK_PATIENCE_S = 10.0
_LOCK_PAUSE_S = 0.01
_RECORD_LIMIT = 64 * 1024
_SOCKET_PATH_LIMIT = 107  # sun_path holds 108 bytes, the last of them a NUL
_PROGRAM_LIMIT = 64

# Letters and digits that do not look alike.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_SUFFIX_SIZE = 4


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is alive, from its record."""

    name: str
    pid: int
    program: str


class RunDirectory:
    """The directory of this process's run, locked while the process is alive."""

    def __init__(self, name: str, path: Path, base: int, record: int) -> None:
        self.name = name
        self.path = path
        self._base = base
        self._record = record
        self._open = True
        self.token = ""  # by which the run's relay proves its name to a proxy that it joins

    @classmethod
    def make(
        cls,
        command: Sequence[str],
        *,
        name: str | None = None,
        above: Path | None = None,
        project: Path | None = None,
        attended: bool = True,
    ) -> Self:
        """Create the directory of a new run, and remove those of dead runs.

        `project` is the directory that it works in; `attended` says that it has our terminal.
        Raises ConfigError if it cannot be created, or if a running run has the name.
        """
        if name is not None:
            check_name(name)
        above = above or base_of(os.environ)
        with _explained(above, "the run's directory cannot be created"):
            base = _open_base(above)
            try:
                with _locked(base):
                    living = _sweep(base)
                    chosen = _free_name(name, command, {run.name for run in living})
                    facts = {
                        "project": "" if project is None else str(project),
                        "terminal": _terminal() if attended else "",
                    }
                    return cls._made(chosen, command, above, base, facts)
            except BaseException:
                os.close(base)
                raise

    @classmethod
    def _made(
        cls,
        name: str,
        command: Sequence[str],
        above: Path,
        base: int,
        facts: Mapping[str, str],
    ) -> Self:
        folder = f"{name}.{secrets.token_hex(8)}"
        path = above / folder
        if len(os.fsencode(path / SOCKET)) > _SOCKET_PATH_LIMIT:
            raise ConfigError(
                "the path of the run's directory is too long for a Unix socket",
                where=str(path),
                fix="set XDG_RUNTIME_DIR to a shorter path, or unset it",
            )
        os.mkdir(folder, 0o700, dir_fd=base)
        try:
            record = os.open(
                f"{folder}/{RECORD}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=base
            )
            try:
                # Another process may hold the lock for a moment while it looks.
                fcntl.flock(record, fcntl.LOCK_EX)
                made = cls(name, path, base, record)
                made._append({"name": name, "program": program_of(command), **facts, **_here()})
                made.note(os.getpid())
                made.token = secrets.token_hex(32)
                made.write(TOKEN_FILE, made.token.encode())
            except BaseException:
                os.close(record)
                raise
        except BaseException:
            _remove(base, folder)
            raise
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    @property
    def socket_path(self) -> Path:
        """The socket of the run's proxy."""
        return self.path / SOCKET

    def note(self, pid: int) -> None:
        """Record a process of this run: the next start kills it if the launcher is dead."""
        birth = start_time_of(pid)
        if birth is not None:
            self._append({"pid": pid, "birth": birth})

    def _append(self, line: Mapping[str, object]) -> None:
        # Lines, so that a record that is cut short by a kill keeps its earlier entries.
        with _explained(self.path, "the run's record cannot be written"):
            data = json.dumps(line).encode() + b"\n"
            if os.write(self._record, data) != len(data):
                raise OSError(28, "no space left on device")

    def write(self, name: str, data: bytes) -> Path:
        """Write a file into the directory and return its path."""
        path = self.path / name
        with _explained(path, "a file of the run cannot be written"):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - the mode is the point
                file.write(data)
        return path

    @property
    def gateway_path(self) -> Path:
        """The socket of the gateway of the run's proxy."""
        return self.path / GATEWAY_SOCKET

    def listen(self, path: Path | None = None) -> socket.socket:
        """Return a socket listening in the directory, for the owner alone."""
        path = path or self.socket_path
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _explained(path, "cannot listen on the run's socket"):
                sock.bind(str(path))
                path.chmod(0o600)
                sock.listen(1024)
        except BaseException:
            sock.close()
            raise
        return sock

    def remove(self) -> None:
        """Remove the directory with its contents; release the lock last."""
        if not self._open:
            return
        self._open = False
        _remove(self._base, self.path.name)
        os.close(self._record)
        os.close(self._base)


def program_of(command: Sequence[str]) -> str:
    """Return a command as it is recorded: its program without directories.

    Never its arguments, which may contain a secret.
    """
    return Path(command[0]).name[:_PROGRAM_LIMIT] if command else ""


def check_name(name: str) -> None:
    """Raise ConfigError if a name is not usable as a file name or not readable in a list."""
    if not is_name(name):
        raise ConfigError(
            f"{name!r} cannot be the name of a run",
            where="--name",
            fix=f"use up to {NAME_LIMIT} letters, digits, dots, dashes and underscores",
        )


def living(above: Path | None = None) -> list[Run]:
    """Return the runs that are alive."""
    with contextlib.suppress(OSError):
        base = _open_base(above or base_of(os.environ), make=False)
        try:
            return [run for folder in os.listdir(base) if (run := _look(base, folder).alive)]  # noqa: PTH208 - by descriptor
        finally:
            os.close(base)
    return []


def start_time_of(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot (proc(5)); None: it is gone."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The name in parentheses may hold anything, so what counts begins after the last one.
        text = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2]
        return int(text.split()[19])
    return None


# --- the directory above, and what is in it


def _open_base(path: Path, *, make: bool = True) -> int:
    if make:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        os.close(descriptor)
        raise ConfigError(
            "the directory of the runs is not owned by this user, or other users can access it",
            where=str(path),
            fix=f"remove it, or: chmod 700 {path}; or set XDG_RUNTIME_DIR to your own directory",
        )
    return descriptor


@contextlib.contextmanager
def _locked(base: int) -> Iterator[None]:
    """Serialize starts: a new directory looks dead until its owner has locked its record."""
    descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=base)
    try:
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise ConfigError(
                    "another `claude-proxy run` has not finished starting",
                    fix="resume it if it is suspended (fg), or end it",
                )
            time.sleep(_LOCK_PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Record:
    """What one directory contains: a run that is alive, or the processes of a dead one."""

    alive: Run | None = None
    left: tuple[tuple[int, int], ...] = ()  # id and start time of its processes


def _sweep(base: int) -> list[Run]:
    """Remove the directories of dead runs, and return the runs that are alive."""
    alive = []
    for folder in os.listdir(base):
        if folder in (_LOCK, CONTROL):
            continue
        found = _look(base, folder)
        if found.alive is not None:
            alive.append(found.alive)
            continue
        for pid, birth in found.left:
            _end(pid, birth)
        _remove(base, folder)
    return alive


def _look(base: int, folder: str) -> _Record:
    try:
        record = os.open(
            f"{folder}/{RECORD}", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=base
        )
    except OSError:
        return _Record()  # killed before it wrote one, or being removed
    try:
        dead = _try_lock(record)
        lines = _lines(os.pread(record, _RECORD_LIMIT, 0))
    except OSError:
        return _Record()  # not a plain file, so not a record
    finally:
        os.close(record)
    head, processes = lines[:1], [_process_of(line) for line in lines[1:]]
    known = [process for process in processes if process is not None]
    if not dead:
        first = head[0] if head else {}
        pid = known[0][0] if known else 0
        return _Record(Run(str(first.get("name", "")), pid, str(first.get("program", ""))))
    # Process ids mean nothing after a boot, or in another namespace.
    ours = bool(head) and all(head[0].get(key) == value for key, value in _here().items())
    return _Record(left=tuple(known[1:]) if ours else ())


def _lines(data: bytes) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for line in data.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            break  # cut short
        if isinstance(value, dict):
            found.append(value)
    return found


def _process_of(line: Mapping[str, object]) -> tuple[int, int] | None:
    pid, birth = line.get("pid"), line.get("birth")
    return (pid, birth) if isinstance(pid, int) and isinstance(birth, int) else None


def _here() -> dict[str, str]:
    """Return the identity of this boot and of this process id namespace."""
    found = {"boot": "", "pids": ""}
    with contextlib.suppress(OSError):
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        found["pids"] = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - a text and no path
    return found


def _terminal() -> str:
    """Return the device of the terminal that this process prints messages to; "": there is none."""
    try:
        return os.ttyname(2)
    except OSError:
        return ""


def _end(pid: int, birth: int) -> None:
    """Kill a process of a dead run, if the id still belongs to that process."""
    with contextlib.suppress(OSError):
        # The descriptor first: it cannot refer to another process afterwards.
        descriptor = os.pidfd_open(pid)
        try:
            owner = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 - one call
            if start_time_of(pid) == birth and owner == os.geteuid():
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def _remove(base: int, folder: str) -> None:
    # By descriptor and without following links: nothing outside the directory is removed.
    shutil.rmtree(folder, ignore_errors=True, dir_fd=base)
    with contextlib.suppress(OSError):
        os.unlink(folder, dir_fd=base)  # in case it is not a directory


def _free_name(name: str | None, command: Sequence[str], taken: set[str]) -> str:
    if name is not None:
        if name in taken:
            raise ConfigError(
                f"a run called {name!r} already exists",
                where="--name",
                fix="choose another name, or none",
            )
        return name
    word = re.sub(r"[^A-Za-z0-9_-]+", "", Path(command[0]).name if command else "")[:16] or "run"
    word = word.lstrip("-_") or "run"
    while True:
        suffix = "".join(secrets.choice(_ALPHABET) for _ in range(_SUFFIX_SIZE))
        if (found := f"{word}-{suffix}") not in taken:
            return found


@contextlib.contextmanager
def _explained(where: Path, what: str) -> Iterator[None]:
    try:
        yield
    except ClaudeProxyError:
        raise
    except OSError as error:
        raise ConfigError(
            f"{what}: {(error.strerror or type(error).__name__).lower()}",
            where=str(where),
            fix="make room there, or set XDG_RUNTIME_DIR to a directory that you own",
        ) from error
