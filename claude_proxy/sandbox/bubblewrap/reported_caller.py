"""Thread inside a sandbox whose call was reported: its memory, descriptors, directory and umask.

All of it is a copy, or a duplicate, which the caller cannot change afterwards. The kernel gives ids
of ended processes to new ones, so `confirm` comes after the last reading and before any effect.
"""

import ctypes
import errno
import os
import socket

from claude_proxy.sandbox.bubblewrap.seccomp_notify import Listener, ReportedCall

_SYS_PIDFD_GETFD = 438  # on every architecture
_PIDFD_THREAD = os.O_EXCL  # since Linux 6.9
_ADDRESS_LIMIT = 128  # sizeof(struct sockaddr_storage)
_INT_MAX = 0x7FFF_FFFF

_LIBC = ctypes.CDLL(None, use_errno=True)
_Vector = ctypes.c_size_t * 2  # struct iovec


def refuse_unreadable(process: int) -> None:
    """Raise OSError if this machine keeps descriptors and memory of a process from its owner."""
    pidfd = os.pidfd_open(process)
    try:
        taken = _LIBC.syscall(
            ctypes.c_long(_SYS_PIDFD_GETFD), pidfd, ctypes.c_int(0), ctypes.c_uint(0)
        )
        if taken >= 0:
            os.close(taken)
        elif ctypes.get_errno() != errno.EBADF:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
    finally:
        os.close(pidfd)


class ReportedCaller:
    """The thread that waits for the answer to a call on a socket."""

    def __init__(self, listener: Listener, call: ReportedCall, processes: int) -> None:
        self._listener = listener
        self._call = call
        self._processes = processes  # a descriptor of /proc

    def confirm(self) -> None:
        """Raise OSError if what was read may be another process's."""
        self._listener.refuse_ended(self._call)

    def address(self) -> bytes:
        """Return the socket address, the second and third argument of the call."""
        size = self._call.arguments[2] & 0xFFFF_FFFF
        if size > _ADDRESS_LIMIT:  # or negative
            raise OSError(errno.EINVAL, "size")
        buffer = ctypes.create_string_buffer(_ADDRESS_LIMIT)
        here = _Vector(ctypes.addressof(buffer), size)
        there = _Vector(self._call.arguments[1], size)
        count = _LIBC.process_vm_readv(
            self._call.thread, here, ctypes.c_ulong(1), there, ctypes.c_ulong(1), ctypes.c_ulong(0)
        )
        if size and count != size:
            raise OSError(ctypes.get_errno() if count < 0 else errno.EFAULT, "address")
        return buffer.raw[:size]

    def socket(self) -> socket.socket:
        """Return a duplicate of the socket, the first argument of the call."""
        process = self._process()
        try:
            number = self._call.arguments[0] & 0xFFFF_FFFF
            descriptor = _LIBC.syscall(
                ctypes.c_long(_SYS_PIDFD_GETFD), process, ctypes.c_int(number), ctypes.c_uint(0)
            )
            if descriptor < 0:
                raise OSError(ctypes.get_errno(), "pidfd_getfd")
        finally:
            os.close(process)
        # What kind it is, the kernel is asked later; it is not needed to use the descriptor.
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=descriptor)

    def _process(self) -> int:
        """Return a pidfd by which the thread's descriptors can be duplicated."""
        thread = self._call.thread
        for flags in (_PIDFD_THREAD, 0):  # the second before Linux 6.9, for a first thread
            try:
                return os.pidfd_open(thread, flags)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        return os.pidfd_open(int(self.status()[b"Tgid"]))

    def directory(self) -> int:
        """Return a descriptor of its current directory."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        return os.open(f"{self._call.thread}/cwd", flags, dir_fd=self._processes)

    def directory_path(self) -> str:
        """Return the path of its current directory, which may have been replaced meanwhile."""
        return os.readlink(f"{self._call.thread}/cwd", dir_fd=self._processes)

    def umask(self) -> int:
        """Return its umask."""
        return int(self.status()[b"Umask"], 8)

    def is_interrupted(self) -> bool:
        """Tell whether a signal has come that it does not block."""
        for_thread, for_process = self._signals(self.status())
        return bool(for_thread or for_process)

    def handles_signal_itself(self) -> bool:
        """Tell whether such a signal is certainly its own, and not another thread's."""
        status = self.status()
        for_thread, for_process = self._signals(status)
        return bool(for_thread or (for_process and status[b"Threads"] == b"1"))

    @staticmethod
    def _signals(status: dict[bytes, bytes]) -> tuple[int, int]:
        """Return the signals that it does not block: to the thread, and to its process."""
        for_thread, for_process, blocked = (
            int(status[name], 16) for name in (b"SigPnd", b"ShdPnd", b"SigBlk")
        )
        return for_thread & ~blocked, for_process & ~blocked

    def status(self) -> dict[bytes, bytes]:
        """Return the fields of its /proc/PID/status."""
        name = f"{self._call.thread}/status"
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._processes)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
            lines = file.read().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(b":") for line in lines)}
