"""Control socket probes see a proxy that can be asked from inside."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.doctor.attack.run import control_places
from claude_proxy.system.runs import CONTROL
from tests.doctor.cage import got_through, run_probe
from tests.support.control import Running, facts, says


@pytest.fixture
def running() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="control-") as name, ExitStack() as stack:
        machine = Running(Path(name), stack)
        machine.starts(facts("web"), says())
        yield machine


def tried(running: Running, **changes: Any) -> list[str]:
    control = control_places(running.environ) | changes
    return got_through(run_probe("control-sockets", control=control))


def test_a_proxy_that_can_be_asked_is_seen(running: Running) -> None:
    directory = running.base / CONTROL

    assert tried(running)[:3] == [
        f"a list of {directory}",
        f"a proxy of its own in {directory}",
        str(directory / "web" / "0.sock"),
    ]


def test_a_proxy_that_is_visible_through_another_process_is_seen(running: Running) -> None:
    assert any(what.startswith("by the root of process") for what in tried(running))


def test_a_directory_of_the_sandboxs_own_is_no_way_out(running: Running) -> None:
    directory = str(running.base / CONTROL)

    assert tried(running, directories={directory: [1, 1]}, sockets=[]) == []


def test_nothing_that_is_not_there_is_seen(running: Running) -> None:
    gone = {"/nonexistent": [1, 1]}

    assert tried(running, directories=gone, sockets=["/nonexistent/web/0.sock"]) == []
