"""`claude-proxy container run` with real podman: nothing but `lo`, and the proxy on it."""

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import FindProgram

from .rig.engine import EngineStorage, image_of
from .rig.internet import Internet
from .rig.launch import Launches

PASSWD = b"root:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/home/somebody:/bin/sh\n"
ROOTS = "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture(scope="module")
def storage(program: FindProgram) -> Iterator[EngineStorage]:
    program("runc")
    storage = EngineStorage(program("podman"))
    files = [("/etc/passwd", PASSWD), (ROOTS, b""), ("/etc/apt/apt.conf.d/01", b"")]
    storage.add(image_of(program("busybox"), [program("curl")], files), "box")
    yield storage
    storage.close()


class Containers:
    """The commands of `container`, as a user runs them."""

    def __init__(self, runs: Launches, storage: EngineStorage) -> None:
        self.runs, self.storage = runs, storage

    def words(self, command: str, *more: str | Path) -> list[str | Path]:
        given: Sequence[str | Path] = ()
        if command == "run":
            given = ["--allowlist", self.runs.allowlist, "--upstream-ca", self.runs.root_file]
        return [*self.runs.program(), "container", command, *given, *more]

    def __call__(self, command: str, *more: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.runs.argv(self.words(command, *more)),
            env=self.runs.environment(**self.storage.variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture
def containers(runs: Launches, storage: EngineStorage) -> Containers:
    return Containers(runs, storage)


def test_an_allowed_host_answers_and_another_is_denied(
    containers: Containers, internet: Internet
) -> None:
    script = (
        "ip -o link | cut -d: -f2; "
        "curl -sS -o /dev/null -w '%{http_code}\\n' https://origin.test/in; "
        "curl -sS -o /dev/null https://denied.test/; echo $?"
    )
    with internet.watch() as seen:
        ran = containers("run", "--image", "box", "--rm", "--", "sh", "-c", script)

    assert ran.stdout.split() == ["lo", "200", "56"], ran.stderr
    assert seen.targets() == ["/in"]
    assert "denied in this run" in ran.stderr


def test_the_exit_code_is_that_of_the_command(containers: Containers) -> None:
    ran = containers("run", "--image", "box", "--rm", "--", "sh", "-c", "exit 42")

    assert (ran.returncode, ran.stdout) == (42, ""), ran.stderr


def test_the_start_is_recorded_with_the_image_and_the_end_with_the_exit_code(
    containers: Containers,
) -> None:
    containers("run", "--image", "box", "--rm", "--name", "one", "--", "sh", "-c", "exit 3")

    texts = [row.text for row in containers.runs.audit() if row.text.startswith("run one")]
    start, end = texts[-2:]
    assert start.startswith("run one: sh (image sha256:")
    assert end == "run one: exit code 3"


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
        ran = containers(
            "run", "--image", "box", "--rm", "--transparent", "on", "--", "sh", "-c", script
        )

    assert ran.stdout.split() == ["200", "1", "6", "7"], ran.stderr
    assert seen.targets() == ["/in"]
