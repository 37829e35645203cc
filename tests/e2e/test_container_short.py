"""A container whose command is over at once hands on its exit code, and nothing has failed."""

from collections.abc import Iterator

import pytest

from tests.conftest import FindProgram

from .rig.containers import BOX, Containers
from .rig.engine import EngineStorage, image_of
from .rig.launch import Launches


@pytest.fixture(scope="module")
def storage(program: FindProgram) -> Iterator[EngineStorage]:
    program("runc")
    storage = EngineStorage(program("podman"))
    storage.add(image_of(program("busybox")), BOX)
    yield storage
    storage.close()


@pytest.fixture
def containers(runs: Launches, storage: EngineStorage) -> Iterator[Containers]:
    containers = Containers(runs, storage)
    yield containers
    containers.remove("web")


@pytest.mark.parametrize("way", ["enter", "pause"])
def test_a_command_that_is_over_at_once_is_no_failure(containers: Containers, way: str) -> None:
    codes, said = [], ""
    for command in (("true",), ("sh", "-c", "exit 3"), ("sh", "-c", "exit 137")):
        ran = containers.run("--way", way, "--name", "web", "--", *command)
        codes.append(ran.returncode)
        said += ran.stderr

    assert codes == [0, 3, 137], said
    assert "has ended" not in said
    assert "failed" not in said
