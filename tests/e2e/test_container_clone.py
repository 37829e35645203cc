"""`container run --clone`: the container works in a clone, whose commits are taken, and is kept."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import FindProgram

from .conftest import Launch
from .rig.containers import BOX, Containers
from .rig.engine import EngineStorage, image_of
from .rig.launch import NOBODY, Launches

SOMEBODY = 1000
CLONE = ("--image", BOX, "--clone", "--name", "web")
AUTHOR = "-c user.name=a -c user.email=a@example.com"
WORK = f"echo {{}} >{{}}; git add . && git {AUTHOR} commit -qm work && echo >>left"


class Project:
    """A user's repository, and what becomes of it."""

    def __init__(self, containers: Containers, owner: int) -> None:
        self.containers, self.path = containers, containers.runs.project
        self.done("git", "init", "-q", "-b", "main")
        (self.path / "one").write_text("one\n", encoding="utf-8")
        containers.runs.give(self.path)
        self.done("git", "add", ".")
        self.done("git", *AUTHOR.split(), "commit", "-qm", "one")
        (self.path / "mine").write_text("not committed\n", encoding="utf-8")
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{owner}:{owner}", self.path], check=True)

    def done(self, *words: str) -> str:
        done = subprocess.run(
            self.containers.runs.argv(words),
            env=self.containers.runs.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def ours(self, *words: str) -> str:
        return self.done(*map(str, self.containers.runs.program()), *words)


def work_is_taken(containers: Containers, project: Project, owner: int) -> None:
    """Work in a clone, take it while the container runs, and after it has run again."""
    started = containers("run", *CLONE, "--detach", "--", "sleep", "1000")
    assert started.returncode == 0, started.stderr
    assert "with uncommitted work: not in the clone" in started.stderr
    script = f"ls; {WORK.format('two', 'two')}; stat -c %u two .git/HEAD one"
    assert containers.inside("web", script).split() == ["one", *[str(owner)] * 3]
    assert not (project.path / "two").exists()
    assert "work" in project.ours("changes", "web")
    assert "running" in project.ours("clones")
    project.ours("take", "web")
    assert project.done("git", "show", "refs/claude-proxy/web/main:two") == "two"

    stopped = containers("stop", "web", "--time", "0")
    assert "the container web worked in the clone web: 0 commits and 1 file" in stopped.stderr
    again = containers("start", "web")
    assert again.returncode == 0, again.stderr
    assert "going on in the clone web" in again.stderr
    assert containers.inside("web", f"cat left; {WORK.format('three', 'three')}") == "\n"

    removed = containers("rm", "--force", "web")
    assert removed.returncode == 0, removed.stderr
    assert "worked in the clone web: 1 commit and 1 file" in removed.stderr
    assert "claude-proxy take web" in removed.stderr
    project.ours("take", "web")
    assert project.done("git", "show", "refs/claude-proxy/web/main:three") == "three"
    assert {path.stat().st_uid for path in project.path.rglob("*")} == {owner}
    refused = containers.runs.argv([*containers.runs.program(), "clones", "--remove", "web"])
    ran = subprocess.run(
        refused,
        env=containers.runs.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "1 file with uncommitted work would be lost" in ran.stderr


def test_root_serves_a_users_project_whose_files_stay_that_users(
    runs: Launches, program: FindProgram
) -> None:
    program("runc")
    storage = EngineStorage(program("podman"))
    storage.add(image_of(program("busybox"), [program("git")]), BOX)
    containers = Containers(runs, storage)
    (runs.place.home / ".gitconfig").write_text("[safe]\n\tdirectory = *\n", encoding="utf-8")
    try:
        work_is_taken(containers, Project(containers, SOMEBODY), SOMEBODY)
    finally:
        containers.remove("web")
        storage.close()


@pytest.fixture
def rootless(launch: Launch, program: FindProgram) -> Iterator[Containers]:
    if os.geteuid() != 0:
        pytest.skip("only root can become an ordinary user with ids for containers")
    for name in ("runc", "newuidmap"):
        program(name)
    storage = EngineStorage(program("podman"), owner=NOBODY)
    containers = Containers(launch(ordinary=True), storage)
    image = storage.directory / "box.tar"
    image.write_bytes(image_of(program("busybox"), [program("git")]))
    imported = containers.podman("import", "--quiet", str(image), BOX)
    assert imported.returncode == 0, imported.stderr
    yield containers
    containers.remove("web")
    containers.podman("unshare", "rm", "-rf", str(storage.directory / "root"))
    (kept,) = containers.runs.runtime.rglob("pause.pid")
    os.kill(int(kept.read_text()), signal.SIGKILL)
    shutil.rmtree(storage.directory, ignore_errors=True)


def test_an_ordinary_user_takes_what_a_container_did_in_a_clone(rootless: Containers) -> None:
    work_is_taken(rootless, Project(rootless, NOBODY), NOBODY)
