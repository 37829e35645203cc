"""A container outlives what serves it: each process is killed in turn, and the network is back."""

from collections.abc import Iterator

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .rig.containers import BOX, Containers
from .rig.engine import EngineStorage, image_of
from .rig.launch import Launches

ASK = "curl -sS -o /dev/null -w '%{http_code}' https://origin.test/"


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
    containers.remove("web", "api")


@pytest.mark.parametrize("what", ["proxy", "relay"])
def test_a_helper_that_is_killed_is_started_again(containers: Containers, what: str) -> None:
    containers.start("web", "sleep", "1000")
    before = containers.inside("web", ASK)

    old = containers.kill("web", what)
    containers.wait_for_new("web", what, old)

    assert (before, containers.inside("web", ASK)) == ("200", "200")


def test_without_its_keeper_a_container_has_no_network_until_it_is_given_it_back(
    containers: Containers,
) -> None:
    containers.start("web", "sleep", "1000")
    first = containers.podman("inspect", "--format", "{{.State.Pid}}", "web").stdout

    containers.kill("web", "keeper")
    alone = containers.inside("web", ASK)
    ran = containers("start", "web")

    assert "200" not in alone
    assert ran.returncode == 0, ran.stderr
    assert containers.inside("web", ASK) == "200"
    assert containers.podman("inspect", "--format", "{{.State.Pid}}", "web").stdout == first


def test_a_keeper_that_is_killed_does_not_take_the_exit_code(containers: Containers) -> None:
    script = "echo ready; read answer; exit 7"
    launcher = containers.popen("run", "--image", BOX, "--name", "web", "--", "sh", "-c", script)
    with launcher:
        assert launcher.stdout is not None
        launcher.stdout.readline()

        containers.kill("web", "keeper")
        _, said = launcher.communicate(b"go\n", 120)

    assert launcher.returncode == 7, said.decode()
    assert b"no network" in said


def test_a_launcher_that_is_killed_leaves_the_container_its_network(
    containers: Containers,
) -> None:
    words = ("run", "--image", BOX, "--name", "web", "--", "sh", "-c", "echo ready; sleep 1000")
    launcher = containers.popen(*words)
    with launcher:
        assert launcher.stdout is not None
        launcher.stdout.readline()

        launcher.kill()

    assert containers.inside("web", ASK) == "200"


def test_a_container_that_is_stopped_starts_again_with_its_home(containers: Containers) -> None:
    containers.start("web", "sh", "-c", "date >> ~/kept; exec sleep 1000")
    containers("stop", "--time", "0", "web")
    stopped = containers.listed()

    ran = containers("start", "web")

    assert stopped == {"web": "stopped"}
    assert ran.returncode == 0, ran.stderr
    assert containers.listed() == {"web": "running"}
    until(lambda: containers.inside("web", "wc -l < ~/kept") == "2\n", "the second line")
    assert containers.inside("web", ASK) == "200"


def test_started_without_us_a_container_has_no_network(containers: Containers) -> None:
    containers.start("web", "sleep", "1000")
    containers("stop", "--time", "0", "web")

    containers.podman("start", "web")

    assert "200" not in containers.inside("web", ASK)
    assert containers.inside("web", "ip -o link | cut -d: -f2").split() == ["lo"]


def test_two_containers_run_at_once_each_with_its_own_proxy(containers: Containers) -> None:
    containers.start("web", "sleep", "1000")
    containers.start("api", "sleep", "1000")

    assert containers.listed() == {"api": "running", "web": "running"}
    assert [containers.inside(name, ASK) for name in ("web", "api")] == ["200", "200"]
    assert containers.status("web")["helpers"] != containers.status("api")["helpers"]


def test_a_running_container_is_not_replaced_and_a_stopped_one_is(containers: Containers) -> None:
    containers.start("web", "sleep", "1000")
    words = ("run", "--image", BOX, "--name", "web", "--", "true")

    running = containers(*words)
    containers("stop", "--time", "0", "web")
    stopped = containers(*words)

    assert (running.returncode, "runs already" in running.stderr) == (1, True)
    assert (stopped.returncode, "is replaced" in stopped.stderr) == (0, True)


def test_a_container_that_somebody_else_made_is_not_taken(containers: Containers) -> None:
    containers.podman("create", "--name", "web", "--network", "none", BOX, "sleep", "1")

    ran = containers("run", "--image", BOX, "--name", "web", "--", "true")
    removed = containers("rm", "--force", "web")

    assert ran.returncode == 1, ran.stderr
    assert removed.returncode == 1
    assert containers.podman("container", "exists", "web").returncode == 0
    containers.podman("rm", "--force", "web")


def test_a_container_is_removed_with_its_home(containers: Containers) -> None:
    containers.start("web", "sleep", "1000")

    refused = containers("rm", "web")
    removed = containers("rm", "--force", "web")

    assert (refused.returncode, removed.returncode) == (1, 0), removed.stderr
    assert containers.listed() == {}
    assert containers.podman("volume", "ls", "--quiet").stdout == ""
