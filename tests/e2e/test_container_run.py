"""`claude-proxy container run` with real podman: nothing but `lo`, and the proxy on it."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.conftest import FindProgram

from .rig.containers import Containers
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
        ran = containers.run("--", "sh", "-c", script)

    assert ran.stdout.split() == ["lo", "200", "56"], ran.stderr
    assert seen.targets() == ["/in"]
    assert "denied in this run" in ran.stderr


def test_the_exit_code_is_that_of_the_command(containers: Containers) -> None:
    ran = containers.run("--", "sh", "-c", "exit 42")

    assert (ran.returncode, ran.stdout) == (42, ""), ran.stderr


def test_the_start_is_recorded_with_the_image_and_the_end_with_the_exit_code(
    containers: Containers,
) -> None:
    containers("run", "--image", "box", "--rm", "--name", "one", "--", "sh", "-c", "exit 3")

    texts = [row.text for row in containers.runs.audit() if row.text.startswith("run one")]
    start, end = texts[-2:]
    assert start.startswith("run one: sh (image sha256:")
    assert end == "run one: exit code 3"


def test_a_binary_alone_in_an_image_without_a_shell_is_served(
    containers: Containers, storage: EngineStorage, program: FindProgram
) -> None:
    storage.add(image_of(None, [program("curl")]), "bare")

    ran = containers(
        *("run", "--image", "bare", "--rm", "--"),
        *(program("curl"), "-sS", "-o", "/dev/null", "-w", "%{http_code}", "https://origin.test/"),
    )

    assert ran.stdout == "200", ran.stderr


def test_without_variables_and_routes_nothing_gets_out(
    containers: Containers, internet: Internet
) -> None:
    script = """\
for name in $(env | grep -i _proxy= | cut -d= -f1); do unset $name; done
iptables -F
ip route add default via 192.0.2.2
ip link add name way type dummy
for try in \
  "curl -sS --max-time 5 http://192.0.2.2/" \
  "curl -sS --max-time 5 --noproxy * https://origin.test/" \
  "ping -c 1 -w 3 192.0.2.1" \
  "nslookup origin.test 192.0.2.53"
do
  $try && echo "got out: $try"
done
ip -o link | cut -d: -f2
"""
    with internet.watch() as seen:
        ran = containers.run("--", "sh", "-c", script)

    assert "got out" not in ran.stdout
    assert ran.stdout.split()[-1] == "lo", ran.stderr
    assert seen.nothing()


def test_a_container_is_hard(containers: Containers) -> None:
    script = """\
grep -E "CapEff|CapBnd|NoNewPrivs|Seccomp:" /proc/self/status | tr -s '\t' ' '
touch /etc/new || echo read-only
touch /tmp/new /var/tmp/new /run/new /workspace/new && echo writable
cat /etc/hosts
"""

    ran = containers.run("--name", "hard", "--", "sh", "-c", script)

    assert "CapEff: 0000000000000000" in ran.stdout
    assert "CapBnd: 0000000000000000" in ran.stdout
    assert "NoNewPrivs: 1" in ran.stdout
    assert "Seccomp: 2" in ran.stdout
    assert "read-only\nwritable\n" in ran.stdout, ran.stderr
    assert ran.stdout.endswith("127.0.0.1 localhost\n127.0.0.1 hard\n")


def test_files_belong_to_the_projects_owner(containers: Containers) -> None:
    os.chown(containers.runs.project, 1000, 1000)

    ran = containers.run("--", "sh", "-c", "id -u; echo ~; touch ~/mine /workspace/made")

    assert ran.stdout.split() == ["1000", "/home/somebody"], ran.stderr
    found = (containers.runs.project / "made").stat()
    assert (found.st_uid, found.st_gid) == (1000, 1000)


def test_nothing_of_the_host_is_shown(containers: Containers) -> None:
    ran = containers.run("--", "sh", "-c", "ls -A / ~ /run; env")

    assert str(containers.runs.place.home) not in ran.stdout
    assert "XDG_RUNTIME_DIR" not in ran.stdout
    assert "CONTAINERS_CONF" not in ran.stdout


def test_trust_is_mounted_where_the_image_keeps_its_roots(containers: Containers) -> None:
    script = f"cmp() {{ wc -c < $1; }}; cmp {ROOTS}; cmp /run/claude-proxy/bundle.pem"

    ran = containers.run("--", "sh", "-c", script)

    first, second = ran.stdout.split()
    assert first == second != "0"


def test_a_socket_in_the_project_is_hidden_and_one_that_is_named_refused(
    containers: Containers,
) -> None:
    with contextlib.chdir(containers.runs.project), socket.socket(socket.AF_UNIX) as listening:
        listening.bind("agent.sock")
        listening.listen()

        ran = containers.run("--", "sh", "-c", "stat -c %F /workspace/agent.sock")
        named = containers.run("--allow-ro", containers.runs.project / "agent.sock", "--", "true")

    assert ran.stdout == "regular empty file\n", ran.stderr
    assert (named.returncode, "Unix socket" in named.stderr) == (2, True)


def test_a_command_that_is_not_in_the_image_is_not_found(containers: Containers) -> None:
    ran = containers.run("--", "nowhere")

    assert ran.returncode == 127, ran.stderr
    assert ran.stderr.count("nowhere") == 1


def test_an_image_that_is_missing_is_a_failure_with_a_hint(containers: Containers) -> None:
    ran = containers("run", "--image", "nowhere", "--", "true")

    assert ran.returncode == 1
    assert "podman pull nowhere" in ran.stderr


def test_a_dry_run_makes_nothing(containers: Containers) -> None:
    ran = containers("run", "--image", "box", "--name", "dry", "--dry-run", "--", "true")

    assert ran.returncode == 0, ran.stderr
    assert "# way: enter" in ran.stdout
    assert "--network none" in ran.stdout
    assert containers.listed() == {}


def test_a_signal_to_the_launcher_reaches_the_command(containers: Containers) -> None:
    script = "trap 'exit 7' TERM; echo ready; while true; do sleep 0.1; done"
    ran = containers.popen("run", "--image", "box", "--rm", "--", "sh", "-c", script)
    with ran:
        assert ran.stdout is not None
        ran.stdout.readline()

        ran.send_signal(signal.SIGTERM)

        assert ran.wait(120) == 7


def test_standard_input_reaches_the_command(containers: Containers) -> None:
    ran = containers("run", "--image", "box", "--rm", "--", "cat", given="hello\n")

    assert ran.stdout == "hello\n", ran.stderr
