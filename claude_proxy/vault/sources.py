"""Credential sources: environment, .env, file, service manager, command, keyring.

Laws: secrets stay outside, the sandbox cannot move its own wall. A file that others could read or
replace is refused; a value that no header field can hold is refused; an error says where a value
was looked for, and nothing about the value.
"""

import json
import os
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import (
    CommandSource,
    DotenvSource,
    EnvironmentSource,
    FileSource,
    KeyringSource,
    SecretSource,
    SystemdSource,
    source_name,
)
from claude_proxy.system import file_permissions
from claude_proxy.vault import dotenv_file
from claude_proxy.vault.file_stamp import FileStamp, stamp_of_file

_MOST_BYTES = 64 * 1024  # that a value is read from
_MOST_JSON_BYTES = 1024 * 1024
# A shorter value can be guessed, and appears in responses by accident.
_SHORTEST = 8
_COMMAND_S = 30.0
_KEYRING_S = 30.0
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_CREDENTIALS_DIRECTORY = "CREDENTIALS_DIRECTORY"


def read(
    source: SecretSource, environ: Mapping[str, str], withheld: Collection[str] = ()
) -> Secret:
    """Return the current value of `source`; ConfigError says why there is none.

    The variables named in `withheld` are not in the environment of a command.
    """
    place = source_name(source)
    match source:
        case EnvironmentSource(name):
            return _of_environment(environ.get(name), place)
        case DotenvSource(path, name):
            return _of_dotenv(path, name, place)
        case FileSource(path, keys):
            raw = _of_file(_at_home(path, place), place, _MOST_JSON_BYTES if keys else _MOST_BYTES)
            return _checked(_inside(raw, keys, place) if keys else raw, place, _FIX_FILE)
        case SystemdSource():
            raw = _of_file(_handed_over(source, environ), place, _MOST_BYTES, by_manager=True)
            return _checked(
                raw, place, "correct the file that LoadCredential= names, and restart the service"
            )
        case CommandSource(argv):
            return _checked(_of_command(argv, place, environ, withheld), place, _FIX_COMMAND)
        case KeyringSource(service, user):
            return _of_keyring(service, user, place)


def stamp_of(source: SecretSource, environ: Mapping[str, str]) -> FileStamp | None:
    """Return the state of the file that a source reads; None if it reads none or there is none."""
    path: Path
    match source:
        case FileSource(path) | DotenvSource(path):
            pass
        case SystemdSource():
            try:
                path = _handed_over(source, environ)
            except ConfigError:
                return None
        case _:
            return None
    with suppress(RuntimeError):  # the user has no home directory
        return stamp_of_file(path.expanduser())
    return None


_FIX_FILE = "write only the value into the file, on one line"
_FIX_COMMAND = "run the command by hand: it must print the value and nothing else"


def _checked(raw: bytes, place: str, fix: str) -> Secret:
    """Return the value, if a header field can hold it."""
    text = raw.removesuffix(b"\n").removesuffix(b"\r")
    # Latin-1 decodes any bytes; the check refuses what is not ASCII.
    from claude_proxy.config.option_values import fault_of_key  # noqa: PLC0415 - few have any

    fault = fault_of_key(text.decode("latin-1"))
    if fault is None and len(text) < _SHORTEST:
        fault = f"is shorter than {_SHORTEST} characters"
    if fault is not None:
        raise ConfigError(f"the value {fault}", where=place, fix=fix)
    return Secret(text)


# --- environment and .env


def _of_environment(value: str | None, place: str) -> Secret:
    fix = "set the variable before claude-proxy is started, or keep the value in a file"
    if not value:
        raise ConfigError("the variable is not set, or is empty", where=place, fix=fix)
    return _checked(os.fsencode(value), place, fix)


def _of_dotenv(path: Path, name: str, place: str) -> Secret:
    found = dotenv_file.read(path)
    value = None if found is None else found.value(name)
    fix = f"write {name}=... into the file"
    if not value:
        raise ConfigError("the variable is not set there, or is empty", where=place, fix=fix)
    return _checked(value.encode(), place, fix)


# --- files


def _at_home(path: Path, place: str) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # as in a container, whose users may have no entry in passwd
        fix = "set HOME, or write an absolute path"
        raise ConfigError("the user has no home directory", where=place, fix=fix) from None


def _of_file(path: Path, place: str, most: int, *, by_manager: bool = False) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        # The owner of a link could point it elsewhere; a pipe would block the start.
        descriptor = os.open(path, flags)
        try:
            _refuse_shared(os.fstat(descriptor), path, place, by_manager=by_manager)
            with open(descriptor, "rb", closefd=False) as file:
                raw = file.read(most + 1)
        finally:
            os.close(descriptor)
        file_permissions.refuse_replaceable(path, "the credential")
    except OSError as error:
        why = "it is a link" if path.is_symlink() else _words_of(error)
        raise ConfigError(
            f"the file cannot be read: {why}",
            where=place,
            fix="name a plain file that the user who runs claude-proxy can read",
        ) from None
    if len(raw) > most:
        fix = "check that it is the right file"
        raise ConfigError(f"the file is larger than {most // 1024} KiB", where=place, fix=fix)
    return raw


def _refuse_shared(found: os.stat_result, path: Path, place: str, *, by_manager: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        fix = "name a plain file"
        raise ConfigError("it is not a regular file", where=place, fix=fix)
    if found.st_uid not in {0, os.geteuid()}:
        raise ConfigError(
            "the file belongs to another user, who can read and change it",
            where=place,
            fix=f"change the owner: sudo chown {os.geteuid()} {path}",
        )
    # The group's bits are the mask of the ACL by which the service manager lets only the user of
    # the service read a file of root's.
    shared = stat.S_IWGRP | stat.S_IRWXO if by_manager else _OTHERS
    if found.st_mode & shared:
        raise ConfigError(
            f"others have access to the file (mode {stat.S_IMODE(found.st_mode):04o})",
            where=place,
            fix=f"chmod 600 {path}, and replace the credential if others may have read it",
        )


def _handed_over(source: SystemdSource, environ: Mapping[str, str]) -> Path:
    directory = environ.get(_CREDENTIALS_DIRECTORY, "")
    if not directory.startswith("/"):
        raise ConfigError(
            "the service manager has passed no credentials",
            where=source_name(source),
            fix=f"add LoadCredential={source.name}:/path to the unit",
        )
    if "/" in source.name or source.name in {"", ".", ".."}:
        fix = "write the name that LoadCredential= gives it"
        raise ConfigError(
            "the name is not the name of a credential", where=source_name(source), fix=fix
        )
    return Path(directory) / source.name


def _inside(raw: bytes, keys: tuple[str, ...], place: str) -> bytes:
    """Return the text under `keys` in a JSON file."""
    fix = "compare the file with `key`, and correct one of them"
    try:
        found: Any = json.loads(raw)
    except (ValueError, RecursionError):
        # Not the error itself, which quotes the file.
        raise ConfigError("the file is not JSON", where=place, fix=fix) from None
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, str):
        raise ConfigError("the file has no text under the key", where=place, fix=fix)
    return found.encode("utf-8", "surrogatepass")


# --- commands


def _of_command(
    argv: tuple[str, ...], place: str, environ: Mapping[str, str], withheld: Collection[str]
) -> bytes:
    program = str(_at_home(Path(argv[0]), place)) if argv[0].startswith("~/") else argv[0]
    environment = {name: text for name, text in environ.items() if name not in withheld}
    try:
        child = subprocess.Popen(  # noqa: S603 - what its owner configured, without a shell
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # It may quote the value, and would appear in a log.
            stderr=subprocess.DEVNULL,
            env=environment,
            # Not the directory of the start: git, npm and others obey files of a project, which an
            # agent may have written.
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = (
            _words_of(error)
            if isinstance(error, OSError)
            else "the command contains a NUL character"
        )
        fix = "write the program's full path"
        raise ConfigError(f"the command cannot be started: {why}", where=place, fix=fix) from None
    _running.add(child.pid)
    with child:
        try:
            raw = _output_of(child, place)
            code = child.wait(_COMMAND_S)
        except BaseException as fault:
            _end(child.pid)
            if isinstance(fault, subprocess.TimeoutExpired):
                raise _too_slow(place) from None
            raise
        finally:
            _running.discard(child.pid)
    if code:
        raise ConfigError(f"the command failed (exit code {code})", where=place, fix=_FIX_COMMAND)
    return raw


_running: set[int] = set()  # process ids of the commands that are running, on any thread


def end_commands() -> None:
    """Kill the running commands: their output is no longer needed."""
    for pid in tuple(_running):
        _end(pid)


def _end(pid: int) -> None:
    # With its child processes, which may keep its output open.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _output_of(child: "subprocess.Popen[bytes]", place: str) -> bytes:
    if child.stdout is None:  # pragma: no cover - it was asked for
        return b""
    raw = b""
    until = time.monotonic() + _COMMAND_S
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while len(raw) <= _MOST_BYTES:
            left = until - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise _too_slow(place)
            piece = os.read(child.stdout.fileno(), _MOST_BYTES + 1)
            if not piece:
                return raw
            raw += piece
    fix = _FIX_COMMAND
    raise ConfigError(
        f"the command prints more than {_MOST_BYTES // 1024} KiB", where=place, fix=fix
    )


def _too_slow(place: str) -> ConfigError:
    what = f"the command has not ended after {_COMMAND_S:g} s"
    fix = "make sure that it works without a terminal and asks for no input"
    return ConfigError(what, where=place, fix=fix)


# --- keyrings


def _of_keyring(service: str, user: str, place: str) -> Secret:
    try:
        keyring: Any = import_module("keyring")
    except ImportError:
        fix = "install it beside claude-proxy: pipx inject claude-proxy keyring"
        raise ConfigError(
            "the Python package keyring is not installed", where=place, fix=fix
        ) from None
    fix = f"store it: keyring set {service} {user}"
    found, fault = _in_time(lambda: keyring.get_password(service, user))
    if fault is not None:
        # Only the name of its type: the message of a backend may quote anything.
        raise ConfigError(f"the keyring does not respond ({fault})", where=place, fix=fix)
    if not isinstance(found, str) or not found:
        raise ConfigError("the keyring has no such entry", where=place, fix=fix)
    return _checked(found.encode("utf-8", "surrogatepass"), place, fix)


def _in_time(ask: Callable[[], Any]) -> tuple[Any, str | None]:
    """Return the result, or what went wrong; a keyring may wait for a password for ever."""
    answer: list[Any] = []
    fault = ["no response in time"]

    def work() -> None:
        try:
            answer.append(ask())
        except Exception as error:  # noqa: BLE001 - backends raise anything
            fault[0] = type(error).__name__

    thread = Thread(target=work, name="keyring", daemon=True)
    thread.start()
    thread.join(_KEYRING_S)
    return (answer[0], None) if answer else (None, fault[0])


def _words_of(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
