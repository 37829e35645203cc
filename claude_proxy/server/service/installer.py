"""Puts the files of a service where the service manager looks, takes them away, and compares them.

Laws kept: what somebody else has written, or changed since, is neither overwritten nor removed
unasked; a step that fails takes the earlier ones back, so a half-installed service does not stay.
"""

import contextlib
import os
import pwd
import secrets
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
from claude_proxy.server.service.plan import Plan, Scope, Unit
from claude_proxy.server.service.systemd import files_of

type Say = Callable[[str], None]

_READABLE = 0o644
_DIRECTORY, _OWN_DIRECTORY = 0o755, 0o700
_LARGEST_FILE = 1024 * 1024
_AWAY = frozenset({"", "offline", "unknown"})  # what systemctl says where systemd does not run
_ACTIVE = frozenset({"active", "activating", "reloading"})
_PATIENCE_S = 300


class Standing(StrEnum):
    """How one installed file stands to what would be written now."""

    MISSING = "missing"
    CURRENT = "up to date"
    STALE = "out of date"
    CHANGED = "changed since claude-proxy wrote it"
    FOREIGN = "not written by claude-proxy"


@dataclass(frozen=True, slots=True)
class Machine:
    """Where files go, and who puts them there."""

    root: Path  # a system service's paths lie below it
    user_units: Path  # where the user's own units are
    uid: int

    def place(self, scope: Scope, path: str) -> Path:
        """Return where a file of a service lies."""
        return self.root / path.lstrip("/") if scope is Scope.SYSTEM else self.user_units / path


class Systemd:
    """The systemd of this machine, or of the user."""

    def __init__(self, scope: Scope) -> None:
        program = shutil.which("systemctl")
        self.spelling = ("systemctl", "--user") if scope is Scope.USER else ("systemctl",)
        self._command = None if program is None else (program, *self.spelling[1:])

    def is_there(self) -> bool:
        """Tell whether it runs, and this user can talk to it."""
        return self._answer("is-system-running") not in _AWAY

    def is_active(self, unit: str) -> bool:
        """Tell whether a unit is running, or listening."""
        return self._answer("is-active", unit) in _ACTIVE

    def run(self, *words: str) -> None:
        """Have it do something; ClaudeProxyError if that fails."""
        run((*(self._command or ()), *words), shown=self.shown(*words))

    def shown(self, *words: str) -> str:
        """Return a command line as the user would type it."""
        return " ".join((*self.spelling, *words))

    def _answer(self, *words: str) -> str:
        if self._command is None:
            return ""
        command = (*self._command, *words)
        try:
            asked = subprocess.run(  # noqa: S603 - an argv list of our own
                command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return asked.stdout.strip()


def run(command: Sequence[str], *, shown: str) -> None:
    """Run a program of the system's; ClaudeProxyError if it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - an argv list of our own
            command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S
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
            fix="run it by hand to see more; `journalctl -xe` may say why a unit does not start",
        )


# --- installing


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be installed, and on behalf of which command line."""

    plan: Plan
    words: tuple[str, ...]  # the arguments that the marks name
    version: str
    laid: Mapping[str, str] = field(default_factory=dict)  # the owner's own files, if they lack
    directories: tuple[Path, ...] = ()  # made for the owner alone, if they lack

    @property
    def files(self) -> tuple[Unit, ...]:
        """The files as they are written."""
        return tuple(
            Unit(unit.path, marked(unit.text, self.version, self.words))
            for unit in files_of(self.plan)
        )


def candidates(names: Names, scope: Scope) -> tuple[str, ...]:
    """Return every file that a service of these names may have, the units first."""
    if scope is Scope.USER:
        return names.service, names.socket
    units = (f"{names.units}/{name}" for name in (names.service, names.socket))
    return (*units, names.sysusers, names.firewall)


def refuse_other_user(machine: Machine, scope: Scope, verb: str) -> None:
    """Raise ConfigError if this user may not change a service of that scope."""
    if scope is Scope.SYSTEM and machine.uid != 0:
        raise ConfigError(
            f"only root can {verb} a service of the whole system",
            where="--system",
            fix="run it by sudo, or say --user for a service of your own",
        )


class Installer:
    """Installs and uninstalls, and tells what it does as it does it."""

    def __init__(self, machine: Machine, scope: Scope, say: Say) -> None:
        self._machine = machine
        self._scope = scope
        self._say = say
        self._manager = Systemd(scope)

    def install(self, order: Order, *, force: bool) -> None:
        """Install a service, enable and start it; if that fails, all but its user is taken back."""
        plan = order.plan
        refuse_other_user(self._machine, self._scope, "install")
        old = [self._place(path) for path in candidates(plan.names, self._scope)]
        refuse_links(old)
        if not force:
            refuse_foreign(old)
        before = {path: _bytes_of(path) for path in old}
        there = self._manager.is_there()
        made: list[Path] = []
        try:
            self._write(order, made)
            if there:
                self._start(plan, before)
        except BaseException:
            self._say("taking everything back")
            self._restore(plan, before, made, there=there)
            raise
        if not there:
            self._say(f"systemd does not run here. Where it does: {self._by_hand(plan)}")

    def _write(self, order: Order, made: list[Path]) -> None:
        for directory in order.directories:
            _make_directory(directory, _OWN_DIRECTORY)
        for path, text in order.laid.items():
            place = self._place(path)
            if not os.path.lexists(place):
                write(place, text.encode())
                made.append(place)
                self._say(f"wrote {place} (the owner's from now on)")
        written = set()
        for unit in order.files:
            place = self._place(unit.path)
            write(place, unit.text.encode())
            written.add(place)
            self._say(f"wrote {place}")
        for path in candidates(order.plan.names, self._scope):
            place = self._place(path)
            if place not in written and os.path.lexists(place):
                self._remove_leftover(place, order.plan.names)

    def _remove_leftover(self, place: Path, names: Names) -> None:
        """Take away what an earlier installation had and this one has not."""
        if place.suffix == ".socket" and self._manager.is_there():
            self._do("disable", "--now", place.name)
        if place == self._place(names.firewall):
            self._drop_table(names)
        place.unlink()
        self._say(f"removed {place}")

    def _start(self, plan: Plan, before: Mapping[Path, bytes | None]) -> None:
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
                self._say(f"made the user {names.user}")
                return
        raise ClaudeProxyError(
            f"there is no user {names.user}, and no program that makes one",
            where="systemd-sysusers, useradd",
            fix=f"make a system user of that name: {self._place(names.sysusers)} describes it",
        )

    def _restore(
        self,
        plan: Plan,
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
            # The socket first: where there was one, it is what had the service started.
            previous = next((unit for unit, content in had.items() if content is not None), None)
            if there and previous is not None:
                self._manager.run("enable", previous)
                self._manager.run("restart", previous)

    def _by_hand(self, plan: Plan) -> str:
        steps = [self._manager.shown("daemon-reload")]
        if self._scope is Scope.SYSTEM:
            steps.insert(0, "systemd-sysusers")
        steps.append(self._manager.shown("enable", "--now", plan.unit))
        return " && ".join(steps)

    # --- uninstalling

    def uninstall(self, names: Names, *, force: bool) -> bool:
        """Stop a service and remove its files; tell whether there were any."""
        refuse_other_user(self._machine, self._scope, "uninstall")
        places = [self._place(path) for path in candidates(names, self._scope)]
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
            self._say(f"removed {place}")
        if there and found:
            self._do("daemon-reload")
        return bool(found)

    def _drop_table(self, names: Names) -> None:
        program = shutil.which("nft")
        if program is None:
            return
        # "add" first: to delete what is not there is an error.
        for verb in ("add", "delete"):
            words = (verb, "table", "inet", names.table)
            run((program, *words), shown=" ".join(("nft", *words)))
        self._say(f"deleted the table {names.table} of nftables")

    def _do(self, *words: str) -> None:
        self._say(self._manager.shown(*words))
        self._manager.run(*words)

    def _place(self, path: str) -> Path:
        return self._machine.place(self._scope, path)

    def _unit_file(self, plan: Plan, name: str) -> Path:
        system = self._scope is Scope.SYSTEM
        return self._place(f"{plan.names.units}/{name}" if system else name)


# --- what is installed


@dataclass(frozen=True, slots=True)
class Found:
    """One file where a service's would be."""

    path: Path
    mark: Mark | None  # None: it is somebody else's


def found_files(machine: Machine, names: Names, scope: Scope) -> tuple[Found, ...]:
    """Return the files that are there."""
    return tuple(_found(machine, names, scope))


def _found(machine: Machine, names: Names, scope: Scope) -> Iterator[Found]:
    for path in candidates(names, scope):
        place = machine.place(scope, path)
        content = _bytes_of(place)
        if content is not None:
            yield Found(place, read_mark(content.decode("utf-8", "replace")))


def standing_of(found: Found, wanted: Mapping[Path, str]) -> Standing:
    """Compare a file with the texts that would be written now, by path."""
    if found.mark is None:
        return Standing.FOREIGN
    if found.mark.changed:
        return Standing.CHANGED
    return Standing.CURRENT if wanted.get(found.path) == found.mark.text else Standing.STALE


def refuse_foreign(places: Sequence[Path]) -> None:
    """Raise ConfigError if one of these files was written, or changed, by somebody else."""
    for place in places:
        content = _bytes_of(place)
        if content is None:
            continue
        mark = read_mark(content.decode("utf-8", "replace"))
        if mark is None or mark.changed:
            what = Standing.FOREIGN if mark is None else Standing.CHANGED
            raise ConfigError(
                f"a file is in the way: {what}",
                where=str(place),
                fix="move it away (changes of your own belong in a drop-in: `systemctl edit`), "
                "or say --force",
            )


def refuse_links(places: Sequence[Path]) -> None:
    """Raise ConfigError if something that is no file is in the way: it could not be put back."""
    for place in places:
        if os.path.lexists(place) and not stat.S_ISREG(place.lstat().st_mode):
            raise ConfigError(
                "something is in the way that is not a regular file",
                where=str(place),
                fix=f"`systemctl unmask {place.name}` if it was masked, or move it away",
            )


# --- files


def write(path: Path, content: bytes) -> None:
    """Put a file in place whole, readable for all, writable for its owner alone."""
    _make_directory(path.parent, _DIRECTORY)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(partial, flags, _READABLE), "wb") as file:  # noqa: PTH123 - with its mode
            os.fchmod(file.fileno(), _READABLE)  # whatever the umask has left of it
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
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
    """Return what is in a file; None if there is none."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return b""  # a masked unit, or something odder; somebody else's
        with path.open("rb") as file:
            return file.read(_LARGEST_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot be used: {(error.strerror or type(error).__name__).lower()}",
        where=str(path),
        fix="see who owns it and its directory: ls -ld",
    )
