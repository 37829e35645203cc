"""The canaries exist while they are needed, and are removed afterwards."""

import os
import socket
from pathlib import Path

import pytest

from claude_proxy.doctor.attack.canaries import SECRET_VARIABLE, Canaries


def test_every_visitor_of_a_canary_is_recorded(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    with Canaries(tmp_path, project) as canaries:
        with socket.create_connection(canaries.tcp[0]) as sock:
            assert sock.recv(16) == b"canary\n"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(project / "canary.sock"))
            sock.recv(16)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"?", canaries.udp[0])
            assert sock.recv(16) == b"canary\n"

        assert "a datagram" in canaries.seen("loopback")
        assert "a connection to 127.0.0.1" in canaries.seen("loopback")
        assert canaries.seen("unix") == ("a connection to canary.sock",)


def test_the_secret_is_in_its_files_and_all_are_removed(tmp_path: Path) -> None:
    with Canaries(tmp_path, None, "the token") as canaries:
        assert canaries.process is not None
        pid, files = canaries.process.pid, list(canaries.files)

        assert {path.read_text() for path in files} == {"the token"}
        assert tmp_path in {path.parent for path in files}
        assert b"the token" in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert f"{SECRET_VARIABLE}=the token".encode() in Path(f"/proc/{pid}/environ").read_bytes()

    assert not any(path.exists() for path in files)
    assert not Path(f"/proc/{pid}").exists()
    assert list(tmp_path.iterdir()) == []


def test_canaries_that_cannot_all_be_created_are_removed(tmp_path: Path) -> None:
    taken = tmp_path / "canary.sock"
    taken.write_text("")

    with pytest.raises(OSError, match="in use"), Canaries(tmp_path, None):
        pytest.fail("it must not begin")

    assert os.listdir(tmp_path) == ["canary.sock"]  # noqa: PTH208
