"""Outcome of one try: stopped and by what, or through."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

type Spec = dict[str, Any]
STOPPED = "stopped"
THROUGH = "through"
# What can stop an attack.
NAMESPACE = "namespace"
SECCOMP = "seccomp"
CAPABILITY = "capabilities"
FILES = "file system"
KERNEL = "kernel"  # it lacks the feature, or denies it to every process
TERMINAL = "terminal"
POLICY = "policy"
DIRECT_S = 1.5
PROXY_S = 15.0
DOCUMENTATION = ("192.0.2.1", "198.51.100.1", "203.0.113.1")
DOCUMENTATION_6 = "2001:db8::1"


class Try(NamedTuple):
    """One try and its outcome."""

    what: str
    outcome: str
    by: str
    saw: str


def stopped(what: str, by: str, saw: str) -> Try:
    """Return a try that something stopped."""
    return Try(what, STOPPED, by, saw)


def through(what: str, saw: str) -> Try:
    """Return a try that nothing stopped."""
    return Try(what, THROUGH, "", saw)


def is_filtered() -> bool:
    """Tell whether a system call filter is in force here."""
    return b"Seccomp:\t2\n" in read("/proc/self/status")


ABSENT = {errno.ENOSYS, errno.EAFNOSUPPORT, errno.ENODEV, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT}
DENIED = {errno.EPERM, errno.EACCES}
_NOWHERE = {
    errno.ENETUNREACH,
    errno.EADDRNOTAVAIL,
    errno.ECONNREFUSED,
    errno.ESRCH,
    errno.ENETDOWN,
}
# Errors of the probe itself, which are not denials.
_BROKEN = {
    *(errno.EBADF, errno.EFAULT, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.ENOTSOCK, errno.E2BIG, errno.EIO),
}
_NO_FILE = {errno.ENOENT, errno.EROFS, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}


def refused(
    what: str, problem: OSError, *, filtered: bool = False, denied: str = CAPABILITY
) -> Try:
    """Return a try that ended with an error.

    `filtered`: the system call filter should deny it. `denied`: what denies it otherwise.
    """
    code = problem.errno or 0
    saw = errno.errorcode.get(code, str(code))
    if code in _BROKEN:
        raise RuntimeError(f"{what}: {saw}") from problem
    if filtered and code in DENIED | ABSENT and is_filtered():
        return stopped(what, SECCOMP, saw)
    if code in _NOWHERE:
        return stopped(what, NAMESPACE, saw)
    if code in _NO_FILE:
        return stopped(what, FILES, saw)
    if code in DENIED:
        return stopped(what, denied, saw)
    return stopped(what, KERNEL, saw)


def attempt(
    what: str, act: Callable[[], Any], *, filtered: bool = False, denied: str = CAPABILITY
) -> Try:
    """Try something that must fail; show its result if it does not."""
    try:
        result = act()
    except TimeoutError:
        return through(what, "nothing stopped it, and nobody answered")
    except OSError as problem:
        return refused(what, problem, filtered=filtered, denied=denied)
    return through(what, "" if result is None else str(result)[:60])


def in_child(what: str, act: Callable[[], Any]) -> Try:
    """Try something that may kill the process."""
    child = os.fork()
    if child == 0:
        code = 255
        try:
            act()
            code = 0
        except OSError as problem:
            code = min(problem.errno or 254, 254)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        by = SECCOMP if number == signal.SIGSYS else KERNEL
        return stopped(what, by, signal.Signals(number).name)
    code = os.WEXITSTATUS(status)
    if code == 0:
        return through(what, "it succeeded")
    if code == 255:  # noqa: PLR2004 - what is neither an error number nor success
        raise RuntimeError(what)
    return refused(what, OSError(code, what), filtered=True)


def read(path: str) -> bytes:
    """Return the contents of a file; nothing if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""


def open_to_write(path: str) -> None:
    """Open a file for writing, and close it without writing."""
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK))
