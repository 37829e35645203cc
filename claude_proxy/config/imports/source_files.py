"""Files of other programs that are imported, and those that they name in turn.

Fail closed: only plain files are read, and no more of them than fits; what is missing is an error.
Where the paths are those of another machine, `root` is the directory that holds a copy of it.
"""

import os
import stat
import sys
from pathlib import Path

from claude_proxy.config.strict_yaml.file_text import decode
from claude_proxy.config.strict_yaml.nodes import quoted
from claude_proxy.errors import ConfigError
from claude_proxy.policy.location import Location

MAX_BYTES = 8 * 1024 * 1024  # some two hundred thousand hosts
STANDARD_INPUT = "-"
_MOST_MATCHES = 256


def read(file: Path, what: str) -> str:
    """Return the text of the file that is imported; "-" is standard input."""
    if str(file) == STANDARD_INPUT:
        return _decoded(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input")
    return _read(file, what, where=str(file), fix="name a readable file")


class SourceFiles:
    """The files that an imported file names."""

    def __init__(self, file: Path, root: Path | None) -> None:
        self._base = file.parent
        self._root = root

    def names(self, pattern: str, source: Location) -> list[str]:
        """Return the files that a path means, in order; ConfigError if there is none."""
        path = self._path(pattern)
        if not any(char in pattern for char in "*?["):
            return [str(path)]
        found = sorted(map(str, path.parent.glob(path.name)))
        if not found:
            return []  # squid goes on as well
        if len(found) > _MOST_MATCHES:
            what = f"{quoted(pattern)} means more than {_MOST_MATCHES} files"
            raise ConfigError(what, where=str(source), fix="import fewer at a time")
        return found

    def text(self, name: str, source: Location) -> str:
        """Return a file's text; ConfigError says why it cannot be read."""
        fix = "make it readable, or name the directory that its path is relative to with --root"
        return _read(Path(name), f"file {quoted(name)}", where=str(source), fix=fix)

    def _path(self, text: str) -> Path:
        if self._root is not None:
            return self._root / text.lstrip("/")
        return self._base / text


def _read(path: Path, what: str, *, where: str, fix: str) -> str:
    try:
        # Without waiting for a writer, where it is a pipe.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        with open(os.open(path, flags), "rb") as opened:  # noqa: PTH123 - of a descriptor
            mode = os.fstat(opened.fileno()).st_mode
            if not stat.S_ISREG(mode) and not str(path).startswith(("/dev/fd/", "/proc/self/fd/")):
                raise ConfigError(f"the {what} is not a plain file", where=where, fix=fix)
            os.set_blocking(opened.fileno(), True)
            raw = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or "its name is not one").lower()
        raise ConfigError(f"the {what} cannot be read: {reason}", where=where, fix=fix) from error
    return _decoded(raw, str(path))


def _decoded(raw: bytes, name: str) -> str:
    if len(raw) > MAX_BYTES:
        what = f"the file is larger than {MAX_BYTES // 1024 // 1024} MiB"
        raise ConfigError(what, where=name, fix="is it the right file?")
    return decode(raw, name)
