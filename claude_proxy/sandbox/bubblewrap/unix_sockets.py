"""Unix sockets of a sandbox: the program that answers the calls which its filter reports.

It makes datagram pairs (`datagram_pairs`). If the sandbox may have Unix sockets of its own, it also
does each connect and bind on the caller's behalf (`socket_calls`). It runs outside, one process for
each run, by its path and with imports that load in milliseconds. Several threads answer, because a
connect can wait for its peer, and others must not wait for it.

Laws kept: fail closed: if it is not there, the calls fail. And until COMMAND starts, the only
caller is bwrap, whose one bind the kernel does; from then on it does none.
"""

import _thread
import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import sys

if not __package__:  # run by its path: add the package's directory, after the standard library
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))  # noqa: PTH100, PTH118, PTH120

from claude_proxy.sandbox.bubblewrap import sandbox_view
from claude_proxy.sandbox.bubblewrap.datagram_pairs import give_pair
from claude_proxy.sandbox.bubblewrap.reported_caller import ReportedCaller, refuse_unreadable
from claude_proxy.sandbox.bubblewrap.seccomp_notify import (
    BIND,
    CONNECT,
    NUMBERS,
    SOCKETPAIR,
    Listener,
    ReportedCall,
)
from claude_proxy.sandbox.bubblewrap.socket_calls import SocketCalls, connect

ENTER, OPEN = b"enter", b"open"  # what the launcher says: "enter PID", "enter PID open"
READY = b"ready"

_NUMBERS = NUMBERS[os.uname().machine]
_BINDS_OF_BWRAP = 4  # one, of its netlink socket, to set up loopback; some room for new versions
_ERESTARTSYS = 512  # EINTR, or the call starts again, as the caller's handler says (SA_RESTART)
_THREADS = 512  # so many connects may wait for their peers; a stack is a few pages
_IDLE_THREADS = 4
_STACK_BYTES = 256 * 1024
_TICK_MS = 200
_FAILED = 70  # EX_SOFTWARE
_MESSAGE_LIMIT = 256


def main(channel: socket.socket, lifeline: int) -> None:
    """Answer calls until the launcher is gone."""
    processes = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    of_host = _mounted(processes)
    preparation = Preparation(processes)
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.register(channel, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if lifeline in ready:
            return
        listener = preparation.listener
        if channel.fileno() in ready:
            message, descriptors = socket.recv_fds(channel, _MESSAGE_LIMIT, 1)[:2]
            if descriptors:
                preparation.listener = Listener(descriptors[0])
                poll.register(descriptors[0], select.POLLIN)
            elif listener is not None and message.startswith(ENTER):
                calls = _entered(channel, message, processes, of_host)
                Answers(listener, calls, processes).give_until(lifeline)
                return
            else:  # the launcher has closed it
                poll.unregister(channel)
        elif listener is not None and listener.descriptor in ready:
            if ready[listener.descriptor] & select.POLLIN:
                preparation.answer_one()
            else:  # no process is left that it filters
                poll.unregister(listener.descriptor)


def _mounted(processes: int) -> frozenset[int]:
    """Return the devices of everything that the host has mounted."""
    mounted = sandbox_view.mounts_of(os.getpid(), processes)
    return frozenset(at.device for at in mounted)


def _entered(
    channel: socket.socket, message: bytes, processes: int, of_host: frozenset[int]
) -> SocketCalls:
    """Enter the view of the sandbox that the launcher names, and say so."""
    words = message.split()
    try:
        of_host |= _mounted(processes)  # and what was mounted since
        view = sandbox_view.enter(int(words[1]), processes, of_host, unfiltered=OPEN in words)
        refuse_unreadable(int(words[1]))
        calls = SocketCalls(view, processes)
    except OSError as error:
        channel.send(f"{error.strerror}: {os.strerror(error.errno or 0)}".encode())
        raise
    channel.send(READY)
    return calls


class Preparation:
    """The calls before COMMAND starts, and all of a sandbox that has datagram pairs only."""

    def __init__(self, processes: int) -> None:
        self.listener: Listener | None = None
        self._processes = processes
        self._let_pass = 0

    def answer_one(self) -> None:
        """Answer one call, unless its process has ended meanwhile."""
        listener = self.listener
        call = listener.receive() if listener is not None else None
        if listener is None or call is None:
            return
        if call.number == _NUMBERS[BIND] and self._let_pass < _BINDS_OF_BWRAP:
            self._let_pass += 1
            listener.let_pass(call)
            return
        if call.number != _NUMBERS[SOCKETPAIR]:
            listener.answer(call, errno.EPERM)
            return
        try:
            give_pair(listener, call, self._processes)
        except OSError as error:
            listener.answer(call, error.errno or errno.EPROTONOSUPPORT)
        else:
            listener.answer(call, 0)


class Answers:
    """The threads that answer the calls of COMMAND and of all that it starts."""

    def __init__(self, listener: Listener, calls: SocketCalls, processes: int) -> None:
        self._listener = listener
        self._calls = calls
        self._processes = processes
        self._lock = _thread.allocate_lock()
        self._threads = 0
        self._idle = 0
        self._waiting: dict[int, ReportedCall] = {}  # by thread: calls that wait for a peer
        self._given_up: set[int] = set()  # cookies of those that wait no longer
        self._dozing = False
        self._alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def give_until(self, lifeline: int) -> None:
        """Answer calls until the other end of the lifeline is closed."""
        _thread.stack_size(_STACK_BYTES)
        # To interrupt a thread that waits for a peer; C's connect(2) is not started again.
        signal.signal(signal.SIGUSR1, lambda *_: None)
        with self._lock:
            for _ in range(_IDLE_THREADS):
                self._start_thread()
        poll = select.poll()
        poll.register(lifeline, select.POLLIN)
        poll.register(self._alarm, select.POLLIN)
        while True:
            self._dozing = True  # first: then a thread that comes to wait sees it, or is seen
            if self._waiting:
                self._dozing = False
            ready = dict(poll.poll(None if self._dozing else _TICK_MS))
            if lifeline in ready:
                os._exit(0)  # without waiting for the threads
            if self._alarm in ready:
                os.eventfd_read(self._alarm)
            waiting = list(self._waiting.items())
            if waiting and not self._idle:  # and no thread could be started: the oldest gives way
                self._given_up.add(waiting[0][1].cookie)
                self._interrupt(*waiting[0])
            for thread, call in waiting:
                if self._is_over(call):
                    self._interrupt(thread, call)

    def _is_over(self, call: ReportedCall) -> bool:
        """Tell whether a caller has ended, or has got a signal that it should see now."""
        try:
            caller = ReportedCaller(self._listener, call, self._processes)
            return caller.is_interrupted() or not self._listener.still_waits(call)
        except OSError:
            return True

    def _interrupt(self, thread: int, call: ReportedCall) -> None:
        """Interrupt the connect that a thread waits in, unless it has just ended."""
        with self._lock:  # a thread that has ended must not be named
            if self._waiting.get(thread) is call:
                signal.pthread_kill(thread, signal.SIGUSR1)

    def _start_thread(self) -> None:
        # The sandbox may have as many processes as it can: then those that there are have to do.
        with contextlib.suppress(RuntimeError):
            _thread.start_new_thread(self._run, ())
            self._threads += 1
            self._idle += 1

    def _run(self) -> None:
        try:
            os.unshare(os.CLONE_FS)  # a current directory and a umask of its own
            while self._answer_next():
                pass
        except BaseException:  # noqa: BLE001 - a caller would wait for ever
            sys.excepthook(*sys.exc_info())
            os._exit(_FAILED)

    def _answer_next(self) -> bool:
        """Answer one call; return whether this thread goes on."""
        try:
            call = self._listener.receive()
        except OSError:
            return False
        if call is None and self._listener.is_over():
            return False  # the kernel would say so again at once, for as long as it is asked
        with self._lock:
            self._idle -= 1
            if not self._idle and self._threads < _THREADS:
                self._start_thread()
        if call is not None:
            self._answer(call)
        with self._lock:
            if self._idle >= _IDLE_THREADS:
                self._threads -= 1
                return False
            self._idle += 1
        return True

    def _answer(self, call: ReportedCall) -> None:
        caller = ReportedCaller(self._listener, call, self._processes)
        try:
            self._do(call, caller)
        except InterruptedError:
            given_up = call.cookie in self._given_up
            self._given_up.discard(call.cookie)
            number = errno.EAGAIN if given_up else _error_of_interrupted(caller)
            self._listener.answer(call, number)
        except OSError as error:
            self._listener.answer(call, error.errno or errno.EPERM)
        else:
            self._listener.answer(call, 0)

    def _do(self, call: ReportedCall, caller: ReportedCaller) -> None:
        if call.number == _NUMBERS[CONNECT]:
            self._calls.connect(caller, lambda sock, address: self._wait(call, sock, address))
        elif call.number == _NUMBERS[BIND]:
            self._calls.bind(caller)
        else:
            give_pair(self._listener, call, self._processes)

    def _wait(self, call: ReportedCall, sock: socket.socket, address: bytes) -> None:
        """Connect, which may wait for the peer."""
        thread = _thread.get_ident()
        if fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK:
            connect(sock, address)
            return
        self._waiting[thread] = call
        try:
            if self._dozing:
                os.eventfd_write(self._alarm, 1)
            connect(sock, address)
        finally:
            with self._lock:
                del self._waiting[thread]


def _error_of_interrupted(caller: ReportedCaller) -> int:
    """Return what a caller gets that has a signal: for the kernel to choose, if it is safe."""
    with contextlib.suppress(OSError):
        if caller.handles_signal_itself():
            return _ERESTARTSYS
    return errno.EINTR


def run(words: list[str]) -> None:
    """Run the program with the words of its command line."""
    main(socket.socket(fileno=int(words[0])), int(words[1]))


if __name__ == "__main__":
    run(sys.argv[1:])
