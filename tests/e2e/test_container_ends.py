"""What a container leaves to be told, and starts that fail, with real podman."""

from collections.abc import Iterator

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .rig.containers import Containers
from .rig.engine import EngineStorage, image_of
from .rig.launch import Launches

WRITES = "echo '{}' > .mcp.json"


@pytest.fixture(scope="module")
def storage(program: FindProgram) -> Iterator[EngineStorage]:
    program("runc")
    storage = EngineStorage(program("podman"))
    storage.add(image_of(program("busybox")), "box")
    yield storage
    storage.close()


@pytest.fixture
def containers(runs: Launches, storage: EngineStorage) -> Iterator[Containers]:
    containers = Containers(runs, storage)
    yield containers
    containers("rm", "--all", "--force")


@pytest.mark.parametrize("command", ["stop", "restart", "rm"])
def test_what_ends_a_container_in_the_background_says_what_it_changed(
    containers: Containers, command: str
) -> None:
    containers.start("web", "sh", "-c", f"{WRITES}; sleep 1000")
    until((containers.runs.project / ".mcp.json").exists, "the file")

    force = ["--force"] if command == "rm" else ["--time", "0"]
    ended = containers(command, "web", *force)

    assert ended.returncode == 0, ended.stderr
    assert "web: warning: this run created" in ended.stderr
    assert ".mcp.json" in ended.stderr
    assert ".mcp.json" not in containers("list").stderr


@pytest.mark.parametrize("more", [[], ["--rm"]])
def test_list_says_what_a_container_changed_that_ended_by_itself(
    containers: Containers, more: list[str]
) -> None:
    words = ["--image", "box", "--name", "web", "--detach", *more, "--", "sh", "-c", WRITES]
    assert containers("run", *words).returncode == 0
    until(lambda: containers.listed().get("web") in {None, "stopped"}, "its end")

    until(lambda: ".mcp.json" in containers("list").stderr, "the line")


def test_a_command_that_is_not_there_is_said_as_exec_says_it(containers: Containers) -> None:
    lacking = containers.run("--", "nosuchcmd")
    unusable = containers.run("--", "/etc")
    nothing = containers.run()

    kept = containers("run", "--image", "box", "--name", "kept", "--", "nosuchcmd")
    behind = containers("run", "--image", "box", "--name", "behind", "-d", "--", "nosuchcmd")

    assert (lacking.returncode, unusable.returncode) == (127, 126)
    assert (kept.returncode, behind.returncode) == (127, 127)
    assert kept.stderr.endswith(behind.stderr)
    assert 'there is no program "nosuchcmd" in the container' in lacking.stderr
    assert '"/etc" cannot be executed in the container' in unusable.stderr
    assert nothing.returncode == 2
    assert "there is nothing to run" in nothing.stderr


def test_a_published_port_is_said_where_the_run_is_seen(containers: Containers) -> None:
    waits = "for _ in $(seq 1200); do test -e done && break; sleep 0.1; done"
    script = f"nc -l -p 18765 & {waits}; kill $!"
    words = ("--image", "box", "--rm", "--publish", "auto", "--", "sh", "-c", script)
    with containers.popen("run", *words) as ran:
        assert ran.stderr is not None
        said = next((line for line in ran.stderr if b"leads to port 18765" in line), b"")
        (containers.runs.project / "done").touch()
        ran.communicate(timeout=120)

    assert b"127.0.0.1:18765 leads to port 18765 inside (--publish auto)" in said


def test_a_directory_that_is_not_there_is_named_as_it_was_given(containers: Containers) -> None:
    refused = containers("run", "nowhere", "--image", "box", "--", "true")

    assert refused.returncode == 2
    assert "where: nowhere" in refused.stderr


def test_a_start_that_is_refused_leaves_no_record(containers: Containers) -> None:
    elsewhere = containers.runs.project / "elsewhere"
    elsewhere.mkdir()
    (containers.runs.project / ".git").symlink_to(elsewhere)

    refused = containers("run", "--image", "box", "--rm", "--name", "web", "--", "true")

    assert refused.returncode not in {0, 127}
    assert "removed" not in containers("rm", "--all", "--force").stderr
