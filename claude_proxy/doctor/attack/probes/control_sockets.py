"""Control socket probes: the sockets by which the owner of a proxy changes what it allows.

A program that reaches one can ask for `status`, and is through: it could as well open
everything.
"""

import errno
import os
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from claude_proxy.doctor.attack.probes.outcome import (
    DIRECT_S,
    FILES,
    STOPPED,
    Spec,
    Try,
    attempt,
    refused,
    through,
)

_QUESTION = b'{"op":"status"}\n'
_MOST_PROCESSES = 64
_PLACED = "claude-proxy-doctor"


def control_sockets(spec: Spec) -> Iterator[Try]:
    """Find the directories of control sockets, and ask the proxies behind the sockets."""
    directories, sockets = spec["control"]["directories"], spec["control"]["sockets"]
    for directory, identity in directories.items():
        what = f"a list of {directory}"
        yield attempt(what, partial(_listed, directory, identity), denied=FILES)
        what = f"a proxy of its own in {directory}"
        yield attempt(what, partial(_placed_in, directory, identity), denied=FILES)
    for path in sockets:
        yield _asked(path, path)
    # A process has its root and its working directory below /proc, whatever is mounted there.
    for what, pid, _ in spec["processes"]:
        for path in sockets:
            yield _asked(f"by the root of {what}: {path}", f"/proc/{pid}/root{path}")
    for pid in _visible_processes():
        for path in sockets:
            found = _asked(f"by the root of process {pid}: {path}", f"/proc/{pid}/root{path}")
            if found.outcome != STOPPED:
                yield found


def _visible_processes() -> list[str]:
    names = [path.name for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return names[:_MOST_PROCESSES]


def _asked(what: str, path: str) -> Try:
    """Ask a proxy for its status; by a descriptor of the directory, as a path may be too long."""
    try:
        directory = os.open(Path(path).parent, os.O_PATH | os.O_DIRECTORY)
    except OSError as problem:
        return refused(what, problem, denied=FILES)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(DIRECT_S)
            sock.connect(f"/proc/self/fd/{directory}/{Path(path).name}")
            sock.sendall(_QUESTION)
            answer = sock.recv(4096)
    except TimeoutError:
        return through(what, "connected, and nobody answered")
    except OSError as problem:
        return refused(what, problem, filtered=True, denied=FILES)
    finally:
        os.close(directory)
    return through(what, answer[:40].decode("ascii", "replace"))


def _listed(directory: str, identity: list[int]) -> int:
    """Count what is in a directory; OSError if it is not there."""
    found = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _refuse_another(found, identity)
        return len(os.listdir(found))  # noqa: PTH208 - by descriptor
    finally:
        os.close(found)


def _placed_in(directory: str, identity: list[int]) -> None:
    """Put a directory where the owner's commands look for proxies, and take it away again."""
    found = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        _refuse_another(found, identity)
        os.mkdir(_PLACED, dir_fd=found)
        os.rmdir(_PLACED, dir_fd=found)
    finally:
        os.close(found)


def _refuse_another(found: int, identity: list[int]) -> None:
    """Raise OSError for a directory of the same path that is the sandbox's own."""
    seen = os.fstat(found)
    if [seen.st_dev, seen.st_ino] != identity:
        raise FileNotFoundError(errno.ENOENT, "another directory")
