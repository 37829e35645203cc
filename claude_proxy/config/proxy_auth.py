"""Password and token files: what clients must present, in a file that only its owner can read.

Secrets stay outside: no message quotes what is in the file. One that others may read is refused, as
a password that everybody knows would only seem to keep them out.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from claude_proxy.config.option_values import parse_client_credentials, parse_token
from claude_proxy.config.settings import ClientCredentials
from claude_proxy.errors import ConfigError

_MOST_BYTES = 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_credentials(path: Path) -> ClientCredentials:
    """Return USER:PASSWORD from the first line of `path`; ConfigError says what is wrong."""
    fix = "write USER:PASSWORD into it, on one line"
    return _read(path, parse_client_credentials, "password file", "--proxy-auth-file", fix)


def read_token(path: Path) -> str:
    """Return the token from the first line of `path`; ConfigError says what is wrong."""
    fix = "write a token of at least 16 letters and digits into it, on one line"
    return _read(path, parse_token, "token file", "--token-file", fix)


def _read[T](path: Path, parse: Callable[[str], T], what: str, option: str, fix: str) -> T:
    try:
        # A pipe that nobody writes to would hold up the start for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - it is open already
            _refuse_shared(path, os.fstat(descriptor), what, option)
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"the {what} cannot be read: {(error.strerror or '').lower()}",
            where=str(path),
            fix=f"name a readable file with {option}",
        ) from error
    try:
        lines = raw.decode("utf-8").splitlines()
        if len(raw) > _MOST_BYTES or len(lines) != 1:
            raise ValueError("it is not a single line")  # noqa: TRY301 - reported as the others are
        return parse(lines[0])
    except ValueError as error:
        fault = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ConfigError(f"the {what} cannot be used: {fault}", where=str(path), fix=fix) from None


def _refuse_shared(path: Path, found: os.stat_result, what: str, option: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(
            f"the {what} is not a regular file",
            where=str(path),
            fix=f"name a file with {option}",
        )
    if found.st_uid not in {0, os.geteuid()}:
        raise ConfigError(
            f"the {what} belongs to another user, who can read it",
            where=str(path),
            fix=f"chown it: sudo chown {os.geteuid()} {path}",
        )
    if found.st_mode & _OTHERS:
        raise ConfigError(
            f"the {what} is not its owner's alone",
            where=f"{path} (mode {stat.S_IMODE(found.st_mode):04o})",
            fix=f"chmod 600 {path}, and choose another secret if others may have read it",
        )
