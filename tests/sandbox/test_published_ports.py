"""Ports are listened on before anything runs, and served by a program that ends with its run."""

import json
import os
import resource
import select
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from claude_proxy.audit.database import database_in
from claude_proxy.config.port_mappings import Published, parse_forward
from claude_proxy.config.settings import Settings
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import own_programs, port_publisher, published_ports
from claude_proxy.sandbox.published_ports import PortPublisher
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import open_log
from claude_proxy.sandbox.start_patience import StartPatience
from tests.conftest import FindProgram
from tests.sandbox.network_box import NetworkBox, network_box

ANY = Published("127.0.0.1", 0, 3000)


@pytest.fixture
def box(program: FindProgram) -> Iterator[NetworkBox]:
    with network_box(program("bwrap")) as box:
        yield box


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "allowlist.yaml", tmp_path / "conf", tmp_path / "state")


def test_a_free_port_is_found_and_named() -> None:
    with published_ports.opened([ANY, ANY]) as (one, other):
        assert one.place == f"127.0.0.1:{one.socket.getsockname()[1]}"
        assert str(other) == f"{other.place} leads to port 3000 inside"
        assert one.place != other.place


def test_ipv6_is_listened_on_alone() -> None:
    with published_ports.opened([Published("::1", 0, 3000)]) as (one,):
        assert one.place == f"[::1]:{one.socket.getsockname()[1]}"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", one.socket.getsockname()[1]))


def test_a_port_that_is_taken_stops_the_start_and_leaves_nothing_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match="cannot listen on") as refused,
            published_ports.opened([ANY, Published("127.0.0.1", port, 3000)]),
        ):
            pass

    assert refused.value.where == f"--publish 127.0.0.1:{port}:3000"
    assert "0:3000" in (refused.value.fix or "")


def test_a_server_inside_is_reached_until_the_run_ends_and_that_is_recorded(
    box: NetworkBox, settings: Settings, tmp_path: Path
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="runs-") as above,
        RunDirectory.make(("sleep",), above=Path(above)) as run_directory,
        closing(open_log(tmp_path, "tried")) as log,
        published_ports.opened([ANY]) as listeners,
        box.server(3000) as server,
    ):
        place = listeners[0].socket.getsockname()
        with published_ports.start(listeners, box.init, run_directory, log, settings) as publisher:
            publisher.wait_until_ready(StartPatience())
            with socket.create_connection(place, 60) as client, server.accept()[0] as peer:
                client.sendall(b"hello")
                assert peer.recv(5) == b"hello"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(place)
        name = run_directory.name

    with closing(sqlite3.connect(database_in(settings.statedir))) as database:
        rows = database.execute("SELECT kind, run, text FROM notice").fetchall()
    assert [row[:2] for row in rows] == [(port_publisher.NOTICE, name)] * 2
    assert rows[0][2].endswith(f"127.0.0.1:{place[1]} leads to port 3000 inside")
    assert rows[1][2].endswith("no longer leads to port 3000 inside, after 1 connection")


def test_what_is_published_by_itself_is_said_to_the_user(
    box: NetworkBox, settings: Settings, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    with (
        tempfile.TemporaryDirectory(prefix="runs-") as above,
        RunDirectory.make(("sleep",), above=Path(above)) as run_directory,
        closing(open_log(tmp_path, "tried")) as log,
        box.server(80),
        published_ports.start(
            (), box.init, run_directory, log, settings, auto=True, terminal=writing
        ) as publisher,
    ):
        publisher.wait_until_ready(StartPatience())

        said = os.read(reading, 1000)
    os.close(reading)
    os.close(writing)

    assert said == b"claude-proxy: port 80 inside is not published: it is a privileged port\n"


def test_a_terminal_that_takes_no_more_does_not_hold_up_the_ports(
    box: NetworkBox, settings: Settings, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(select.PIPE_BUF))
    os.set_blocking(writing, True)
    with (
        tempfile.TemporaryDirectory(prefix="runs-") as above,
        RunDirectory.make(("sleep",), above=Path(above)) as run_directory,
        closing(open_log(tmp_path, "tried")) as log,
        published_ports.opened([ANY]) as listeners,
        box.server(80),
        box.server(3000) as server,
    ):
        place = listeners[0].socket.getsockname()
        with published_ports.start(
            listeners, box.init, run_directory, log, settings, auto=True, terminal=writing
        ) as publisher:
            publisher.wait_until_ready(StartPatience())
            with socket.create_connection(place, 60), server.accept()[0] as peer:
                assert peer.getsockname()[1] == 3000
        said = log.path.read_text()
    os.close(reading)
    os.close(writing)

    assert "port 80 inside is not published" in said


def test_more_clients_than_files_may_be_open_at_first_are_served(
    box: NetworkBox, settings: Settings, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        tempfile.TemporaryDirectory(prefix="runs-") as above,
        RunDirectory.make(("sleep",), above=Path(above)) as run_directory,
        closing(open_log(tmp_path, "tried")) as log,
        published_ports.opened([ANY]) as listeners,
        box.server(3000) as server,
        ExitStack() as stack,
    ):
        place = listeners[0].socket.getsockname()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        try:
            publisher = published_ports.start(listeners, box.init, run_directory, log, settings)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        stack.enter_context(publisher).wait_until_ready(StartPatience())
        for _ in range(60):
            client = stack.enter_context(socket.create_connection(place, 60))
            peer = stack.enter_context(server.accept()[0])
            client.sendall(b"hello")
            assert peer.recv(5) == b"hello"


def test_a_sandbox_that_cannot_be_entered_ends_the_start_with_the_reason(
    settings: Settings, tmp_path: Path
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="runs-") as above,
        RunDirectory.make(("sleep",), above=Path(above)) as run_directory,
        closing(open_log(tmp_path, "tried")) as log,
        published_ports.opened([ANY]) as listeners,
        published_ports.start(listeners, os.getpid(), run_directory, log, settings) as publisher,
        pytest.raises(ClaudeProxyError, match="no network namespace of its own"),
    ):
        publisher.wait_until_ready(StartPatience())


def test_ports_of_the_run_and_ways_back_are_not_published_by_themselves(
    box: NetworkBox, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[str] = []

    def words(_program: object, task: str) -> list[str]:
        tasks.append(task)
        return ["true"]

    monkeypatch.setattr(own_programs, "words_with_packages", words)
    with (
        tempfile.TemporaryDirectory(prefix="runs-") as above,
        RunDirectory.make(("sleep",), above=Path(above)) as run_directory,
        closing(open_log(tmp_path, "tried")) as log,
        published_ports.opened([ANY]) as listeners,
        published_ports.start(
            listeners,
            box.init,
            run_directory,
            log,
            settings,
            forwards=[parse_forward("5432=db.corp:6432"), parse_forward("8080=host:11434")],
            auto=True,
        ) as publisher,
        pytest.raises(ClaudeProxyError, match="port publisher"),
    ):
        publisher.wait_until_ready(StartPatience())

    assert json.loads(tasks[0])["skipped"] == [53, 1080, 3000, 3128, 5432, 8080, 9053, 11434]


def test_its_loss_is_told_for_what_it_is() -> None:
    assert "no port" in PortPublisher.loss
