"""Lock of a container's name: of two commands that make or start one at the same time, one wins.

It is a lock of the process (fcntl(2)), so a keeper, which is a fork of the launcher, does not hold
it on, and a launcher that is killed leaves nothing behind. Taken twice in one process, it is one.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.container import store

_LOCKS = ".locks"  # no name of a container begins with a dot
_held: dict[Path, int] = {}  # descriptors by file, in this process


@contextlib.contextmanager
def held(statedir: Path, name: str) -> Iterator[None]:
    """Hold the lock of a name; ClaudeProxyError at once if another process does."""
    path = store.directory_of(statedir, name).parent / _LOCKS / name
    if path in _held:
        yield
        return
    _take(path, name)
    try:
        yield
    finally:
        _release(path)


def _take(path: Path, name: str) -> None:
    """Take the lock of a name."""
    store.make_directory(path.parent)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(
            f"the lock of a container cannot be opened: {(error.strerror or '').lower()}",
            where=str(path),
            fix="remove it, if it is no plain file of yours",
        ) from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ClaudeProxyError(
            f'another command is making or starting the container "{name}" right now',
            where=f"--name {name}",
            fix="wait until it has started, then see `claude-proxy container list`; "
            "or use another --name",
        ) from error
    _held[path] = descriptor


def release(statedir: Path, name: str) -> None:
    """Give the lock back before `held` ends, once the container has started."""
    _release(store.directory_of(statedir, name).parent / _LOCKS / name)


def _release(path: Path) -> None:
    if (descriptor := _held.pop(path, None)) is not None:
        os.close(descriptor)
