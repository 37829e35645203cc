"""Open writers: whether a process holds a file open for writing, as one that is still copying does.

The kernel knows: it gives a read lease (fcntl(2), F_SETLEASE) only while nobody has the file open
for writing. Only Linux has leases, and not on every file system.
"""

import errno
import fcntl
import os
import signal
from pathlib import Path
from typing import Any

_SETLEASE: Any = getattr(fcntl, "F_SETLEASE", None)
_SETSIG: Any = getattr(fcntl, "F_SETSIG", None)


def is_open_for_writing(path: Path) -> bool:
    """Tell whether a process has the file open for writing; False where that cannot be known."""
    if _SETLEASE is None or _SETSIG is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Sent if somebody opens the file meanwhile, and ignored; the default would end the process.
        fcntl.fcntl(descriptor, _SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, _SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)  # which ends the lease
    return False
