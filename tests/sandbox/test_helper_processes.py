"""A running proxy is joined if it is there, and the relay ends with its launcher."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import helper_processes, stream_pump
from claude_proxy.sandbox.bubblewrap import unix_sockets
from claude_proxy.sandbox.helper_processes import (
    HelperProcess,
    RelayAnnouncement,
    RelaySockets,
    start_relay,
    wait_for_proxy,
)
from claude_proxy.sandbox.relay import relay
from claude_proxy.sandbox.relay.relay_target import RelayTarget
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import open_log
from claude_proxy.wire.proxy_protocol import SIGNATURE, Announcement, read


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="beside-") as name:
        yield Path(name)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no proxy."""
    monkeypatch.setattr(helper_processes, "JOIN_PATIENCE_S", 0.0)


def test_a_proxy_that_listens_is_joined() -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        where = f"127.0.0.1:{proxy.getsockname()[1]}"

        assert wait_for_proxy(where).address == proxy.getsockname()


def test_a_proxy_on_a_unix_socket_is_joined(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as proxy:
        proxy.bind(str(directory / "proxy.sock"))
        proxy.listen()

        assert wait_for_proxy(f"unix:{directory}/proxy.sock").family == socket.AF_UNIX


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("where", ["127.0.0.1:1", "unix:/nonexistent/proxy.sock", "[::1]:1"])
def test_a_proxy_that_does_not_run_is_an_error_with_its_address(where: str) -> None:
    with pytest.raises(ClaudeProxyError, match="is not running on") as caught:
        wait_for_proxy(where)

    assert caught.value.exit_code == 1
    assert where in caught.value.what


@pytest.mark.parametrize("where", ["", "nonsense", "proxy.test:1", "127.0.0.1", "unix:"])
def test_an_invalid_proxy_address_is_an_error(where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        wait_for_proxy(where)

    assert caught.value.where == f"--proxy {where}"


def test_the_relay_announces_and_ends_with_its_lifeline(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper_processes, "_END_PATIENCE_S", 60.0)
    log = open_log(directory, "tried")
    with (
        RunDirectory.make(["tried"], name="tried", above=directory / "runtime") as run_directory,
        run_directory.listen() as proxy,
        socket.create_server(("127.0.0.1", 0)) as listener,
        log.file,
    ):
        path = str(run_directory.socket_path)
        upstream = RelayTarget(f"unix:{path}", socket.AF_UNIX, path)
        announced = RelayAnnouncement("make", "a proof")
        sockets = RelaySockets([listener])
        with start_relay(sockets, upstream, run_directory, log, announced) as relay:
            assert os.getsid(relay.pid) == relay.pid
            # All processes of the user can read it.
            words = Path(f"/proc/{relay.pid}/cmdline").read_bytes()
            assert run_directory.token.encode() not in words
            with socket.create_connection(listener.getsockname()) as client:
                client.sendall(b"hello")
                with proxy.accept()[0] as arrived:
                    said = arrived.recv(4096)
                    while not said.endswith(b"hello"):
                        said += arrived.recv(4096)

    assert said.startswith(SIGNATURE)
    announcement = Announcement("tried", "make", run_directory.token, "a proof")
    assert read(bytearray(said)) == announcement
    assert relay.process.returncode == 0


def test_a_helper_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_processes, "_END_PATIENCE_S", 0.0)
    reading, writing = os.pipe()
    stubborn = HelperProcess("proxy", subprocess.Popen(["sleep", "600"]), writing)

    stubborn.end()

    os.close(reading)
    assert not stubborn.alive


def test_a_helper_that_has_closed_its_files_counts_as_ended_before_its_parent_can_wait_for_it() -> (
    None
):
    reading, writing = os.pipe()
    helper = HelperProcess("proxy", subprocess.Popen(["sleep", "600"]), writing)
    before = helper.alive

    os.close(reading)

    after = helper.alive
    assert (before, after) == (True, False)
    assert helper.process.poll() is None
    helper.process.kill()
    helper.end()


def test_a_helper_that_ended_too_early_is_reported_with_its_exit_code(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    process.wait()
    with HelperProcess("relay", process, writing) as gone:
        error = gone.failed(tmp_path / "log")

    os.close(reading)
    assert "relay of this run ended (exit code 3)" in error.what
    assert error.where is None  # there is no such log


def test_programs_are_named_and_spoken_to_as_they_are() -> None:
    names = (helper_processes._PUMP, helper_processes._RELAY, helper_processes._SUPERVISOR)
    said = (helper_processes._ENTER, helper_processes._OPEN, helper_processes._READY)

    assert names == (stream_pump.__name__, relay.__name__, unix_sockets.__name__)
    assert said == (unix_sockets.ENTER, unix_sockets.OPEN, unix_sockets.READY)
