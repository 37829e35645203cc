"""What the kernel says about a client, and how far it can be trusted."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.system import peer_credentials
from claude_proxy.system.peer_credentials import Peer, is_running, overflow_uid, peer_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_a_peer_is_known_by_process_user_and_program(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    program = Path("/proc/self/exe").readlink()

    peer = peer_of(pair[0])

    assert peer == Peer(os.getpid(), os.geteuid(), str(program))
    assert str(peer) == f"pid {os.getpid()} uid {os.geteuid()} {program}"


def test_a_process_that_cannot_be_seen_is_shown_as_unknown() -> None:
    assert str(Peer(0, 1000, peer_credentials._executable_of(0))) == "pid ? uid 1000 ?"


def test_a_process_that_is_gone_has_no_program() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()

    assert peer_credentials._executable_of(gone.pid) == "?"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain", "plain"),
        ("with space", "with space"),
        ("x, run build: claude", "x? run build: claude"),
        ("a\nb\x1b[2J\u202e", "a?b?[2J?"),
    ],
)
def test_the_path_of_a_program_cannot_forge_another_field(
    tmp_path: Path, name: str, shown: str
) -> None:
    program = tmp_path / name
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o700)

    with subprocess.Popen([program, "60"]) as process:
        try:
            found = peer_credentials._executable_of(process.pid)
        finally:
            process.kill()

    assert found == f"{tmp_path}/{shown}"


def test_a_long_path_is_shown_by_its_end(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 200)
    directory.mkdir()
    program = directory / "sleep"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o700)

    with subprocess.Popen([program, "60"]) as process:
        try:
            found = peer_credentials._executable_of(process.pid)
        finally:
            process.kill()

    assert found.startswith("...ddd")
    assert found.endswith("d/sleep")
    assert len(found) == 203


WHOLE = "         0          0 4294967295\n"
OWN = "         0       1000          1\n"


@pytest.mark.parametrize(
    ("uid_map", "overflow", "expected"),
    [
        (WHOLE, "65534\n", None),
        (OWN, "65534\n", 65534),
        (OWN, "4242\n", 4242),
        (OWN, "nonsense", 65534),
        (OWN, None, 65534),
        ("", "65534\n", 65534),
        (None, "65534\n", 65534),
    ],
)
def test_users_without_a_mapping_appear_as_the_overflow_uid(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uid_map: str | None,
    overflow: str | None,
    expected: int | None,
) -> None:
    for name, attribute, text in (
        ("uid_map", "_MAP_FILE", uid_map),
        ("overflowuid", "_OVERFLOW_FILE", overflow),
    ):
        monkeypatch.setattr(peer_credentials, attribute, tmp_path / name)
        if text is not None:
            (tmp_path / name).write_text(text)

    assert overflow_uid() == expected


def test_a_kernel_without_so_peercred_is_asked_by_local_peercred(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Socket:
        """A socket of macOS: struct xucred, and the pid apart."""

        def getsockopt(self, level: int, option: int, size: int = 0) -> bytes | int:
            assert level == 0
            if option == 2:
                return 4711
            assert (option, size) == (1, 76)
            return (0).to_bytes(4, sys.byteorder) + (501).to_bytes(4, sys.byteorder) + bytes(68)

    monkeypatch.delattr(socket, "SO_PEERCRED")

    assert peer_of(Socket()) == Peer(4711, 501, "?")  # type: ignore[arg-type]


def test_a_process_is_running_until_it_was_waited_for() -> None:
    with subprocess.Popen(["true"]) as process:
        assert is_running(process.pid)

    assert not is_running(process.pid)
    assert is_running(0)  # unknown


def test_a_process_of_another_user_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)

    assert is_running(1)
