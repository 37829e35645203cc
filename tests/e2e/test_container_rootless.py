"""Containers of an ordinary user: the same wall, without root."""

import os
import shutil
import signal
from collections.abc import Iterator

import pytest

from tests.conftest import FindProgram

from .conftest import Launch
from .rig.containers import BOX, Containers
from .rig.engine import EngineStorage, image_of
from .rig.launch import NOBODY

ASK = "curl -sS -o /dev/null -w '%{http_code}\\n' https://origin.test/"


@pytest.fixture
def containers(launch: Launch, program: FindProgram) -> Iterator[Containers]:
    if os.geteuid() != 0:
        pytest.skip("only root can become an ordinary user with ids for containers")
    for name in ("runc", "newuidmap"):
        program(name)
    storage = EngineStorage(program("podman"), owner=NOBODY)
    containers = Containers(launch(ordinary=True), storage)
    image = storage.directory / "box.tar"
    image.write_bytes(image_of(program("busybox"), [program("curl")]))
    imported = containers.podman("import", "--quiet", str(image), BOX)
    assert imported.returncode == 0, imported.stderr
    yield containers
    containers.remove("web")
    containers.podman("unshare", "rm", "-rf", str(storage.directory / "root"))
    # The process that keeps the user's namespaces.
    (kept,) = containers.runs.runtime.rglob("pause.pid")
    os.kill(int(kept.read_text()), signal.SIGKILL)
    shutil.rmtree(storage.directory, ignore_errors=True)


def test_a_container_of_an_ordinary_user_has_the_proxy_and_nothing_else(
    containers: Containers,
) -> None:
    script = f"id -u; ip -o link | cut -d: -f2; {ASK}; touch /workspace/made ~/kept /tmp/x"

    ran = containers.run("--", "sh", "-c", script)

    assert ran.stdout.split() == [str(NOBODY), "lo", "200"], ran.stderr
    assert (containers.runs.project / "made").stat().st_uid == NOBODY


def test_it_is_given_its_network_back_after_its_keeper_was_killed(containers: Containers) -> None:
    containers.start("web", "sleep", "1000")

    containers.kill("web", "keeper")
    ran = containers("start", "web")

    assert ran.returncode == 0, ran.stderr
    assert containers.inside("web", ASK) == "200\n"


def test_it_is_entered_verified_and_attacked_without_root(containers: Containers) -> None:
    containers.start("web", "sleep", "1000")

    entered = containers("exec", "web", "--", "sh", "-c", "id -u; exit 42")
    verified = containers("verify", "web")
    attacked = containers("attack", "web")

    assert (entered.returncode, entered.stdout) == (42, f"{NOBODY}\n"), entered.stderr
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert attacked.returncode == 0, attacked.stdout + attacked.stderr


def test_an_entry_that_the_host_replaces_stays_protected_without_root(
    containers: Containers,
) -> None:
    guarded = containers.runs.project / ".envrc"
    guarded.write_text("outside\n")
    containers.runs.give(guarded)
    containers.start("web", "sleep", "1000")

    new = guarded.with_name(".new")
    new.write_text("again\n")
    containers.runs.give(new)
    new.replace(guarded)

    assert "Read-only" in containers.inside("web", "echo inside > /workspace/.envrc")
    assert guarded.read_text() == "again\n"
