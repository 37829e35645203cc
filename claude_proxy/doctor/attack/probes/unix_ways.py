"""Unix socket probes past a judge of paths: links, races, messages, sockets that change hands.

A sandbox may have Unix sockets of its own, so something judges each path. Every way here leads to
the same canary, or makes a socket where programs outside would find it.
"""

import ctypes
import os
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from claude_proxy.doctor.attack.probes.outcome import (
    DIRECT_S,
    FILES,
    KERNEL,
    Spec,
    Try,
    attempt,
    refused,
    stopped,
    through,
)

RACE_S = 0.5
_SWITCH_S = 1e-5  # between threads
_PATH_LIMIT = 107
_KINDS = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
_FAMILY = struct.pack("=H", socket.AF_UNIX)

type Paths = Iterator[tuple[str, str]]


def unix_ways(spec: Spec) -> Iterator[Try]:
    """Connect to each canary by every kind of path and in races; bind beside it."""
    targets = [path for path in spec["canaries"].get("unix", []) if Path(path).is_socket()]
    if not targets:
        yield stopped("canaries", FILES, "none of them is visible")
    for target in targets:
        with tempfile.TemporaryDirectory(dir="/tmp") as own:
            yield from _by_path(target, own)
            yield from _by_message(target)
            yield _in_race("a name that changes", _changing_links(target, own))
            yield _in_race("memory that changes", _changing_memory(target, own))
            yield _in_race("a descriptor that changes", _changing_descriptor(target))
            yield _by_another_process(target)
            yield from _binds(target, own)


def _by_path(target: str, own: str) -> Iterator[Try]:
    directory, name = os.path.split(target)
    for what, path in _paths(target, own):
        with _in(directory if path.startswith((".", name)) or "/cwd/" in path else own):
            yield _connect(what, path)


def _paths(target: str, own: str) -> Paths:
    """Yield every kind of path to one socket."""
    directory, name = os.path.split(target)
    yield "its path", target
    yield "a relative path", name
    yield "a path by way of its directory", f"./../{Path(directory).name}/{name}"
    yield "a long path", "./" * ((_PATH_LIMIT - len(name)) // 2) + name
    Path(own, "link").symlink_to(target)
    Path(own, "directory").symlink_to(directory)
    yield "a link", f"{own}/link"
    yield "a link to its directory", f"{own}/directory/{name}"
    with suppress(OSError):
        os.link(target, f"{own}/second")
        yield "a second name", f"{own}/second"
    for process in (str(os.getpid()), "self", "thread-self", "1"):
        yield f"/proc/{process}/root", f"/proc/{process}/root{target}"
        yield f"/proc/{process}/cwd", f"/proc/{process}/cwd/{name}"
    with suppress(OSError):
        held, below = os.open(target, os.O_PATH), os.open(directory, os.O_PATH)
        for process in (str(os.getpid()), "self"):
            yield f"a descriptor of it, by /proc/{process}", f"/proc/{process}/fd/{held}"
            yield f"its directory's, by /proc/{process}", f"/proc/{process}/fd/{below}/{name}"
        yield "/dev/fd", f"/dev/fd/{held}"
        os.close(held)
        os.close(below)


def _connect(what: str, path: str) -> Try:
    last = stopped(what, KERNEL, "not tried")
    for kind in _KINDS:
        try:
            with socket.socket(socket.AF_UNIX, kind) as sock:
                sock.settimeout(DIRECT_S)
                sock.connect(path)
        except OSError as problem:
            if kind == socket.SOCK_STREAM:
                last = refused(what, problem, filtered=True)
        else:
            return through(what, "connected")
    return last


def _by_message(target: str) -> Iterator[Try]:
    """Send with an address, on sockets that are connected and on those that are not."""
    for kind in _KINDS:
        for pair in (False, True):
            what = f"a message with an address ({kind.name}{', of a pair' if pair else ''})"
            try:
                if pair:
                    one, other = socket.socketpair(socket.AF_UNIX, kind)
                    other.close()
                else:
                    one = socket.socket(socket.AF_UNIX, kind)
                with one:
                    one.sendmsg([b"out"], [], 0, target)
            except OSError as problem:
                yield refused(what, problem, filtered=True)
            else:
                yield through(what, "sent")


def _in_race(what: str, rounds: Generator[bool]) -> Try:
    """Go on with a race for a while, until it is won once."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    until = time.monotonic() + RACE_S
    tried = 0
    try:
        for won in rounds:
            tried += 1
            if won:
                return through(what, f"connected in round {tried}")
            if time.monotonic() > until:
                break
    except OSError as problem:
        return refused(what, problem, filtered=True)
    finally:
        rounds.close()
        sys.setswitchinterval(before)
    return stopped(what, KERNEL, f"lost {tried} rounds")


@contextmanager
def _meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Repeat an act in a thread."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.is_set():
            act()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _listener(path: str) -> socket.socket:
    """Return a socket of the sandbox's own, which a connect may reach."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    return listener


def _is_at(sock: socket.socket, target: str) -> bool:
    with suppress(OSError):
        return bool(sock.getpeername() == target)
    return False


def _changing_links(target: str, own: str) -> Generator[bool]:
    """Connect by a link that leads to the sandbox's own directory and to the canary's in turn."""
    directory, name = os.path.split(target)
    one, other, third = (f"{own}/{word}" for word in ("one", "other", "third"))
    Path(f"{own}/mine").mkdir()
    Path(one).symlink_to(f"{own}/mine")
    Path(other).symlink_to(directory)

    def swap() -> None:
        for old, new in ((one, third), (other, one), (third, other)):
            Path(old).rename(new)

    with _listener(f"{own}/mine/{name}"), _meanwhile(swap):
        while True:
            yield _tried_once(lambda sock: sock.connect(f"{one}/{name}"), target)


def _changing_memory(target: str, own: str) -> Generator[bool]:
    """Connect to an address that another thread writes meanwhile."""
    mine = f"{own}/m"
    addresses = [(_FAMILY + path.encode()).ljust(110, b"\0") for path in (mine, target)]
    memory = ctypes.create_string_buffer(110)

    def write() -> None:
        for address in addresses:
            memory.raw = address

    with _listener(mine), _meanwhile(write):
        while True:
            yield _tried_once(lambda sock: _raw_connect(sock.fileno(), memory), target)


def _changing_descriptor(target: str) -> Generator[bool]:
    """Connect a descriptor that is a socket of the network and a Unix socket in turn."""
    address = ctypes.create_string_buffer((_FAMILY + target.encode()).ljust(110, b"\0"), 110)
    with socket.socket() as network:
        number = os.dup(network.fileno())

        def replace() -> None:
            with socket.socket(socket.AF_UNIX) as unix:
                os.dup2(unix.fileno(), number)
            os.dup2(network.fileno(), number)

        try:
            with _meanwhile(replace):
                while True:
                    yield _raw_connect(number, address) == 0
        finally:
            os.close(number)


def _tried_once(connect: Callable[[socket.socket], object], target: str) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        with suppress(OSError):
            connect(sock)
        return _is_at(sock, target)


def _raw_connect(number: int, address: "ctypes.Array[ctypes.c_char]") -> int:
    # Without Python's lock, so that the other thread goes on.
    return int(ctypes.CDLL(None).connect(number, address, len(address)))


def _by_another_process(target: str) -> Try:
    """Connect in a process that was given the socket."""
    what = "a socket that another process gave"
    try:
        ours, theirs = socket.socketpair()
        with ours, theirs, socket.socket(socket.AF_UNIX) as sock:
            socket.send_fds(ours, [b"x"], [sock.fileno()])
            child = os.fork()
            if not child:
                os._exit(_connected(theirs, target))
            reached = os.waitpid(child, 0)[1] == 0
            return through(what, "connected") if reached else stopped(what, KERNEL, "refused")
    except OSError as problem:
        return refused(what, problem, filtered=True)


def _connected(channel: socket.socket, target: str) -> int:
    """Connect a socket that comes by a channel; return the exit code that says whether."""
    try:
        with socket.socket(fileno=socket.recv_fds(channel, 1, 1)[1][0]) as sock:
            sock.connect(target)
    except OSError:
        return 1
    return 0


def _binds(target: str, own: str) -> Iterator[Try]:
    """Make a socket beside the canary, where programs outside would connect to it."""
    directory = os.path.dirname(target)  # noqa: PTH120 - beside the others
    name = f"bound-{os.getpid()}"
    ways = {
        "bind": f"{directory}/{name}",
        "bind, relative": name,
        "bind by a link": f"{own}/directory/{name}",
        "bind by /proc/PID/root": f"/proc/{os.getpid()}/root{directory}/{name}",
        "bind by /proc/PID/cwd": f"/proc/{os.getpid()}/cwd/{name}",
    }
    for what, path in ways.items():
        with _in(directory):
            yield attempt(what, partial(_bind, path), filtered=True)
        with suppress(OSError):
            Path(directory, name).unlink()


def _bind(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


@contextmanager
def _in(directory: str) -> Iterator[None]:
    before = os.open(".", os.O_PATH)
    os.chdir(directory)
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)
