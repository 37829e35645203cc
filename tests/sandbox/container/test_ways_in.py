"""What is set up for the ways without a hook; those with an engine are in the end-to-end tests."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.plan.model import EngineKind, Way
from claude_proxy.sandbox.container.plan.way_plans import PROXY_SOCKET
from claude_proxy.sandbox.container.ways_in import (
    WAY_OUT_DIRECTORY,
    OpenedWay,
    WayTask,
    ended_with,
    open_way,
)

INSIDE = WayTask(Way.INSIDE)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of a container, whose path is longer than that of a socket may be."""
    directory = tmp_path / ("long" * 30)
    directory.mkdir()
    return directory


def opened(directory: Path) -> OpenedWay:
    engine = Engine(EngineKind.DOCKER, Path("/usr/bin/docker"), {})
    return open_way(INSIDE, engine, directory)


@pytest.fixture
def way(directory: Path) -> Iterator[OpenedWay]:
    way = opened(directory)
    yield way
    way.close()


def client_of(directory: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    descriptor = os.open(directory / WAY_OUT_DIRECTORY, os.O_PATH)
    client.connect(f"/proc/self/fd/{descriptor}/{PROXY_SOCKET}")
    os.close(descriptor)
    return client


def test_a_mounted_socket_takes_clients_of_every_user(way: OpenedWay, directory: Path) -> None:
    (listener,) = way.listeners((3128, 1080, 53), (53,))

    with client_of(directory) as client, listener.accept()[0] as peer:
        client.sendall(b"x")
        assert peer.recv(1) == b"x"
    place = directory / WAY_OUT_DIRECTORY
    assert place.stat().st_mode & 0o777 == 0o755
    assert (place / PROXY_SOCKET).stat().st_mode & 0o777 == 0o666
    assert not way.notes_lookups


@pytest.mark.parametrize("left", ["directory", "file", "socket"])
def test_what_an_earlier_one_left_is_replaced(directory: Path, left: str) -> None:
    """An engine makes a directory for a mount whose source is missing."""
    place = directory / WAY_OUT_DIRECTORY
    place.mkdir()
    if left == "directory":
        (place / PROXY_SOCKET).mkdir()
    elif left == "file":
        (place / PROXY_SOCKET).touch()
    else:
        with socket.socket(socket.AF_UNIX) as stale:
            descriptor = os.open(place, os.O_PATH)
            stale.bind(f"/proc/self/fd/{descriptor}/{PROXY_SOCKET}")
            os.close(descriptor)

    way = opened(directory)

    client_of(directory).close()
    way.close()
    assert not (place / PROXY_SOCKET).exists()


def test_the_end_of_a_process_is_seen_and_it_does_not_stay() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        with ended_with(process) as ended:
            assert os.fstat(ended)
        assert process.returncode is not None
