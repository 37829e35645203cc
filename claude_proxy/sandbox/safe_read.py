"""Reads how files begin that an agent may have made: a pipe, a device, a text with NULs in it."""

import os
import stat
from pathlib import Path

_HEAD_BYTES = 4096


def head_of(path: Path, size: int = _HEAD_BYTES) -> bytes:
    """Return how a plain file begins; nothing of anything else, as a pipe would wait for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor with flags of its own
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return file.read(size)
    except OSError:
        pass
    return b""


def text_of(path: Path) -> str:
    """Return how a file begins, up to the first NUL, which no path can hold."""
    return head_of(path).partition(b"\0")[0].decode("utf-8", "surrogateescape")
