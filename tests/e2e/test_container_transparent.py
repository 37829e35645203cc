"""In a container, programs that ignore the proxy reach what is allowed by its name."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .rig.containers import BOX, Containers
from .rig.engine import EngineStorage, image_of
from .rig.internet import Internet
from .rig.launch import Launches


@pytest.fixture(scope="module")
def storage(program: FindProgram) -> Iterator[EngineStorage]:
    program("runc")
    storage = EngineStorage(program("podman"))
    storage.add(image_of(program("busybox"), [program("curl")]), BOX)
    yield storage
    storage.close()


@pytest.fixture
def containers(runs: Launches, storage: EngineStorage) -> Containers:
    return Containers(runs, storage)


def test_clients_that_ignore_the_proxy_reach_what_is_allowed_by_its_name(
    containers: Containers, internet: Internet
) -> None:
    script = (
        "curl -sS --noproxy '*' -o /dev/null -w '%{http_code}\\n' https://origin.test/in; "
        "nslookup origin.test 127.0.0.1 | grep -c 'Address.*198[.]1[89]'; "
        "curl -sS --noproxy '*' -o /dev/null https://denied.test/; echo $?; "
        "curl -sS --noproxy '*' -o /dev/null http://93.190.1.1/; echo $?"
    )
    with internet.watch() as seen:
        ran = containers.run("--transparent", "on", "--", "sh", "-c", script)

    assert ran.stdout.split() == ["200", "1", "6", "7"], ran.stderr
    assert seen.targets() == ["/in"]


@pytest.mark.parametrize("way", ["pause", "inside"])
def test_another_way_than_to_enter_its_network_is_refused(containers: Containers, way: str) -> None:
    ran = containers.run("--transparent", "on", "--way", way, "--", "true")

    assert ran.returncode == 2
    assert "names addresses" in ran.stderr


def relay_of(runs: Launches) -> int | None:
    """Return the process of the relay that gives the names of a user's container addresses."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes()
            if b"--fake-network" in words and str(runs.runtime).encode() in words:
                return int(entry.parent.name)
    return None


def test_a_name_keeps_its_address_when_the_relay_is_replaced(containers: Containers) -> None:
    runs = containers.runs
    script = (
        "of() { nslookup $1 127.0.0.1 | grep 'Address.*198[.]1[89]'; }; "
        "of origin.test; touch begun; until test -e go; do sleep 0.1; done; "
        "of git.test; of origin.test; "
        "curl -sS --noproxy '*' -o /dev/null -w '%{http_code}\\n' https://origin.test/"
    )
    words = ["--image", BOX, "--rm", "--transparent", "on", "--", "sh", "-c", script]
    process = subprocess.Popen(
        containers.argv(containers.words("run", *words)),
        env=containers.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    until((runs.project / "begun").exists, "the first name")
    first = relay_of(runs)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: relay_of(runs) not in {None, first}, "another relay")
    (runs.project / "go").touch()
    out, _ = process.communicate(timeout=120)

    before, other, after, status = out.splitlines()
    assert before == after != other
    assert status == "200"
