"""Every way into a container of a real Docker daemon leads to the proxy, and to nothing else."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from claude_proxy.sandbox.container import keeper_link
from tests.conftest import FindProgram
from tests.support.processes import has_ended
from tests.support.waiting import until

from .conftest import Launch
from .rig.docker import DockerDaemon
from .rig.engine import image_of
from .rig.internet import Internet
from .rig.launch import NOBODY, Launches

WAYS = ("enter", "pause", "inside")
PASSWD = b"root:x:0:0::/root:/bin/sh\n"
ASK = "curl -sS -o /dev/null -w '%{http_code}\\n' https://origin.test/in"
AROUND = """\
for name in $(env | grep -i -e _proxy= -e SSL_ -e CURL_ | cut -d= -f1); do unset $name; done
iptables -F
ip route add default via 192.0.2.2
ip link add way type dummy
for try in "curl -sS --max-time 5 http://192.0.2.2/" "curl -sS --max-time 5 https://origin.test/" \
  "nc -w 5 192.0.2.2 443" "ping -c 1 -W 5 192.0.2.2"
do
  $try </dev/null && echo "got out: $try"
done
"""


@pytest.fixture(scope="module")
def daemon(program: FindProgram) -> Iterator[DockerDaemon]:
    program("runc")
    daemon = DockerDaemon(program("dockerd"), program("docker"))
    try:
        files = [("/etc/passwd", PASSWD), ("/etc/ssl/certs/ca-certificates.crt", b"")]
        box = image_of(program("busybox"), [program("curl")], files)
        daemon.call("import", "-", "box", given=box)
        bare = image_of(None, [program("busybox")])
        daemon.call("import", "-", "bare", given=bare)
        yield daemon
    finally:
        daemon.close()


class Containers:
    """The commands of `container` with Docker, as a user runs them."""

    def __init__(self, runs: Launches, daemon: DockerDaemon) -> None:
        self.runs, self.daemon = runs, daemon
        self.given = ("--allowlist", runs.allowlist, "--upstream-ca", runs.root_file)

    def __call__(self, command: str, *more: str | Path) -> subprocess.CompletedProcess[str]:
        given = ("--engine", "docker", *self.given) if command == "run" else ()
        words = [*self.runs.program(), "container", command, *given, *more]
        return subprocess.run(
            self.runs.argv(words),
            env=self.runs.environment(**self.daemon.variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def directory(self, name: str) -> Path:
        return self.runs.place.home / ".local/state/claude-proxy/containers" / name

    def kill_keeper(self, name: str) -> None:
        status = keeper_link.ask(self.directory(name), "status")
        assert status is not None
        helpers = [pid for pids in status["helpers"].values() for pid in pids]
        os.kill(int(status["keeper"]), signal.SIGKILL)
        until(lambda: all(map(has_ended, helpers)), "the helpers to end")

    def inside(self, name: str, script: str) -> str:
        ran = subprocess.run(
            [self.daemon.docker, "exec", name, "sh", "-c", script],
            env=self.runs.environment(**self.daemon.variables),
            capture_output=True,
            text=True,
            check=False,
        )
        return ran.stdout + ran.stderr

    def pid(self, name: str) -> int:
        return int(self.daemon.call("inspect", "--format", "{{.State.Pid}}", name))


@pytest.fixture
def containers(runs: Launches, daemon: DockerDaemon) -> Containers:
    return Containers(runs, daemon)


@pytest.fixture
def detached(containers: Containers) -> Iterator[Callable[[str], str]]:
    """Start a container that waits, by one way; return its name."""
    names: list[str] = []

    def start(way: str) -> str:
        names.append(f"waits-{way}")
        image = ("--image", "box", "--way", way, "--name", names[-1], "--detach")
        started = containers("run", *image, "--", "sleep", "1000")
        assert started.returncode == 0, started.stderr
        return names[-1]

    yield start
    for name in names:
        removed = containers("rm", "--force", name)
        assert removed.returncode == 0, removed.stderr


@pytest.mark.parametrize("way", WAYS)
def test_the_proxy_is_the_only_network_and_the_exit_code_is_that_of_cmd(
    containers: Containers, internet: Internet, way: str
) -> None:
    script = f"ip -o link | cut -d: -f2; {ASK}; {ASK.replace('origin', 'denied')}; {AROUND} exit 42"
    with internet.watch() as seen:
        ran = containers("run", "--image", "box", "--rm", "--way", way, "--", "sh", "-c", script)

    assert (ran.returncode, ran.stdout.split()[:3]) == (42, ["lo", "200", "000"]), ran.stderr
    assert "got out" not in ran.stdout
    assert seen.targets() == ["/in"]
    assert containers.daemon.call("ps", "--all", "--quiet") == ""


@pytest.mark.parametrize("way", WAYS)
def test_without_its_keeper_a_container_has_nothing_until_start_heals_it(
    containers: Containers, detached: Callable[[str], str], way: str
) -> None:
    name = detached(way)
    before = containers.pid(name)
    assert containers.inside(name, ASK) == "200\n"

    containers.kill_keeper(name)
    assert "200" not in containers.inside(name, ASK)
    healed = containers("start", name)

    assert healed.returncode == 0, healed.stderr
    assert containers.inside(name, ASK) == "200\n"
    assert containers.pid(name) == before


def test_a_container_outlives_its_holder_and_start_makes_another_one(
    containers: Containers, detached: Callable[[str], str]
) -> None:
    name = detached("pause")
    containers.daemon.call("kill", f"claude-proxy-network-of-{name}")
    assert containers.inside(name, ASK) == "200\n"

    containers.kill_keeper(name)
    assert "200" not in containers.inside(name, ASK)
    assert containers.inside(name, "ip -o link | cut -d: -f2").split() == ["lo"]
    containers("start", name)

    assert containers.inside(name, ASK) == "200\n"


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_container_starts_again_with_its_network(
    containers: Containers, detached: Callable[[str], str], way: str
) -> None:
    name = detached(way)
    assert containers("stop", "--time", "1", name).returncode == 0

    started = containers("start", name)

    assert started.returncode == 0, started.stderr
    assert containers.inside(name, ASK) == "200\n"


def test_an_image_with_one_static_program_needs_nothing_for_the_relay(
    containers: Containers, internet: Internet
) -> None:
    fetch = ("busybox", "wget", "-q", "-O-", "http://plain.test/")
    with internet.watch() as seen:
        ran = containers(
            *("run", "--image", "bare", "--rm", "--way", "inside", "--", "/usr/bin/busybox"),
            *fetch[1:],
        )

    assert "403" in ran.stderr, ran.stderr
    assert seen.nothing()


def test_a_user_of_the_group_docker_has_the_way_pause_and_owns_the_files(
    launch: Launch, daemon: DockerDaemon
) -> None:
    daemon.admit_everybody()
    containers = Containers(launch(ordinary=True), daemon)

    planned = containers("run", "--image", "box", "--dry-run", "--", "true")
    ran = containers("run", "--image", "box", "--rm", "--", "sh", "-c", f"{ASK}; id -u; touch new")
    refused = containers("run", "--image", "box", "--way", "enter", "--", "true")

    assert planned.stdout.startswith("# way: pause ("), planned.stderr
    assert ran.stdout.split() == ["200", str(NOBODY)], ran.stderr
    assert (containers.runs.project / "new").stat().st_uid == NOBODY
    assert refused.returncode == 2
    assert "only root may enter the namespaces that the daemon makes" in refused.stderr
    assert "leave --way out: pause can be used" in refused.stderr


def test_a_user_who_may_not_enter_a_container_can_verify_it(
    launch: Launch, daemon: DockerDaemon
) -> None:
    daemon.admit_everybody()
    containers = Containers(launch(ordinary=True), daemon)
    started = containers(
        "run", "--image", "box", "--name", "web", "--detach", "--", "sleep", "1000"
    )

    verified = containers("verify", "web")
    containers("rm", "--force", "web")

    assert started.returncode == 0, started.stderr
    assert verified.returncode == 0, verified.stdout + verified.stderr
