"""Containers that are known here: one directory each in the directory of the state.

Only its owner may enter it. What a container shows of claude-proxy is in it as well, so it stays
until the container is removed. A record that cannot be read is an error that names the file: fail
closed.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container.plan.model import EngineKind, Way
from claude_proxy.system.runs import is_name

DIRECTORY = "containers"
RECORD = "container.json"
CACHE = ".known"  # facts of engines and images; no name of a container begins with a dot
KEEPER_SOCKET = "keeper.sock"


@dataclass(frozen=True, slots=True)
class StoredContainer:
    """What is kept of one container."""

    name: str
    engine: EngineKind
    image: str  # as it was named
    image_id: str
    image_digest: str
    way: Way
    created: float  # seconds since 1970
    project: str
    command: tuple[str, ...]
    words: tuple[str, ...]  # of the command line: `start` reads policy and settings again
    plan: str  # digest of the plan
    user: str = ""
    home: str = ""
    volume: str = ""
    policy: str = ""
    remove: bool = False
    clone: bool = False  # it works in the clone of its name
    attack: dict[str, Any] | None = None  # of the last attack: when, and what got out


def directory_of(statedir: Path, name: str) -> Path:
    """Return the directory of a container; ConfigError if it cannot be a name."""
    if not is_name(name):
        raise ConfigError(
            f"{name!r} cannot be the name of a container",
            where="--name",
            fix="use up to 32 letters, digits, dots, dashes and underscores",
        )
    return statedir / DIRECTORY / name


def cache_in(statedir: Path) -> Path:
    """Return the directory for facts about engines and images."""
    return statedir / DIRECTORY / CACHE


def load(statedir: Path, name: str) -> StoredContainer:
    """Return a container; ClaudeProxyError if there is none of this name."""
    path = directory_of(statedir, name) / RECORD
    try:
        found = dict(json.loads(path.read_bytes()))
        known = {field.name for field in fields(StoredContainer)}
        values = {key: value for key, value in found.items() if key in known}
        values |= {key: tuple(values[key]) for key in ("command", "words")}
        values |= {"engine": EngineKind(values["engine"]), "way": Way(values["way"])}
        return StoredContainer(**values)
    except FileNotFoundError:
        raise ClaudeProxyError(
            f'there is no container "{name}"',
            where=str(path.parent),
            fix="see `claude-proxy container list`",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClaudeProxyError(
            "the record of a container cannot be read",
            where=str(path),
            fix=f"remove what is kept of it: claude-proxy container rm --force {name}",
        ) from error


def names(statedir: Path) -> list[str]:
    """Return the names of all containers, in order."""
    with contextlib.suppress(OSError):
        return [name for name in sorted(os.listdir(statedir / DIRECTORY)) if is_name(name)]  # noqa: PTH208 - names
    return []


def load_all(statedir: Path) -> Iterator[StoredContainer]:
    """Yield all containers that can be read, by name."""
    for name in names(statedir):
        with contextlib.suppress(ClaudeProxyError):
            yield load(statedir, name)


def save(statedir: Path, stored: StoredContainer) -> None:
    """Write the record of a container, as a whole."""
    write(directory_of(statedir, stored.name), RECORD, json.dumps(asdict(stored)).encode())


def make_directory(path: Path) -> None:
    """Create a directory with all that is above it, for the owner alone."""
    try:
        for directory in (*reversed(path.parents), path):
            directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the container's directory cannot be created: {(error.strerror or '').lower()}",
            where=str(path),
            fix="make room, or name another directory with --statedir",
        ) from error


def write(directory: Path, name: str, content: bytes, mode: int = 0o600) -> Path:
    """Replace a file in the directory of a container as a whole."""
    path = directory / name
    try:
        new = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - the mode is the point
            os.fchmod(file.fileno(), mode)
            file.write(content)
        new.replace(path)
    except OSError as error:
        raise ConfigError(
            f"a file of the container cannot be written: {(error.strerror or '').lower()}",
            where=str(path),
            fix="make room, or name another directory with --statedir",
        ) from error
    return path


def remove(statedir: Path, name: str) -> None:
    """Forget a container."""
    shutil.rmtree(directory_of(statedir, name), ignore_errors=True)
