"""What a container leaves to be told, and starts that fail, with real podman."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .rig.containers import Containers
from .rig.engine import EngineStorage, image_of
from .rig.launch import Launches

# An engine that fails before it has called the hook.
FAILING = """#!/bin/sh
case " $* " in *" run "*) echo "Error: out of locks" >&2; exit 125;; esac
exec {podman} "$@"
"""
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


def recorded(containers: Containers) -> dict[str, str]:
    """Return how each run ended, as the audit log has it by now."""
    with closing(sqlite3.connect(containers.statedir / "audit.sqlite3")) as database:
        rows = database.execute("SELECT run, text FROM notice WHERE kind = 'run-end'").fetchall()
    return {name: text.partition(": ")[2] for name, text in rows}


@pytest.mark.parametrize("more", [["--rm"], [], ["--detach"]], ids=["rm", "kept", "detached"])
def test_the_end_of_a_run_whose_command_is_not_there_is_recorded_before_the_error_is_said(
    containers: Containers, more: list[str]
) -> None:
    ran = containers("run", "--image", "box", "--name", "web", *more, "--", "nosuchcmd")

    assert ran.returncode == 127
    assert recorded(containers) == {"web": "its container was not started: exit code 127"}


def test_the_end_of_a_run_whose_engine_fails_is_recorded(
    containers: Containers, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    failing = tmp_path / "podman"
    failing.write_text(FAILING.format(podman=containers.storage.podman), "utf-8")
    failing.chmod(0o755)
    path = f"{tmp_path}:{containers.environment()['PATH']}"

    ran = containers("run", "--image", "box", "--name", "web", "--", "sh", PATH=path)

    assert (ran.returncode, "out of locks" in ran.stderr) == (1, True)
    assert recorded(containers) == {"web": "its container was not started: exit code 1"}


@pytest.mark.parametrize("more", [[], ["--rm"]])
def test_list_says_what_a_container_changed_that_ended_by_itself(
    containers: Containers, more: list[str]
) -> None:
    words = ["--image", "box", "--name", "web", "--detach", *more, "--", "sh", "-c", WRITES]
    ran = containers("run", *words)
    assert ran.returncode == 0, ran.stderr
    until(lambda: containers.listed().get("web") in {None, "stopped"}, "its end")

    # A command that is over before its start has been said is told of by that.
    until(lambda: ".mcp.json" in ran.stderr + containers("list").stderr, "the line")


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
