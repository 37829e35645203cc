"""A datagram pair works as a pair, is no way out, and fails where nobody makes it."""

import errno
import socket
import sys

import pytest

from tests.sandbox.boxes import Box
from tests.sandbox.supervised import SupervisedBox

MAKES_A_PAIR = """
import ctypes, os, socket
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
"""


def test_messages_keep_their_limits(paired: SupervisedBox) -> None:
    script = "one.send(b'a'); one.send(b'bc'); print(other.recv(9), other.recv(9))"

    assert paired.python(MAKES_A_PAIR + script) == "b'a' b'bc'"


def test_the_flags_of_the_call_are_kept(paired: SupervisedBox) -> None:
    script = """
kinds = (0, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC)
libc = ctypes.CDLL(None)
for kind in kinds:
    pair = (ctypes.c_int * 2)()
    libc.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | kind, 0, pair)
    print(*(f"{os.get_inheritable(end)} {os.get_blocking(end)}" for end in pair))
"""

    assert paired.python(MAKES_A_PAIR + script).splitlines() == [
        "True True True True",
        "True False True False",
        "False True False True",
    ]


def test_an_end_cannot_be_turned_to_a_socket_outside(paired: SupervisedBox) -> None:
    path = paired.box.project / "outside"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside:
        outside.bind(str(path))
        outside.settimeout(0)
        script = f"""
for close in (False, True):
    if close:
        other.close()
    for act in (
        lambda: one.connect({str(path)!r}),
        lambda: one.sendto(b"out", {str(path)!r}),
        lambda: one.sendmsg([b"out"], [], 0, {str(path)!r}),
    ):
        try:
            act()
        except OSError:
            pass
    try:
        one.send(b"out")
    except OSError:
        pass
print("tried")
"""

        assert paired.python(MAKES_A_PAIR + script) == "tried"

        with pytest.raises(BlockingIOError):
            outside.recv(16)


@pytest.mark.parametrize("address", [0, 1, 2**63, 2**64 - 1])
def test_an_address_that_is_not_mapped_is_an_error(paired: SupervisedBox, address: int) -> None:
    script = f"""
libc = ctypes.CDLL(None, use_errno=True)
print(libc.socketpair(1, 2, 0, ctypes.c_void_p({address})), ctypes.get_errno())
print(len(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)))
"""

    assert paired.python(MAKES_A_PAIR + script).splitlines() == [f"-1 {errno.EFAULT}", "2"]


@pytest.mark.parametrize(
    ("kind", "protocol", "error"),
    [(2, 5, errno.EPROTONOSUPPORT), (2 | 1 << 24, 0, errno.EINVAL), (3, 0, errno.EPROTONOSUPPORT)],
)
def test_what_the_kernel_would_refuse_is_refused(
    paired: SupervisedBox, kind: int, protocol: int, error: int
) -> None:
    script = f"""
libc = ctypes.CDLL(None, use_errno=True)
print(libc.socketpair(1, {kind}, {protocol}, (ctypes.c_int * 2)()), ctypes.get_errno())
"""

    assert paired.python(MAKES_A_PAIR + script) == f"-1 {error}"


def test_a_process_without_descriptors_gets_the_error(paired: SupervisedBox) -> None:
    script = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (one.fileno(), one.fileno()))
try:
    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
except OSError as error:
    print(error.errno)
"""

    assert paired.python(MAKES_A_PAIR + script) == str(errno.EMFILE)


def test_without_the_program_the_call_fails(paired: SupervisedBox) -> None:
    with pytest.raises(AssertionError, match="Function not implemented"):
        paired.python(MAKES_A_PAIR, meanwhile=lambda supervisor: supervisor.end())


def test_without_the_first_filter_the_other_is_not_used(box: Box) -> None:
    done = box.run(sys.executable, "-c", MAKES_A_PAIR)

    assert "Protocol not supported" in done.err
