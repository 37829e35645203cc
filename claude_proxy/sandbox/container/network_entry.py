"""Entry into a closed network: a program that starts another one in namespaces of its own.

Laws kept: fail closed. The network has only loopback, and the program that follows starts after
the launcher has made its listening sockets there, or never. Nothing is left behind: all that the
program starts is in its process namespace, which ends with the launcher, however that ends; and so
do its mounts.

Started with a bare interpreter (`own_programs`), so it imports next to nothing.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Sequence

GO = b"go\n"

_PR_SET_PDEATHSIG = 1
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914  # netdevice(7)
_IFF_UP = 1
_MS_NOSUID_NODEV_NOEXEC, _MS_REC, _MS_SLAVE = 2 | 4 | 8, 0x4000, 0x8_0000  # mount(2)
_CANNOT_RUN = 126  # the exit code of shells
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(words: Sequence[str]) -> int:
    """Run the program in `words[1:]` once the launcher, at the socket `words[0]`, says so."""
    place, *program = words
    _end_with_parent(os.getppid())
    os.unshare(os.CLONE_NEWNET | os.CLONE_NEWNS | os.CLONE_NEWPID)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(theirs)
        os._exit(_as_first_process(ours, place, program))
    os.close(ours)
    return _code_of(child)


def _as_first_process(alive: int, place: str, program: Sequence[str]) -> int:
    """Prepare the namespaces and become the program; the exit code if that cannot be done."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if _is_closed(alive):  # the parent had ended before
        return _CANNOT_RUN
    os.close(alive)
    _mount(b"none", b"/", None, _MS_REC | _MS_SLAVE)
    _mount(b"proc", b"/proc", b"proc", _MS_NOSUID_NODEV_NOEXEC)
    _raise_loopback()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.connect(place)
        channel.sendall(b"ready\n")
        if channel.recv(len(GO)) != GO:
            return _CANNOT_RUN
    try:
        os.execvp(program[0], list(program))  # noqa: S606 - the words of the launcher
    except OSError as error:
        os.write(2, f"{program[0]}: {(error.strerror or '').lower()}\n".encode())
        return _CANNOT_RUN


def _is_closed(descriptor: int) -> bool:
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        return not os.read(descriptor, 1)
    return False


def _code_of(child: int) -> int:
    for number in _FORWARDED:
        signal.signal(number, lambda received, _: os.kill(child, received))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _end_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it had ended before
        os.kill(os.getpid(), signal.SIGKILL)


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(source, target, kind, ctypes.c_ulong(flags), None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target.decode())


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        _, flags = struct.unpack("16sH14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
