"""What a person does with a container after `run`, with real podman: exec, shell, attack, list."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .rig.containers import Containers
from .rig.engine import EngineStorage, image_of
from .rig.launch import Launches
from .rig.terminal import Terminal

PASSWD = b"root:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/home/somebody:/bin/sh\n"


@pytest.fixture(scope="module")
def storage(program: FindProgram) -> Iterator[EngineStorage]:
    program("runc")
    storage = EngineStorage(program("podman"))
    programs = [program("curl"), program("bash"), program("git")]
    storage.add(image_of(program("busybox"), programs, [("/etc/passwd", PASSWD)]), "box")
    storage.add(image_of(None, [program("sleep")]), "bare")
    yield storage
    storage.close()


@pytest.fixture
def containers(runs: Launches, storage: EngineStorage) -> Iterator[Containers]:
    containers = Containers(runs, storage)
    yield containers
    containers("rm", "--all", "--force")


def repository(containers: Containers, owner: int = 0) -> Path:
    """Make a repository of the project, with one commit."""
    project = containers.runs.project
    git(project, "init", "--quiet", "--initial-branch=main")
    (project / ".envrc").write_text("outside\n")
    commit = ("-c", "user.name=a", "-c", "user.email=a@b.test", "commit", "--quiet")
    git(project, *commit, "--allow-empty", "--message", "outside")
    if owner:
        subprocess.run(["chown", "-R", f"{owner}:{owner}", project], check=True)
    return project


def git(project: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-c", f"safe.directory={project}", "-C", project, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_exec_passes_streams_exit_code_and_the_environment_of_the_command(
    containers: Containers,
) -> None:
    containers.start("web", "sh", "-c", "env | sort > /tmp/env; sleep 1000")

    ran = containers("exec", "web", "--", "sh", "-c", "cat; echo err >&2; exit 42", given="in\n")
    environment = containers("exec", "--", "sh", "-c", "env | sort | diff - /tmp/env | grep -v _=")

    assert (ran.returncode, ran.stdout, ran.stderr) == (42, "in\n", "err\n")
    assert [line for line in environment.stdout.splitlines() if line[:1] in "<>"] == []
    assert containers("exec", "web", "--", "nowhere").returncode == 127
    assert containers("exec", "web", "--", "/etc/passwd").returncode == 126


def test_a_signal_to_exec_reaches_the_command_inside(containers: Containers) -> None:
    containers.start("web", "sleep", "1000")
    script = "trap 'echo got it; exit 7' INT; echo ready; while true; do sleep 0.1; done"
    with containers.popen("exec", "web", "--", "sh", "-c", script) as ran:
        assert ran.stdout is not None
        ran.stdout.readline()

        ran.send_signal(signal.SIGINT)

        assert (ran.wait(120), ran.stdout.read()) == (7, b"got it\n")


def test_a_shell_has_the_terminal_with_its_keys_and_its_size(
    containers: Containers, tmp_path: Path, program: FindProgram
) -> None:
    program("tmux")
    containers.start("web", "sleep", "1000")
    terminal = Terminal(tmp_path / "tmux", containers.environment())
    try:
        terminal.start(containers.argv(containers.words("shell", "web")), columns=100, lines=30)
        terminal.type("echo in-$(pwd) $(stty size)")
        terminal.shows("in-/workspace 30 100")
        terminal.type("sleep 1000; echo after-$?")
        terminal.press("C-c")
        terminal.resize(90, 20)
        until(lambda: typed(terminal, "stty size", "20 90"), "the new size")
        terminal.type("exit 3")
        until(terminal.ended, "the end of the shell")
    finally:
        terminal.close()


def test_ctrl_c_at_a_terminal_ends_a_command_that_has_no_handler_for_it(
    containers: Containers, tmp_path: Path, program: FindProgram
) -> None:
    for name in ("tini-static", "tmux"):
        program(name)
    terminal = Terminal(tmp_path / "tmux", containers.environment())
    words = ("run", "--image", "box", "--name", "web", "--", "sh", "-c", "echo up; exec sleep 1000")
    try:
        terminal.start(containers.argv(containers.words(*words)))
        terminal.shows("up")
        terminal.press("C-c")
        until(terminal.ended, f"the end of the command:\n{terminal.screen()}")
    finally:
        terminal.close()

    (row,) = [json.loads(line) for line in containers("list", "--json").stdout.splitlines()]
    assert (row["name"], row["state"]) == ("web", "stopped")


def typed(terminal: Terminal, text: str, expected: str) -> bool:
    terminal.type(text)
    return expected in terminal.screen()


def test_a_shell_is_bash_and_its_absence_is_said(containers: Containers) -> None:
    containers.start("web", "sleep", "1000")
    containers(
        "run", "--image", "bare", "--name", "bare", "--detach", "--", "/usr/bin/sleep", "1000"
    )

    found = containers("shell", "web", given="echo $BASH_VERSION; exit 5")
    none = containers("shell", "bare")

    assert (found.returncode, found.stdout.strip() != "") == (5, True), found.stderr
    assert (none.returncode, "no shell" in none.stderr) == (1, True)


def test_what_does_not_run_is_named_with_the_command_that_helps(containers: Containers) -> None:
    assert containers("stop", "nowhere").returncode == 0
    assert containers("exec", "--", "true").returncode == 1
    containers.start("web", "sleep", "1000")
    assert containers("stop", "--time", "0").returncode == 0
    assert containers("stop", "web").returncode == 0

    ran = containers("exec", "web", "--", "true")
    again = containers("restart", "web", "--time", "0")

    assert (ran.returncode, "container start web" in ran.stderr) == (1, True)
    assert again.returncode == 0, again.stderr
    assert containers("exec", "web", "--", "true").returncode == 0


def test_of_several_containers_one_is_meant_by_its_directory_or_named(
    containers: Containers, tmp_path: Path
) -> None:
    containers.start("web", "sh", "-c", "echo said; sleep 1000")
    containers("run", str(tmp_path), "--image", "box", "--name", "api", "-d", "--", "sleep", "1000")

    here = containers("exec", "--", "hostname")
    rows = [json.loads(line) for line in containers("stats", "--json").stdout.splitlines()]

    assert here.stdout == "web\n", here.stderr
    assert {row["name"]: row["processes"] >= 1 for row in rows} == {"web": True, "api": True}
    until(lambda: containers("logs", "web").stdout == "said\n", "what it has printed")
    assert containers("rm", "web", "api").returncode == 1
    assert containers("rm").returncode == 2
    assert containers("rm", "--all", "--force").returncode == 0
    assert containers.listed() == {}


def test_root_in_a_container_gets_out_in_no_way_and_the_result_is_kept(
    containers: Containers,
) -> None:
    containers.start("web", "sleep", "1000")
    assert containers("exec", "web", "--", "id", "-u").stdout == "0\n"

    verified = containers("verify", "web")
    attacked = containers("attack", "web")

    assert verified.returncode == 0, verified.stdout
    assert attacked.returncode == 0, attacked.stdout + attacked.stderr
    (row,) = (json.loads(line) for line in containers("list", "--json").stdout.splitlines())
    assert row["attack"]["clean"] is True
    assert row["hosts"]


def test_nothing_verifies_a_container_without_its_keeper(containers: Containers) -> None:
    containers.start("web", "sleep", "1000")
    containers.kill("web", "keeper")

    assert containers("verify", "web").returncode == 1
    assert containers("attack", "web").returncode == 1
    assert "has no network" in containers("exec", "web", "--", "true").stderr


def test_two_containers_cannot_reach_each_other(containers: Containers) -> None:
    containers.start("web", "nc", "-l", "-p", "8000")
    containers.start("api", "sleep", "1000")
    listening = f":{8000:04X} 0"
    until(lambda: listening in containers.inside("web", "cat /proc/net/tcp*"), "the server")

    ran = containers("exec", "api", "--", "nc", "-w", "1", "127.0.0.1", "8000")

    assert ran.returncode == 1


def test_a_project_is_protected_and_commits_come_over(containers: Containers) -> None:
    project = repository(containers, owner=1000)
    script = """\
echo inside > .envrc
echo inside > .git/hooks/pre-commit
mv .git .other
git -c user.name=a -c user.email=a@b.test commit --quiet --allow-empty --message inside
echo '{}' > .mcp.json
git config core.fsmonitor /workspace/evil
"""

    ran = containers.run("--", "sh", "-c", script)

    assert (project / ".envrc").read_text() == "outside\n"
    assert not (project / ".git/hooks/pre-commit").exists()
    assert git(project, "log", "--format=%s").split() == ["inside", "outside"], ran.stderr
    assert "fsmonitor" not in (project / ".git/config").read_text()
    assert ".mcp.json" in ran.stderr
    assert {path.stat().st_uid for path in project.rglob("*")} == {1000}


def test_an_entry_that_the_host_replaces_stays_protected(containers: Containers) -> None:
    project = repository(containers)
    containers.start("web", "sleep", "1000")

    for number in range(5):
        (project / ".new").write_text(f"{number}\n")
        os.replace(project / ".new", project / ".envrc")  # noqa: PTH105 - what editors do
        ran = containers("exec", "web", "--", "sh", "-c", "echo inside > .envrc")
        assert ran.returncode != 0
        assert (project / ".envrc").read_text() == f"{number}\n"
