"""The mounted way out is complete, the same for every reader, and holds no key."""

import socket
import stat
import subprocess
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import way_out
from claude_proxy.sandbox.container.files import way_out as names


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("way")
    prepare(directory)
    return directory / "out"


def prepare(directory: Path) -> None:
    way_out.prepare(directory / "out", cadir=directory / "ca", statedir=directory / "state")


def test_the_certificate_is_there_and_the_key_is_not(place: Path) -> None:
    texts = [path.read_bytes() for path in place.rglob("*.pem")]

    assert {path.name for path in (place / names.TRUST).iterdir()} == {"ca.pem", "bundle.pem"}
    assert not [text for text in texts if b"PRIVATE KEY" in text]


def test_everybody_in_a_container_can_read_it(place: Path) -> None:
    closed = [
        path for path in place.rglob("*") if not path.is_symlink() and not path.stat().st_mode & 4
    ]

    assert closed == []
    assert stat.S_IMODE(place.stat().st_mode) == 0o755


def test_the_relay_starts_without_the_python_of_this_machine(place: Path) -> None:
    runtime = place / names.RUNTIME
    words = [str(runtime / "ld.so"), "--inhibit-cache", "--library-path", str(runtime / "lib")]
    words += [str(runtime / names.PYTHON), "-I", "-S", "-B", str(runtime / names.RELAY)]

    ran = subprocess.run([*words, "--unknown"], env={}, capture_output=True, text=True, check=False)

    assert 'unknown option "--unknown"' in ran.stderr


def test_a_second_time_changes_nothing(place: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in place.rglob("*")}

    prepare(place.parent)

    assert {path: path.lstat().st_mtime_ns for path in place.rglob("*")} == before


def test_a_runtime_of_another_version_is_replaced(place: Path) -> None:
    old = place / f".{names.RUNTIME}-old"
    old.mkdir()
    (place / names.RUNTIME).unlink()
    (place / names.RUNTIME).symlink_to(old.name)

    prepare(place.parent)

    assert not old.exists()
    assert (place / names.RUNTIME / names.RELAY).is_file()


def test_a_proxy_that_listens_there_is_found(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / names.SOCKET))
        server.listen()

        way_out.check_served(tmp_path)

    with pytest.raises(ClaudeProxyError, match="no proxy serves"):
        way_out.check_served(tmp_path)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").touch()

    with pytest.raises(ClaudeProxyError, match="cannot be prepared"):
        prepare(tmp_path)


def test_it_is_below_the_home() -> None:
    assert way_out.directory_of(Path("/home/you")) == Path("/home/you/.cache/claude-proxy/way-out")
