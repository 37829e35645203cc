"""Service installation: writes, compares and removes the files of a systemd service.

Files that somebody else wrote or changed are neither overwritten nor removed without --force. A
step that fails undoes the earlier ones, so no half-installed service remains.
"""

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.server.service.file_marks import Mark, marked, read_mark
from claude_proxy.server.service.names import Names
from claude_proxy.server.service.plan import Scope, ServicePlan, Unit
from claude_proxy.server.service.systemd import files_of
from claude_proxy.system import file_replacement

type Announce = Callable[[str], None]

_READABLE = 0o644
_DIRECTORY, _OWN_DIRECTORY = 0o755, 0o700
_MAX_FILE_BYTES = 1024 * 1024
_NOT_RUNNING = frozenset(
    {"", "offline", "unknown"}
)  # the answers of systemctl when systemd does not run
_ACTIVE = frozenset({"active", "activating", "reloading"})
_TIMEOUT_S = 300


class FileState(StrEnum):
    """How an installed file compares with what would be written now."""

    MISSING = "missing"
    CURRENT = "up to date"
    STALE = "out of date"
    CHANGED = "changed since claude-proxy wrote it"
    FOREIGN = "not written by claude-proxy"


@dataclass(frozen=True, slots=True)
class InstallRoot:
    """Where files are installed, and by which user."""

    root: Path  # prefix of the paths of a system service
    user_units: Path  # the directory of the user's own units
    uid: int

    def path_of(self, scope: Scope, path: str) -> Path:
        """Return the full path of a file of a service."""
        return self.root / path.lstrip("/") if scope is Scope.SYSTEM else self.user_units / path


class Systemd:
    """The systemd instance of this machine or of the user."""

    def __init__(self, scope: Scope) -> None:
        program = shutil.which("systemctl")
        self.spelling = ("systemctl", "--user") if scope is Scope.USER else ("systemctl",)
        self._command = None if program is None else (program, *self.spelling[1:])

    def is_there(self) -> bool:
        """Return whether it runs and this user can talk to it."""
        return self._answer("is-system-running") not in _NOT_RUNNING

    def is_active(self, unit: str) -> bool:
        """Return whether a unit is running or listening."""
        return self._answer("is-active", unit) in _ACTIVE

    def run(self, *words: str) -> None:
        """Run a systemctl command; ClaudeProxyError if it fails."""
        run((*(self._command or ()), *words), shown=self.shown(*words))

    def shown(self, *words: str) -> str:
        """Return a command line as the user would type it."""
        return " ".join((*self.spelling, *words))

    def _answer(self, *words: str) -> str:
        if self._command is None:
            return ""
        command = (*self._command, *words)
        try:
            done = subprocess.run(  # noqa: S603 - a fixed argv list
                command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip()


def run(command: Sequence[str], *, shown: str) -> None:
    """Run a system program; ClaudeProxyError if it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - a fixed argv list
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClaudeProxyError(
            f"the command could not be run: {type(error).__name__}",
            where=shown,
            fix="run it by hand to see why",
        ) from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ClaudeProxyError(
            f"the command failed: {said[-1] if said else f'exit code {done.returncode}'}",
            where=shown,
            fix="run it by hand for details; `journalctl -xe` may show why a unit does not start",
        )


# --- installing


@dataclass(frozen=True, slots=True)
class Installation:
    """What to install, and the command line that requested it."""

    plan: ServicePlan
    words: tuple[str, ...]  # the arguments recorded in each file
    version: str
    initial: Mapping[str, str] = field(default_factory=dict)  # written only if missing; not marked
    directories: tuple[Path, ...] = ()  # created for the owner alone if missing

    @property
    def files(self) -> tuple[Unit, ...]:
        """The files with their marks."""
        return tuple(
            Unit(unit.path, marked(unit.text, self.version, self.words))
            for unit in files_of(self.plan)
        )


def possible_files(names: Names, scope: Scope) -> tuple[str, ...]:
    """Return every file that a service with these names may have, units first."""
    if scope is Scope.USER:
        return names.service, names.socket
    units = (f"{names.units}/{name}" for name in (names.service, names.socket))
    return (*units, names.sysusers, names.firewall)


def refuse_other_user(root: InstallRoot, scope: Scope, verb: str) -> None:
    """Raise ConfigError if this user may not change a service of that scope."""
    if scope is Scope.SYSTEM and root.uid != 0:
        raise ConfigError(
            f"only root can {verb} a system service",
            where="--system",
            fix="use sudo, or use --user for a service of your own",
        )


class Installer:
    """Installs and uninstalls a service, and reports each step."""

    def __init__(self, root: InstallRoot, scope: Scope, announce: Announce) -> None:
        self._root = root
        self._scope = scope
        self._announce = announce
        self._manager = Systemd(scope)

    def install(self, installation: Installation, *, force: bool) -> None:
        """Install, enable and start a service; if that fails, undo everything but its user."""
        plan = installation.plan
        refuse_other_user(self._root, self._scope, "install")
        old = [self._place(path) for path in possible_files(plan.names, self._scope)]
        refuse_links(old)
        if not force:
            refuse_foreign(old)
        before = {path: _bytes_of(path) for path in old}
        there = self._manager.is_there()
        made: list[Path] = []
        try:
            self._write(installation, made)
            if there:
                self._start(plan, before)
        except BaseException:
            self._announce("undoing everything")
            self._restore(plan, before, made, there=there)
            raise
        if not there:
            self._announce(f"systemd is not running here. Where it is, run: {self._by_hand(plan)}")

    def _write(self, installation: Installation, made: list[Path]) -> None:
        for directory in installation.directories:
            _make_directory(directory, _OWN_DIRECTORY)
        for path, text in installation.initial.items():
            place = self._place(path)
            if not os.path.lexists(place):
                write(place, text.encode())
                made.append(place)
                self._announce(f"wrote {place} (yours to edit)")
        written = set()
        for unit in installation.files:
            place = self._place(unit.path)
            write(place, unit.text.encode())
            written.add(place)
            self._announce(f"wrote {place}")
        for path in possible_files(installation.plan.names, self._scope):
            place = self._place(path)
            if place not in written and os.path.lexists(place):
                self._remove_leftover(place, installation.plan.names)

    def _remove_leftover(self, place: Path, names: Names) -> None:
        """Remove a file that an earlier installation had and this one does not."""
        if place.suffix == ".socket" and self._manager.is_there():
            self._do("disable", "--now", place.name)
        if place == self._place(names.firewall):
            self._drop_table(names)
        place.unlink()
        self._announce(f"removed {place}")

    def _start(self, plan: ServicePlan, before: Mapping[Path, bytes | None]) -> None:
        if self._scope is Scope.SYSTEM:
            self._make_user(plan.names)
        self._do("daemon-reload")
        self._do("enable", plan.unit)
        if plan.activated and before[self._unit_file(plan, plan.names.service)] is not None:
            self._do("stop", plan.names.service)
        self._do("restart", plan.unit)

    def _make_user(self, names: Names) -> None:
        with contextlib.suppress(KeyError):
            pwd.getpwnam(names.user)
            return
        by_file = ("systemd-sysusers", str(self._place(names.sysusers)))
        by_hand = ("useradd", "--system", "--no-create-home", "--home-dir", names.state)
        for program, *words in (by_file, (*by_hand, "--shell", "/usr/sbin/nologin", names.user)):
            found = shutil.which(program)
            if found is not None:
                run((found, *words), shown=" ".join((program, *words)))
                self._announce(f"created the user {names.user}")
                return
        raise ClaudeProxyError(
            f"there is no user {names.user}, and no program to create it",
            where="systemd-sysusers, useradd",
            fix=f"create a system user of that name, as described in {self._place(names.sysusers)}",
        )

    def _restore(
        self,
        plan: ServicePlan,
        before: Mapping[Path, bytes | None],
        made: Sequence[Path],
        *,
        there: bool,
    ) -> None:
        names = plan.names
        had = {unit: before[self._unit_file(plan, unit)] for unit in (names.socket, names.service)}
        with contextlib.suppress(ClaudeProxyError):
            if there and had[plan.unit] is None:
                self._manager.run("disable", "--now", plan.unit)
        for path, content in before.items():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True) if content is None else write(path, content)
        for path in made:
            path.unlink(missing_ok=True)
        with contextlib.suppress(ClaudeProxyError):
            if there and plan.firewall is not None and before[self._place(names.firewall)] is None:
                self._drop_table(names)
        with contextlib.suppress(ClaudeProxyError):
            if there:
                self._manager.run("daemon-reload")
            # The socket first: where there was one, it started the service.
            previous = next((unit for unit, content in had.items() if content is not None), None)
            if there and previous is not None:
                self._manager.run("enable", previous)
                self._manager.run("restart", previous)

    def _by_hand(self, plan: ServicePlan) -> str:
        steps = [self._manager.shown("daemon-reload")]
        if self._scope is Scope.SYSTEM:
            steps.insert(0, "systemd-sysusers")
        steps.append(self._manager.shown("enable", "--now", plan.unit))
        return " && ".join(steps)

    # --- uninstalling

    def uninstall(self, names: Names, *, force: bool) -> bool:
        """Stop a service and remove its files; return whether there were any."""
        refuse_other_user(self._root, self._scope, "uninstall")
        places = [self._place(path) for path in possible_files(names, self._scope)]
        found = [place for place in places if os.path.lexists(place)]
        refuse_links(found)
        if not force:
            refuse_foreign(found)
        there = self._manager.is_there()
        for place in found:
            if there and place.suffix in {".service", ".socket"}:
                self._do("disable", "--now", place.name)
        for place in found:
            if place == self._place(names.firewall):
                self._drop_table(names)
            place.unlink()
            self._announce(f"removed {place}")
        if there and found:
            self._do("daemon-reload")
        return bool(found)

    def _drop_table(self, names: Names) -> None:
        program = shutil.which("nft")
        if program is None:
            return
        # "add" first: deleting a table that does not exist is an error.
        for verb in ("add", "delete"):
            words = (verb, "table", "inet", names.table)
            run((program, *words), shown=" ".join(("nft", *words)))
        self._announce(f"deleted the nftables table {names.table}")

    def _do(self, *words: str) -> None:
        self._announce(self._manager.shown(*words))
        self._manager.run(*words)

    def _place(self, path: str) -> Path:
        return self._root.path_of(self._scope, path)

    def _unit_file(self, plan: ServicePlan, name: str) -> Path:
        system = self._scope is Scope.SYSTEM
        return self._place(f"{plan.names.units}/{name}" if system else name)


# --- installed files


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """One file at the path of a service's file."""

    path: Path
    mark: Mark | None  # None: not written by claude-proxy


def installed_files(root: InstallRoot, names: Names, scope: Scope) -> tuple[InstalledFile, ...]:
    """Return the files of the service that exist."""
    return tuple(_found(root, names, scope))


def _found(root: InstallRoot, names: Names, scope: Scope) -> Iterator[InstalledFile]:
    for path in possible_files(names, scope):
        place = root.path_of(scope, path)
        content = _bytes_of(place)
        if content is not None:
            yield InstalledFile(place, read_mark(content.decode("utf-8", "replace")))


def state_of(found: InstalledFile, wanted: Mapping[Path, str]) -> FileState:
    """Compare a file with what would be written now (path -> text)."""
    if found.mark is None:
        return FileState.FOREIGN
    if found.mark.changed:
        return FileState.CHANGED
    return FileState.CURRENT if wanted.get(found.path) == found.mark.text else FileState.STALE


def refuse_foreign(places: Sequence[Path]) -> None:
    """Raise ConfigError if somebody else wrote or changed one of these files."""
    for place in places:
        content = _bytes_of(place)
        if content is None:
            continue
        mark = read_mark(content.decode("utf-8", "replace"))
        if mark is None or mark.changed:
            what = FileState.FOREIGN if mark is None else FileState.CHANGED
            raise ConfigError(
                f"a file is in the way: {what}",
                where=str(place),
                fix="move it away (put your own changes in a drop-in: `systemctl edit`), "
                "or use --force",
            )


def refuse_links(places: Sequence[Path]) -> None:
    """Raise ConfigError if something other than a file is there: it could not be restored."""
    for place in places:
        if os.path.lexists(place) and not stat.S_ISREG(place.lstat().st_mode):
            raise ConfigError(
                "something that is not a regular file is in the way",
                where=str(place),
                fix=f"`systemctl unmask {place.name}` if it was masked, or move it away",
            )


# --- files


def write(path: Path, content: bytes) -> None:
    """Write a file atomically, readable by all, writable by its owner."""
    _make_directory(path.parent, _DIRECTORY)
    try:
        file_replacement.replace(path, content, _READABLE)
    except OSError as error:
        raise _unusable(path, error) from error


def _make_directory(directory: Path, mode: int) -> None:
    if directory.is_dir():
        return
    _make_directory(directory.parent, mode)
    try:
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=mode)
            directory.chmod(mode)
    except OSError as error:
        raise _unusable(directory, error) from error


def _bytes_of(path: Path) -> bytes | None:
    """Return the content of a file; None if it does not exist."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return b""  # a masked unit, for example; not ours
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot be used: {(error.strerror or type(error).__name__).lower()}",
        where=str(path),
        fix="check the owner and mode of it and its directory: ls -ld",
    )
