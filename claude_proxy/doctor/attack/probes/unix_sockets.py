"""Unix socket probes: by path and abstract, with sockets created in every way."""

import ctypes
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from claude_proxy.doctor.attack.probes.outcome import (
    DIRECT_S,
    KERNEL,
    Spec,
    Try,
    refused,
    stopped,
    through,
)
from claude_proxy.doctor.attack.probes.syscalls import HIGH_BIT, call

_WALK_S = 5.0


def _unix_sockets() -> Iterator[tuple[str, Callable[[], socket.socket]]]:
    """Yield the ways to create a Unix socket that could be connected."""
    unix, stream, dgram = socket.AF_UNIX, socket.SOCK_STREAM, socket.SOCK_DGRAM
    yield "socket", lambda: socket.socket(unix, stream)
    yield "datagram socket", lambda: socket.socket(unix, dgram)
    yield "socket with a high bit", lambda: _adopted(call("socket", unix | HIGH_BIT, stream, 0))
    yield "datagram pair", lambda: _one_of_pair(dgram)
    yield "stream pair", lambda: _one_of_pair(stream)
    yield "packet pair", lambda: _one_of_pair(socket.SOCK_SEQPACKET)
    yield "datagram pair with a high bit", lambda: _one_of_raw_pair(dgram | HIGH_BIT)


def _adopted(descriptor: int) -> socket.socket:
    return socket.socket(fileno=descriptor)


def _one_of_pair(kind: int) -> socket.socket:
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    other.close()
    return one


def _one_of_raw_pair(kind: int) -> socket.socket:
    pair = (ctypes.c_int * 2)()
    call("socketpair", socket.AF_UNIX, kind, 0, ctypes.byref(pair))
    os.close(pair[1])
    return _adopted(pair[0])


def _reach_unix(what: str, address: str | bytes) -> Try:
    """Connect to a Unix socket in every way, until one succeeds."""
    last = stopped(what, KERNEL, "not tried")
    for way, make in _unix_sockets():
        try:
            with make() as sock:
                sock.settimeout(DIRECT_S)
                _send_to(sock, address)
                sock.connect(address)
        except OSError as problem:
            # The error of the plain way is the most telling.
            if way == "socket":
                last = refused(what, problem, filtered=True)
            continue
        return through(what, f"connected by a {way}")
    return last


def _send_to(sock: socket.socket, address: str | bytes) -> None:
    """Send past the peer of one end of a pair; a canary that hears it says so itself."""
    with suppress(OSError):
        sock.sendto(b"out", address)


def unix_abstract(spec: Spec) -> Iterator[Try]:
    """Connect to abstract Unix sockets, which are in no file system."""
    for number, name in enumerate(spec["canaries"].get("abstract", []), 1):
        yield _reach_unix(f"canary {number}", b"\0" + name.encode())
    for name in ("/tmp/.X11-unix/X0", "/tmp/dbus-session", "/org/bluez/audio"):  # noqa: S108
        yield _reach_unix(f"@{name}", b"\0" + name.encode())


def unix_paths(spec: Spec) -> Iterator[Try]:
    """Connect to Unix sockets by path: agents, container engines, the session bus, the canary."""
    named = [*spec["canaries"].get("unix", []), *spec["sockets"]]
    found = [path for path in _socket_files() if path not in named]
    for path in [*named, *found]:
        yield _reach_unix(path, path)


# Directories that usually contain sockets come first; some never do.
_FIRST = ("run", "tmp", "var", "home")
_WITHOUT = {"proc", "sys", "usr", "bin", "sbin", "lib", "lib64", "boot"}


def _socket_files() -> Iterator[str]:
    """Yield the socket files that a walk of a few seconds finds."""
    until = time.monotonic() + _WALK_S
    below = {path.name for path in Path("/").iterdir()} - _WITHOUT - set(_FIRST)
    for top in (*_FIRST, *sorted(below)):
        for directory, _, files in os.walk(f"/{top}", followlinks=False):
            yield from filter(_is_socket, (f"{directory}/{name}" for name in files))
            if time.monotonic() > until:
                return


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).lstat().st_mode)
    except OSError:
        return False
