"""Shortage of file descriptors (EMFILE, ENFILE) as one error, whatever it has made fail.

Any call of a start may be the one that finds no free descriptor, and its own error would blame what
it was about to open. This imports nothing but what is loaded by then: an import needs a descriptor.
"""

import errno
import os

from claude_proxy.errors import ClaudeProxyError

_OF_PROCESS, _OF_MACHINE = errno.EMFILE, errno.ENFILE


def is_shortage(error: OSError) -> bool:
    """Tell whether an error says that no further file can be opened."""
    return error.errno in {_OF_PROCESS, _OF_MACHINE}


def explained(error: Exception) -> ClaudeProxyError | None:
    """Return the error to show for one that a shortage has caused; None if none has."""
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        if isinstance(found, OSError) and is_shortage(found):
            return _error(found.errno)
        seen.add(id(found))
        found = found.__cause__ or found.__context__
    return None


def _error(number: int | None) -> ClaudeProxyError:
    if number == _OF_MACHINE:
        return ClaudeProxyError(
            "too few files may be open: all that this machine may have open at once are in use",
            where="the limit fs.file-max of the kernel",
            fix="end programs, or raise the limit; `ulimit -n` limits each process",
        )
    return ClaudeProxyError(
        "too few files may be open",
        where=f"the limit of this process: {os.sysconf('SC_OPEN_MAX')}",
        fix="raise it in this shell: `ulimit -n 1024`; if that is refused, `ulimit -Hn` is lower",
    )
