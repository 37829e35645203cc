"""A datagram pair works as a pair, is no way out, and fails where nobody makes it."""

import errno
import platform
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from claude_proxy.sandbox.bubblewrap import datagram_pairs, seccomp
from claude_proxy.sandbox.bubblewrap.bwrap import Bubblewrap
from claude_proxy.sandbox.helper_processes import (
    HelperProcess,
    pair_maker,
)
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import open_log
from tests.conftest import FindProgram
from tests.sandbox.boxes import Box
from tests.support import bpf
from tools import libseccomp

USER_NOTIF = 0x7FC0_0000
MAKES_A_PAIR = """
import ctypes, os, socket
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
"""


class PairedBox:
    """A sandbox for which datagram pairs are made."""

    def __init__(self, box: Box, directory: Path) -> None:
        self.box = box
        self._directory = directory

    def python(self, script: str, meanwhile: Callable[[], object] = lambda: None) -> str:
        """Return what a script prints that runs inside; act before it starts."""
        plan = self.box.plan(self.box.spec(sys.executable, "-c", MAKES_A_PAIR + script))
        log = open_log(self._directory, "tried")
        streams = (-3, -1, -1)  # DEVNULL, PIPE, PIPE
        with (
            log.file,
            RunDirectory.make(["tried"], above=self._directory / "runtime") as run_directory,
            pair_maker(run_directory, log) as prepare,
            Bubblewrap.start(plan, seccomp.program(reports_pairs=True), streams, prepare) as bwrap,
        ):
            meanwhile()
            bwrap.release()
            out, err = bwrap.process.communicate(timeout=60)
            assert bwrap.process.returncode == 0, err.decode()
        assert log.path.read_bytes() == b""
        return out.decode().strip()


@pytest.fixture
def paired(box: Box, program: FindProgram) -> Iterator[PairedBox]:
    """A box, and a directory whose path leaves room for a socket's name."""
    if not datagram_pairs.is_supported(program("bwrap")):
        pytest.skip("this kernel cannot report calls")
    with tempfile.TemporaryDirectory(prefix="pairs-") as name:
        yield PairedBox(box, Path(name))


def test_messages_keep_their_limits(paired: PairedBox) -> None:
    script = "one.send(b'a'); one.send(b'bc'); print(other.recv(9), other.recv(9))"

    assert paired.python(script) == "b'a' b'bc'"


def test_the_flags_of_the_call_are_kept(paired: PairedBox) -> None:
    script = """
kinds = (0, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC)
libc = ctypes.CDLL(None)
for kind in kinds:
    pair = (ctypes.c_int * 2)()
    libc.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | kind, 0, pair)
    print(*(f"{os.get_inheritable(end)} {os.get_blocking(end)}" for end in pair))
"""

    assert paired.python(script).splitlines() == [
        "True True True True",
        "True False True False",
        "False True False True",
    ]


def test_an_end_cannot_be_turned_to_a_socket_outside(paired: PairedBox) -> None:
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

        assert paired.python(script) == "tried"

        with pytest.raises(BlockingIOError):
            outside.recv(16)


@pytest.mark.parametrize("address", [0, 1, 2**63, 2**64 - 1])
def test_an_address_that_is_not_mapped_is_an_error(paired: PairedBox, address: int) -> None:
    script = f"""
libc = ctypes.CDLL(None, use_errno=True)
print(libc.socketpair(1, 2, 0, ctypes.c_void_p({address})), ctypes.get_errno())
print(len(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)))
"""

    assert paired.python(script).splitlines() == [f"-1 {errno.EFAULT}", "2"]


@pytest.mark.parametrize(
    ("kind", "protocol", "error"),
    [(2, 5, errno.EPROTONOSUPPORT), (2 | 1 << 24, 0, errno.EINVAL), (3, 0, errno.EPROTONOSUPPORT)],
)
def test_what_the_kernel_would_refuse_is_refused(
    paired: PairedBox, kind: int, protocol: int, error: int
) -> None:
    script = f"""
libc = ctypes.CDLL(None, use_errno=True)
print(libc.socketpair(1, {kind}, {protocol}, (ctypes.c_int * 2)()), ctypes.get_errno())
"""

    assert paired.python(script) == f"-1 {error}"


def test_a_process_without_descriptors_gets_the_error(paired: PairedBox) -> None:
    script = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (one.fileno(), one.fileno()))
try:
    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
except OSError as error:
    print(error.errno)
"""

    assert paired.python(script) == str(errno.EMFILE)


def test_without_the_program_the_call_fails(
    paired: PairedBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers: list[HelperProcess] = []

    def note(maker: HelperProcess) -> None:
        makers.append(maker)

    monkeypatch.setattr(HelperProcess, "__enter__", note)

    def end() -> None:
        makers[0].end()

    with pytest.raises(AssertionError, match="Function not implemented"):
        paired.python("", meanwhile=end)


def test_without_the_first_filter_the_other_is_not_used(box: Box) -> None:
    done = box.run(sys.executable, "-c", MAKES_A_PAIR)

    assert "Protocol not supported" in done.err


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_only_datagram_pairs_of_unix_sockets_are_reported(machine: str) -> None:
    program = bpf.decode(datagram_pairs.filter_program(machine))
    token = libseccomp.ARCHITECTURES[machine]
    call = datagram_pairs._SYS_SOCKETPAIR[machine]

    def end(*arguments: int, call: int = call, token: int = token) -> int:
        return bpf.run(program, token, call, *arguments)

    assert end(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) == USER_NOTIF
    for other in (
        end(socket.AF_UNIX, socket.SOCK_STREAM),
        end(socket.AF_INET, socket.SOCK_DGRAM),
        end(socket.AF_UNIX, socket.SOCK_DGRAM, call=call + 1),
        end(socket.AF_UNIX, socket.SOCK_DGRAM, token=0),
    ):
        assert other == libseccomp.ALLOW


def test_a_bwrap_with_privileges_is_left_alone(tmp_path: Path) -> None:
    program = tmp_path / "bwrap"
    program.write_bytes(b"")
    program.chmod(0o755 | stat.S_ISUID)

    assert not datagram_pairs.is_supported(str(program))
    assert not datagram_pairs.is_supported(str(tmp_path / "none"))


@pytest.mark.parametrize("release", ["5.8.0", "4.19.0-1-amd64", "unknown"])
def test_a_kernel_that_cannot_install_descriptors_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)

    assert not datagram_pairs.is_supported(sys.executable)
