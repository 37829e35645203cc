"""What `container init` writes, used for real: podman-compose and the devcontainer program."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .rig.engine import EngineStorage, image_of
from .rig.internet import Internet
from .rig.rootless import USER, RootlessUser

PASSWD = b"root:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/tmp:/bin/sh\n"
ALLOWED = "curl -sS -o /dev/null -w '%{http_code}\\n' https://origin.test/in"
DENIED = "curl -sS -o /dev/null https://denied.test/; echo $?"
LINKS = "ip -o link | cut -d: -f2"
IMAGE = "localhost/box:latest"
OURS = Path(sys.executable).parent

type Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def user(internet: Internet, program: FindProgram) -> Iterator[RootlessUser]:
    if os.geteuid() != 0:
        pytest.skip("root is needed to be another user")
    program("newuidmap")
    user = RootlessUser(internet)
    yield user
    user.close()


@pytest.fixture(scope="module")
def storage(user: RootlessUser, program: FindProgram) -> Iterator[EngineStorage]:
    """Images and containers of the user."""
    program("runc")
    podman = program("podman")
    storage = EngineStorage(podman, owner=USER)
    image = image_of(program("busybox"), [program("curl")], [("/etc/passwd", PASSWD)])
    call = user.argv
    environment = user.environment(**storage.variables)
    words = [podman, "import", "--quiet", "--change", 'CMD ["sh"]', "-", IMAGE]
    done = subprocess.run(
        call(words), input=image, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    yield storage
    # The last one ends the process that holds the user namespace.
    ends = (["rm", "--all", "--force", "--time", "0"], ["unshare", "rm", "-rf", "root"])
    for end in (*ends, ["system", "migrate"]):
        subprocess.run(
            call([podman, *end]), env=environment, capture_output=True, check=False, timeout=60
        )
    storage.discard()


@pytest.fixture
def variables(storage: EngineStorage, program: FindProgram) -> Mapping[str, str]:
    """The variables of the user, by which the programs are found."""
    tools = [Path(program(name)).parent for name in ("podman-compose", "devcontainer")]
    path = ":".join([*map(str, (*tools, OURS)), os.environ["PATH"]])
    return {**storage.variables, "PATH": path}


@pytest.fixture
def alone(user: RootlessUser, variables: Mapping[str, str]) -> Call:
    """Run a program as the user, while nothing is served."""

    def run(*words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            user.argv(words),
            env=user.environment(**{**variables, **more}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def call(user: RootlessUser, variables: Mapping[str, str], alone: Call) -> Iterator[Call]:
    """Run a program as the user, while `container way-out` serves."""
    allowlist = user.directory / "allowlist.yaml"
    allowlist.write_text("allow: [origin.test]\n")
    root = user.directory / "root.pem"
    root.write_bytes(user.internet.pki.root_file.read_bytes())
    serve: list[str | Path] = ["claude-proxy", "container", "way-out", "--"]
    log = (user.directory / "way-out.log").open("wb")
    with subprocess.Popen(
        user.argv([*serve, "--allowlist", allowlist, "--upstream-ca", root]),
        env=user.environment(**variables),
        stdout=log,
        stderr=subprocess.STDOUT,
    ) as proxy:
        ready = ("claude-proxy", "container", "way-out", "--ready")
        until(lambda: alone(*ready).returncode == 0, "the way out to be served")
        yield alone
        proxy.terminate()
    log.close()


def test_a_compose_file_gives_the_agent_one_way_out(call: Call, internet: Internet) -> None:
    written = call("claude-proxy", "container", "init", "compose", "--image", IMAGE)
    assert written.returncode == 0, written.stderr
    script = (
        f"{LINKS}; {ALLOWED}; {DENIED}; id -u; grep -c CapEff:.0000000000000000 /proc/self/status; "
        "wc -c < /etc/resolv.conf; touch x /home/agent/x /tmp/x && echo written; "
        "touch /x compose.yaml; ls /run"
    )
    try:
        up = call("podman-compose", "up", "-d")
        assert up.returncode == 0, up.stderr
        with internet.watch() as seen:
            ran = call("podman-compose", "exec", "-T", "agent", "sh", "-c", script)
    finally:
        call("podman-compose", "down", "-t", "0")

    assert ran.stdout.split() == [
        *("lo", "200", "56", "1000", "1", "0", "written", "claude-proxy"),
    ], ran.stderr
    assert ran.stderr.count("Read-only file system") == 2
    assert seen.targets() == ["/in"]


def test_a_dev_container_is_used_by_the_official_program(
    call: Call, internet: Internet, user: RootlessUser
) -> None:
    written = call("claude-proxy", "container", "init", "devcontainer", "--image", IMAGE)
    assert written.returncode == 0, written.stderr
    options = ("--docker-path", "podman", "--workspace-folder", user.project)
    script = (
        f"{LINKS}; {ALLOWED}; {DENIED}; id -u; touch y && echo written; "
        "touch .devcontainer/devcontainer.json; exit 7"
    )

    try:
        up = call("devcontainer", "up", *options)
        assert up.returncode == 0, up.stderr
        with internet.watch() as seen:
            ran = call("devcontainer", "exec", *options, "sh", "-c", script)
    finally:
        call("podman", "rm", "--all", "--force", "--time", "0")

    assert (ran.stdout.split(), ran.returncode) == (["lo", "200", "56", "1000", "written"], 7)
    assert "Read-only file system" in ran.stderr
    assert seen.targets() == ["/in"]


def test_a_dev_container_says_that_the_proxy_does_not_run(alone: Call, user: RootlessUser) -> None:
    written = alone("claude-proxy", "container", "init", "devcontainer", "--image", IMAGE)
    assert written.returncode == 0, written.stderr

    up = alone(
        *("devcontainer", "up", "--docker-path", "podman", "--workspace-folder", "."),
        HOME=str(user.runtime),
    )

    assert up.returncode != 0
    assert "claude-proxy container way-out" in up.stdout + up.stderr


# What quadlet makes of these keys (podman-systemd.unit(5)); podman here may be too old for it.
OPTIONS = {
    "ContainerName": "--name",
    "DropCapability": "--cap-drop",
    "Environment": "--env",
    "Network": "--network",
    "Volume": "--volume",
}
FLAGS = {
    "NoNewPrivileges": "--security-opt=no-new-privileges",
    "ReadOnly": "--read-only",
}


def podman_words(unit: str, home: Path) -> list[str]:
    """Return the `podman run` that a .container unit stands for."""
    options, arguments, image, command, user = [], [], "", [], ["", ""]
    lines = unit.partition("[Container]\n")[2].partition("\n[")[0].splitlines()
    for line in lines:
        key, _, value = line.partition("=")
        text = value.replace("%h", str(home)).replace("%%", "%")
        if key in OPTIONS:
            found = shlex.split(text)[0] if key == "Environment" else text
            options += [OPTIONS[key], found.replace(".volume:", ":")]
        elif key in FLAGS:
            options.append(FLAGS[key])
        elif key == "PodmanArgs":
            arguments += shlex.split(text)
        elif key == "Exec":
            command = shlex.split(text)
        elif key == "Image":
            image = text
        elif key in {"User", "Group"}:
            user[key == "Group"] = text
        else:
            raise AssertionError(line)
    detached = [word for word in arguments if word not in {"--interactive", "--tty"}]
    return ["--detach", "--user", ":".join(user), *options, *detached, image, *command]


def test_the_containers_of_the_quadlet_units_have_one_way_out(
    call: Call, internet: Internet, user: RootlessUser
) -> None:
    written = call("claude-proxy", "container", "init", "quadlet", "--image", IMAGE)
    assert written.returncode == 0, written.stderr
    units = user.project / "quadlet"
    script = f"{LINKS}; {ALLOWED}; {DENIED}; id -u; touch x /home/agent/x && echo written"
    try:
        for name in ("project-way-out", "project"):
            words = podman_words((units / f"{name}.container").read_text(), user.home)
            command = ["sleep", "1000"] if name == "project" else []
            started = call("podman", "run", *words, *command)
            assert started.returncode == 0, started.stderr
        with internet.watch() as seen:
            ran = call("podman", "exec", "project", "sh", "-c", script)
    finally:
        call("podman", "rm", "--force", "--time", "0", "project", "project-way-out")

    assert ran.stdout.split() == ["lo", "200", "56", "1000", "written"], ran.stderr
    assert seen.targets() == ["/in"]
