"""Unix sockets: who owns them, what they replace, and simultaneous starts."""

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.server.listening_sockets import opened
from claude_proxy.system import unix_socket
from claude_proxy.system.unix_socket import PATH_BYTES, SocketFile
from tests.system.sockets import answers, refusal, unix

OTHER_UID = 65533


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_socket_is_private_to_its_owner_and_removed_at_the_end(place: Path) -> None:
    path = place / "new" / "deeper" / "p.sock"

    with opened(unix(path)) as (door,):
        assert mode_of(path) == 0o600
        assert mode_of(path.parent) == mode_of(path.parent.parent) == 0o700
        assert [entry.name for entry in path.parent.iterdir()] == ["p.sock"]
        assert answers(path)
        assert (door.name, door.url) == (f"unix {path}", f"unix:{path}")
        assert door.uids == {os.geteuid()}

    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(place: Path, umask: int) -> None:
    path = place / "new" / "p.sock"
    before = os.umask(umask)
    try:
        with opened(unix(path)):
            assert mode_of(path) == 0o600
            assert mode_of(path.parent) == 0o700
            assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_a_socket_that_a_killed_process_left_is_replaced(place: Path) -> None:
    path = place / "p.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    assert not answers(path)

    with opened(unix(path)):
        assert answers(path)
        assert mode_of(path) == 0o600


def test_a_stale_socket_is_replaced_without_a_moment_of_absence(place: Path) -> None:
    path = place / "p.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    path.chmod(0o600)
    absent, modes, done = [False], set[int](), threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                modes.add(mode_of(path))
            except FileNotFoundError:
                absent[0] = True

    with ThreadPoolExecutor() as pool:
        looking = pool.submit(look)
        try:
            sock, _ = unix_socket._placed(path, 0o600)
        finally:
            done.set()
        looking.result()
    sock.close()

    assert not absent[0]
    assert modes <= {0o600}


@pytest.mark.parametrize("backlog", [0, 5], ids=["queue full", "idle"])
def test_a_socket_with_a_listener_is_not_replaced(place: Path, backlog: int) -> None:
    path = place / "p.sock"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
        other.bind(str(path))
        other.listen(backlog)
        if backlog == 0:
            waiting.connect(str(path))
        before = path.lstat().st_ino

        error = refusal(unix(path))

        assert error.what == "another process already listens on this socket"
        assert path.lstat().st_ino == before


def test_a_socket_of_another_kind_is_left_alone(place: Path) -> None:
    path = place / "p.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))

        error = refusal(unix(path))

    assert "existing socket cannot be checked" in error.what
    assert path.exists()


def test_an_empty_directory_that_a_container_engine_made_is_removed(place: Path) -> None:
    path = place / "p.sock"
    path.mkdir()

    with opened(unix(path)):
        assert answers(path)


def _full_directory(path: Path) -> None:
    path.mkdir()
    (path / "work").touch()


IN_THE_WAY: dict[str, tuple[Callable[[Path], Any], str]] = {
    "file": (lambda path: path.write_text("precious"), "a file is where"),
    "link": (lambda path: path.symlink_to("/etc/passwd"), "a symbolic link is where"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "a symbolic link is where"),
    "directory": (_full_directory, "a directory that cannot be removed (directory not empty)"),
    "pipe": (os.mkfifo, "a file is where"),
}


@pytest.mark.parametrize(("make", "said"), IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_a_file_that_is_not_a_socket_is_not_replaced(
    place: Path, make: Callable[[Path], Any], said: str
) -> None:
    path = place / "p.sock"
    make(path)
    before = path.lstat()

    error = refusal(unix(path))

    assert said in error.what
    assert path.lstat().st_ino == before.st_ino
    assert [entry.name for entry in place.iterdir()] == ["p.sock"]


def test_the_longest_path_that_fits_is_accepted(place: Path) -> None:
    name = "n" * (PATH_BYTES - len(os.fsencode(place)) - 1)

    with opened(unix(place / name)):
        assert answers(place / name)


@pytest.mark.parametrize("name", ["n" * 200, "ü" * 60])
def test_a_path_that_is_too_long_is_refused_with_the_limit(place: Path, name: str) -> None:
    error = refusal(unix(place / name))

    assert f"and the system allows {PATH_BYTES}" in error.what


def test_a_short_name_in_a_long_directory_is_measured_with_room_for_a_partial_one(
    place: Path,
) -> None:
    deep = place / ("d" * (PATH_BYTES - len(os.fsencode(place)) - 4))

    error = refusal(unix(deep / "s"))

    assert "too long" in error.what
    assert not deep.exists()


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o757])
def test_a_directory_in_which_others_could_replace_it_is_refused(place: Path, mode: int) -> None:
    place.chmod(mode)

    error = refusal(unix(place / "p.sock"))

    assert "could change" in error.what or "changed by other users" in error.what
    assert "who listens at the socket" in error.what
    assert list(place.iterdir()) == []


def test_a_sticky_directory_is_accepted(place: Path) -> None:
    place.chmod(0o1777)

    with opened(unix(place / "p.sock")):
        assert answers(place / "p.sock")


def test_a_directory_of_another_user_is_refused(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(place, OTHER_UID, -1)

    error = refusal(unix(place / "p.sock"))

    assert "belongs to another user" in error.what


def test_a_disk_without_room_is_a_clear_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)

    error = refusal(unix(place / "p.sock"))

    assert error.what == "cannot listen there: no space left on device"
    assert list(place.iterdir()) == []


def test_a_file_that_appears_meanwhile_is_not_overwritten(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = place / "p.sock", os.link

    def late(*arguments: Any, **options: Any) -> None:
        path.write_text("precious")
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", late)

    error = refusal(unix(path))

    assert "a file is where" in error.what
    assert path.read_text() == "precious"


def test_a_lock_that_is_not_released_is_an_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_socket, "_LOCK_S", 0.0)

    with unix_socket._directory_locked(place):
        error = refusal(unix(place / "p.sock"))

    assert "holds the lock on the directory of the socket" in error.what


def test_a_socket_of_another_process_by_the_same_name_is_not_removed(place: Path) -> None:
    path = place / "p.sock"

    with opened(unix(path)):
        path.unlink()
        with opened(unix(path)) as (other,):
            first = path.lstat().st_ino
            assert other.file is not None
            SocketFile(path, (0, 0)).remove()

            assert path.lstat().st_ino == first


def test_removing_a_missing_socket_is_no_error(place: Path) -> None:
    with opened(unix(place / "p.sock")) as (door,):
        (place / "p.sock").unlink()

        door.remove()


RACER = """
import sys
from pathlib import Path
from claude_proxy.errors import ConfigError
from claude_proxy.config.settings import Settings, UnixListen
from claude_proxy.server.listening_sockets import opened
path = Path(sys.argv[1])
given = Settings(path, path, path, listen=(UnixListen(path),))
sys.stdout.write("here\\n"); sys.stdout.flush(); sys.stdin.readline()
try:
    with opened(given):
        sys.stdout.write("won\\n"); sys.stdout.flush(); sys.stdin.readline()
except ConfigError as error:
    sys.stdout.write(error.what + "\\n"); sys.stdout.flush(); sys.stdin.readline()
"""


@pytest.fixture
def racers(place: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that want the same socket, and wait for a line."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(place / "p.sock")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    yield started
    for racer in started:
        with suppress(BrokenPipeError):
            racer.communicate("\n")


@pytest.mark.parametrize("stale", [False, True])
def test_exactly_one_of_several_simultaneous_starts_gets_the_socket(
    place: Path, racers: list[subprocess.Popen[str]], *, stale: bool
) -> None:
    if stale:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(place / "p.sock"))

    def say(racer: subprocess.Popen[str]) -> None:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()

    def hear(racer: subprocess.Popen[str]) -> str:
        assert racer.stdout is not None
        return racer.stdout.readline().strip()

    assert {hear(racer) for racer in racers} == {"here"}
    for racer in racers:
        say(racer)
    told = [hear(racer) for racer in racers]

    assert sorted(told) == ["another process already listens on this socket"] * 5 + ["won"]
    for racer in racers:
        say(racer)
        racer.wait()
    assert list(place.iterdir()) == []


def test_a_socket_for_others_can_be_reached_by_them(place: Path) -> None:
    path = place / "new" / "p.sock"
    for directory in (place, *place.parents[:-2]):
        if directory.stat().st_uid == os.geteuid() and directory.name != "tmp":
            directory.chmod(0o711)

    with opened(unix(path, uids=frozenset({OTHER_UID}))) as (door,):
        assert mode_of(path) == 0o666
        assert mode_of(path.parent) == 0o711
        assert door.uids == {OTHER_UID}  # and not its owner, who was not named


def test_a_directory_that_others_cannot_enter_is_refused(place: Path) -> None:
    error = refusal(unix(place / "p.sock", uids=frozenset({OTHER_UID})))

    assert "cannot enter the socket" in error.what
    assert "mode 0700" in str(error.where)
    assert list(place.iterdir()) == []


def test_a_socket_for_its_owner_by_name_is_private_too(place: Path) -> None:
    with opened(unix(place / "p.sock", uids=frozenset({os.geteuid()}))):
        assert mode_of(place / "p.sock") == 0o600
