"""Notices shown once: a stamp in the state directory for a notice that need not be repeated.

Fail closed: a notice whose stamp cannot be read or written is shown.
"""

import hashlib
import os
from pathlib import Path

_STAMPS = "notices-shown"
# As many stamps as anybody has lists; what is beyond them is shown each time.
_MOST_BYTES = 64 * 1024


def is_new(statedir: Path, notice: str) -> bool:
    """Return whether `notice` has not been shown yet, and note that it has been now."""
    stamp = hashlib.sha256(notice.encode("utf-8", "surrogateescape")).hexdigest()
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(statedir / _STAMPS, flags, 0o600), "r+b", buffering=0) as file:  # noqa: PTH123 - the mode
            known = file.read(_MOST_BYTES) or b""
            if stamp.encode("ascii") in known.splitlines():
                return False
            if len(known) < _MOST_BYTES:
                file.write(f"{stamp}\n".encode("ascii"))
    except OSError:
        return True
    return True
