"""The .env file of the directory that the proxy is started in, if there is one.

Law: the sandbox cannot move its own wall. A file that others may write is refused, as it decides
where the key goes. A file that others may only read is read and marked as shared, for a warning.
"""

import os
import stat
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.system import file_permissions
from claude_proxy.vault import dotenv

NAME = ".env"
_READABLE = stat.S_IRGRP | stat.S_IROTH


@dataclass(frozen=True, slots=True)
class DotenvFile:
    """The variables of one file, and whether others may read it."""

    path: Path
    variables: dotenv.Dotenv
    shared: bool  # others may read it

    def value(self, variable: str) -> str | None:
        """Return what a variable is set to, None if it is not; ConfigError if it is ambiguous."""
        return self.variables.value(variable)


def read(path: Path) -> DotenvFile | None:
    """Return what the file says, None if there is none; ConfigError if it cannot be trusted."""
    try:
        # Opening a pipe without a writer would block the start for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError as error:
        if path.is_symlink():  # a dangling link is a mistake, not an absent file
            raise _unreadable(path, error) from error
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):  # some name the directory of a virtual environment so
            return None
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(
                "the file is not a regular file",
                where=str(path),
                fix="replace it with a plain file",
            )
        file_permissions.refuse_writable(path, found, "where the key goes")
        raw = _bytes_of(descriptor)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)
    file_permissions.refuse_replaceable(path, "where the key goes")
    return DotenvFile(path, dotenv.parse(raw, str(path)), bool(found.st_mode & _READABLE))


def _bytes_of(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(dotenv.MAX_BYTES + 1)


def _unreadable(path: Path, error: OSError) -> ConfigError:
    reason = (error.strerror or type(error).__name__).lower()
    return ConfigError(
        f"the file cannot be read: {reason}",
        where=str(path),
        fix="make it readable for the user who runs claude-proxy, or start in another directory",
    )
