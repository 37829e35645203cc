"""Process probes: memory, descriptors and variables of other processes; inherited descriptors.

Only processes that the caller names are touched; others that are visible are only counted.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from claude_proxy.doctor.attack.probes.outcome import (
    ABSENT,
    DENIED,
    FILES,
    NAMESPACE,
    Spec,
    Try,
    attempt,
    read,
    stopped,
    through,
)
from claude_proxy.doctor.attack.probes.syscalls import call


def _visible() -> list[int]:
    own = {os.getpid(), os.getppid()}
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in found if pid not in own]


def _outside() -> list[int]:
    """Return the visible processes that are confined differently from this one.

    The first process of a sandbox can be traced from inside. It has the same namespaces and the
    same filter, and no capabilities, so an attacker gains nothing.
    """
    return [pid for pid in _visible() if _confinement_of(pid) != _confinement_of(os.getpid())]


_NAMESPACES = ("user", "net", "pid", "mnt", "ipc", "uts")
_CONFINEMENT = (b"Cap", b"Seccomp", b"NoNewPrivs", b"Uid", b"Gid")


def _confinement_of(pid: int) -> tuple[str, ...]:
    """Return how a process is confined; nothing if that may not be read."""
    try:
        where = [str(Path(f"/proc/{pid}/ns/{name}").readlink()) for name in _NAMESPACES]
    except OSError:
        return ()
    status = read(f"/proc/{pid}/status").splitlines()
    return (*where, *(str(line) for line in status if line.startswith(_CONFINEMENT)))


_PTRACE_SEIZE = 0x4206  # the process continues, and is released when this one ends


def ptrace(spec: Spec) -> Iterator[Try]:
    """Trace the processes outside, read their memory, take their descriptors."""
    for what, pid, born in spec["processes"]:
        if _start_time_of(pid) != born:
            yield stopped(what, NAMESPACE, "not visible")
            continue
        yield attempt(f"seize {what}", partial(_seize, pid), filtered=True)
        yield attempt(f"memory of {what}", partial(_open_memory, pid))
        yield attempt(f"a descriptor of {what}", partial(_take_descriptor, pid), filtered=True)


def _seize(pid: int) -> None:
    call("ptrace", _PTRACE_SEIZE, pid, 0, 0)


def _open_memory(pid: int) -> None:
    os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))


def _take_descriptor(pid: int) -> None:
    handle = call("pidfd_open", pid, 0)
    problem = OSError(errno.EBADF, "no descriptor")
    for number in range(16):
        try:
            os.close(call("pidfd_getfd", handle, number, 0))
        except OSError as found:
            problem = found if found.errno in DENIED | ABSENT else problem
        else:
            return
    raise problem


def kill(spec: Spec) -> Iterator[Try]:
    """Signal the proxy, the relay and other processes outside."""
    for what, pid, start in spec["processes"]:
        yield attempt(f"{what} ({pid})", partial(_signal, pid, start))


def _signal(pid: int, start: str) -> None:
    os.kill(pid, 0)
    # The id may belong to another process here; the start time tells.
    if _start_time_of(pid) not in {start, ""}:
        raise ProcessLookupError(errno.ESRCH, "another process")


def _start_time_of(pid: int) -> str:
    words = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return words[19].decode() if len(words) > 19 else ""  # noqa: PLR2004


def host_processes(spec: Spec) -> Iterator[Try]:
    """Read command lines and environments of processes outside."""
    secrets, pids = _secrets_of(spec), _visible()
    outside = _outside()
    if outside:
        yield through("processes outside", f"{len(outside)} are visible")
    for part in ("cmdline", "environ"):
        what = f"{part} of {len(pids)} visible processes"
        for pid in pids:
            if _holds(read(f"/proc/{pid}/{part}"), secrets):
                yield through(what, f"the canary or the key, in process {pid}")
                break
        else:
            yield stopped(what, NAMESPACE, "neither canary nor key found")


def environment(spec: Spec) -> Iterator[Try]:
    """Look for variables of the launcher that should not have been passed on."""
    for path in ("/proc/self/environ", "/proc/1/environ"):
        what = f"the canary in {path}"
        if _holds(read(path), _secrets_of(spec)):
            yield through(what, "found")
        else:
            yield stopped(what, NAMESPACE, "not found")


def _secrets_of(spec: Spec) -> list[bytes]:
    return [spec["secret"].encode(), spec["key"].encode()]


def _holds(data: bytes, secrets: list[bytes]) -> bool:
    return any(secret in data for secret in secrets)


def descriptors(spec: Spec) -> Iterator[Try]:
    """Use files that the launcher left open, here or in the sandbox's first process."""
    left = [(f"descriptor {number}", target) for number, target in spec["inherited"]]
    for pid in _visible():
        held = _descriptors_of(f"/proc/{pid}/fd")
        # bwrap's processes use an eventfd to report the end of COMMAND.
        left += [(f"descriptor {n} of {pid}", to) for n, to in held if to != _EVENT]
    for what, target in left:
        yield through(what, target)
    if not left:
        yield stopped("descriptors above 2", FILES, "none")


_EVENT = "anon_inode:[eventfd]"


def inherited() -> list[tuple[int, str]]:
    """Return the open descriptors above 2, and their targets."""
    return _descriptors_of("/proc/self/fd")


def _descriptors_of(directory: str) -> list[tuple[int, str]]:
    found = []
    with suppress(OSError):
        for path in list(Path(directory).iterdir()):
            with suppress(FileNotFoundError):  # the descriptor of the listing itself
                if int(path.name) > 2:  # noqa: PLR2004
                    found.append((int(path.name), str(path.readlink())))
    return found
