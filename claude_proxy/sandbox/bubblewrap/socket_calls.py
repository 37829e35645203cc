"""connect and bind of a sandbox, judged and then done on the caller's behalf.

The address is copied and the socket is duplicated before either is looked at, so nothing that the
caller or another thread changes meanwhile has any effect. A Unix socket may be connected and bound
in file systems that exist for the sandbox alone, and by abstract names if the sandbox has a network
of its own; all else is the host's. Other sockets reach what their network namespace reaches.

Law kept: fail closed: what is unclear is refused.
"""

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable

from claude_proxy.sandbox.bubblewrap.reported_caller import ReportedCaller
from claude_proxy.sandbox.bubblewrap.sandbox_view import SO_NETNS_COOKIE, SandboxView

type Connect = Callable[[socket.socket, bytes], None]

_SYS_OPENAT2 = 437  # on every architecture
_RESOLVE_NO_MAGICLINKS = 0x2
_AT_FDCWD = -100
_FAMILY = struct.Struct("=H")
_UNIX_LIMIT = 110  # sizeof(struct sockaddr_un)
_NETWORK = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK})
_KINDS = frozenset({socket.SOCK_STREAM, socket.SOCK_SEQPACKET})

_LIBC = ctypes.CDLL(None, use_errno=True)


class SocketCalls:
    """The calls of one sandbox, done in the view of it.

    Each thread that uses it must have a current directory and a umask of its own.
    """

    def __init__(self, view: SandboxView, processes: int) -> None:
        self._view = view
        # The descriptors of this process. In the view there is no /proc to name them by.
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        self._descriptors = os.open(f"{os.getpid()}/fd", flags, dir_fd=processes)

    def connect(self, caller: ReportedCaller, connect: Connect) -> None:
        """Judge a connect, and do it by `connect`; OSError with the number that the caller gets."""
        address = caller.address()
        with caller.socket() as sock:
            path = self._judged(sock, address)
            if path is None:
                caller.confirm()
                connect(sock, address)
            else:
                self._connect_file(sock, path, caller, connect)

    def bind(self, caller: ReportedCaller) -> None:
        """Judge a bind, and do it; OSError with the number that the caller gets."""
        address = caller.address()
        with caller.socket() as sock:
            path = self._judged(sock, address)
            if path is None:
                caller.confirm()
                _call(_LIBC.bind, sock, address)
            else:
                self._bind_file(sock, address, path, caller)

    def _judged(self, sock: socket.socket, address: bytes) -> bytes | None:
        """Return the path that a Unix socket is to be used with; None: the call may be done."""
        self._refuse_other_network(sock)
        family = sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
        if family in _NETWORK:
            return None
        if family != socket.AF_UNIX:
            raise OSError(errno.EPERM, "a socket of another family")
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) not in _KINDS:
            raise OSError(errno.EPERM, "a datagram socket sends where it likes later")
        if not _FAMILY.size <= len(address) <= _UNIX_LIMIT:
            raise OSError(errno.EINVAL, "size")
        if _FAMILY.unpack_from(address)[0] != socket.AF_UNIX:
            raise OSError(errno.EINVAL, "family")
        path = address[_FAMILY.size :].partition(b"\0")[0]
        if path:
            return path
        if self._view.network is None:
            raise OSError(errno.EACCES, "an abstract name would be the host's")
        return None

    def _refuse_other_network(self, sock: socket.socket) -> None:
        """Refuse a socket that was not created inside; abstract names are its network's."""
        if self._view.network is None:
            return
        cookie = sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        if int.from_bytes(cookie, sys.byteorder) != self._view.network:
            raise OSError(errno.EPERM, "a socket of another network")

    def _connect_file(
        self, sock: socket.socket, path: bytes, caller: ReportedCaller, connect: Connect
    ) -> None:
        """Connect to the very file that was judged."""
        found = _resolved(path, caller)
        try:
            if os.fstat(found).st_dev not in self._view.devices:
                raise OSError(errno.EACCES, "a file of the host")
            caller.confirm()
            os.fchdir(self._descriptors)
            connect(sock, _FAMILY.pack(socket.AF_UNIX) + b"%d\0" % found)
        finally:
            os.close(found)

    @staticmethod
    def _bind_file(
        sock: socket.socket, address: bytes, path: bytes, caller: ReportedCaller
    ) -> None:
        """Bind where the view lets files be created, by the name that the caller gave.

        Another name of the same file would be what getsockname(2) returns from now on.
        """
        if not path.startswith(b"/"):
            _change_directory(caller)
        os.umask(caller.umask())
        caller.confirm()
        _call(_LIBC.bind, sock, address)


def _resolved(path: bytes, caller: ReportedCaller) -> int:
    """Return a descriptor of what a path leads to for the caller."""
    start = _AT_FDCWD if path.startswith(b"/") else caller.directory()
    try:
        # struct open_how: flags, mode, resolve
        how = struct.pack("<3Q", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_MAGICLINKS)
        found = _LIBC.syscall(
            ctypes.c_long(_SYS_OPENAT2), start, path, how, ctypes.c_size_t(len(how))
        )
        if found < 0:
            raise OSError(ctypes.get_errno(), "path")
        return int(found)
    finally:
        if start != _AT_FDCWD:
            os.close(start)


def _change_directory(caller: ReportedCaller) -> None:
    """Go to the directory, in the view, that is the caller's current one."""
    os.chdir(caller.directory_path())
    theirs = caller.directory()
    try:
        if not os.path.samestat(os.stat("."), os.fstat(theirs)):  # noqa: PTH116 - quick
            raise OSError(errno.EACCES, "another directory")
    finally:
        os.close(theirs)


def connect(sock: socket.socket, address: bytes) -> None:
    """Connect a socket, which may wait for the peer; OSError also if a signal interrupts it."""
    _call(_LIBC.connect, sock, address)


def _call(function: object, sock: socket.socket, address: bytes) -> None:
    if function(sock.fileno(), address, ctypes.c_uint(len(address))) < 0:  # type: ignore[operator]
        raise OSError(ctypes.get_errno(), "call")
