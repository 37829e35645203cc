"""What is read of a caller is a copy, and only counts while the caller waits."""

import ctypes
import errno
import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from claude_proxy.sandbox.bubblewrap.reported_caller import ReportedCaller, refuse_unreadable
from claude_proxy.sandbox.bubblewrap.seccomp_notify import Listener, ReportedCall


class AlwaysWaiting(Listener):
    """A listener whose callers wait, or have ended."""

    def __init__(self, *, waiting: bool = True) -> None:
        super().__init__(-1)
        self._waiting = waiting

    def still_waits(self, call: ReportedCall) -> bool:  # noqa: ARG002 - of the class
        return self._waiting


def a_call(*arguments: int, thread: int | None = None) -> ReportedCall:
    call = ReportedCall(bytes(80))
    call.thread = threading.get_native_id() if thread is None else thread
    call.arguments = (*arguments, *[0] * 6)[:6]
    return call


@pytest.fixture
def processes() -> Iterator[int]:
    """A descriptor of /proc."""
    descriptor = os.open("/proc", os.O_PATH)
    yield descriptor
    os.close(descriptor)


def caller(call: ReportedCall, processes: int, *, waiting: bool = True) -> ReportedCaller:
    return ReportedCaller(AlwaysWaiting(waiting=waiting), call, processes)


def test_an_address_is_copied(processes: int) -> None:
    memory = ctypes.create_string_buffer(b"an address", 20)

    copied = caller(a_call(3, ctypes.addressof(memory), 10), processes).address()
    memory.raw = b"another".ljust(20)

    assert copied == b"an address"


@pytest.mark.parametrize(
    ("address", "size", "error"),
    [(0, 4, errno.EFAULT), (2**63, 4, errno.EFAULT), (1, 129, errno.EINVAL), (1, -1, errno.EINVAL)],
)
def test_an_address_that_cannot_be_copied_is_an_error(
    processes: int, address: int, size: int, error: int
) -> None:
    with pytest.raises(OSError, match=r".") as raised:
        caller(a_call(3, address, size & 0xFFFF_FFFF), processes).address()

    assert raised.value.errno == error


def test_an_empty_address_is_empty_wherever_it_is(processes: int) -> None:
    assert caller(a_call(3, 0, 0), processes).address() == b""


def test_a_socket_is_duplicated(processes: int) -> None:
    one, other = socket.socketpair()
    with one, other, caller(a_call(one.fileno()), processes).socket() as duplicate:
        other.send(b"hello")

        assert duplicate.recv(9) == b"hello"
        assert duplicate.fileno() != one.fileno()


def test_a_thread_other_than_the_first_is_asked_as_well(processes: int) -> None:
    found: list[bytes] = []
    one, other = socket.socketpair()

    def act() -> None:
        with caller(a_call(one.fileno()), processes).socket() as duplicate:
            other.send(b"hello")
            found.append(duplicate.recv(9))

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    one.close()
    other.close()

    assert found == [b"hello"]


def test_the_directory_and_the_umask_are_the_callers(processes: int) -> None:
    asked = caller(a_call(), processes)
    mask = os.umask(0o27)
    try:
        assert asked.umask() == 0o27
    finally:
        os.umask(mask)
    directory = asked.directory()
    try:
        assert os.path.samestat(os.fstat(directory), os.stat("."))  # noqa: PTH116 - of a descriptor
    finally:
        os.close(directory)
    assert asked.directory_path() == os.getcwd()  # noqa: PTH109 - the same function as there


def test_a_caller_that_waits_without_a_signal_is_not_interrupted(processes: int) -> None:
    assert not caller(a_call(), processes).is_interrupted()


def test_the_signal_of_a_thread_is_its_own(processes: int) -> None:
    found: list[tuple[bool, bool]] = []
    blocked = threading.Event()
    sent = threading.Event()

    def act() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        blocked.set()
        sent.wait()
        asked = caller(a_call(), processes)
        found.append((asked.is_interrupted(), asked.handles_signal_itself()))
        signal.sigwait({signal.SIGUSR1})

    thread = threading.Thread(target=act)
    thread.start()
    blocked.wait()
    signal.pthread_kill(thread.ident or 0, signal.SIGUSR1)
    asked = caller(a_call(thread=thread.native_id), processes)
    fields = asked.status()
    sent.set()
    thread.join()

    assert found == [(False, False)]  # it blocks the signal
    assert int(fields[b"SigPnd"], 16) & 1 << signal.SIGUSR1 - 1


def test_a_process_that_is_its_owners_can_be_read(processes: int) -> None:
    refuse_unreadable(os.getpid())

    assert caller(a_call(), processes).status()[b"Pid"] == b"%d" % threading.get_native_id()


def test_what_was_read_of_a_caller_that_has_ended_does_not_count(processes: int) -> None:
    caller(a_call(), processes).confirm()

    with pytest.raises(ProcessLookupError):
        caller(a_call(), processes, waiting=False).confirm()
