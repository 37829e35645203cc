"""Containers end when they are told to, and two commands at once do not destroy one another's."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .rig.containers import BOX, Containers
from .rig.engine import EngineStorage, image_of
from .rig.launch import Launches


@pytest.fixture(scope="module")
def storage(program: FindProgram) -> Iterator[EngineStorage]:
    program("runc")
    storage = EngineStorage(program("podman"))
    storage.add(image_of(program("busybox"), [program("curl")]), BOX)
    yield storage
    storage.close()


@pytest.fixture
def containers(runs: Launches, storage: EngineStorage) -> Iterator[Containers]:
    containers = Containers(runs, storage)
    yield containers
    containers("rm", "--all", "--force")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_that_has_no_handler_for_it(
    containers: Containers, number: signal.Signals
) -> None:
    begun = containers.runs.project / f"begun-{number}"
    script = f"touch {begun.name}; exec sleep 1000"
    with containers.popen("run", "--image", BOX, "--rm", "--", "sh", "-c", script) as ran:
        until(begun.exists, "the command")
        ran.send_signal(number)
        _, said = ran.communicate()

    assert ran.returncode == 128 + number
    assert f"no handler for {number.name}" in said.decode()


def test_a_running_container_with_its_proxy_is_left_as_it_is_by_start(
    containers: Containers,
) -> None:
    containers.start("web", "sleep", "1000")

    ran = containers("start", "web")

    assert (ran.returncode, "runs already" in ran.stderr) == (0, True), ran.stderr
    assert containers("verify", "web").returncode == 0


def test_fake_addresses_are_no_fault_to_verify(containers: Containers) -> None:
    words = ["--image", BOX, "--name", "fake", "--transparent", "on", "--detach"]
    assert containers("run", *words, "--", "sleep", "1000").returncode == 0

    ran = containers("verify", "fake")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "fake addresses" in ran.stdout


@pytest.mark.parametrize("command", ["run", "restart"])
def test_of_two_commands_at_once_one_wins_and_the_other_says_why(
    containers: Containers, command: str
) -> None:
    words: list[str | Path] = ["same"]
    if command == "run":
        words = ["--image", BOX, "--name", "same", "--detach", "--", "sleep", "1000"]
    else:
        containers.start("same", "sleep", "1000")
    both = [containers.popen(command, *words) for _ in range(2)]
    said = [ran.communicate()[1].decode() for ran in both]

    codes = sorted(ran.returncode for ran in both)
    assert codes in ([0, 1], [0, 0] if command == "restart" else [0, 1]), said
    for ran, text in zip(both, said, strict=True):
        assert ran.returncode == 0 or "right now" in text or "runs already" in text, text
    assert containers("exec", "same", "--", "true").returncode == 0
