"""Safe reads of files that an agent may have created: pipes, devices, text that contains NULs."""

import os
import stat
from pathlib import Path

_HEAD_BYTES = 4096


def head_of(path: Path, size: int = _HEAD_BYTES) -> bytes:
    """Return the beginning of a plain file; empty for anything else, because a pipe would block."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor with special flags
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return file.read(size)
    except OSError:
        pass
    return b""


def text_of(path: Path) -> str:
    """Return the beginning of a file, up to the first NUL, which no path can contain."""
    return head_of(path).partition(b"\0")[0].decode("utf-8", "surrogateescape")
