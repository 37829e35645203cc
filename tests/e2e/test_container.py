"""A container without network has one way out, a Unix socket that is mounted into it."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.waiting import until

from .conftest import StartProxy
from .rig.container import Podman
from .rig.internet import Internet
from .rig.proxy import Proxy

ALLOWLIST = "allow: [allowed.test]\n"

# The socket's directory is mounted, not the socket: a proxy that starts anew makes a new one.
WAY_OUT = "/run/way-out"
RELAY = (
    *(sys.executable, "-m", "claude_proxy", "relay"),
    *("--listen", "127.0.0.1:3128", "--to", f"unix:{WAY_OUT}/proxy.sock", "--"),
)
GO_AROUND = """\
for name in $(env | grep -i _proxy= | cut -d= -f1); do unset $name; done
iptables -F
ip route add default via 192.0.2.2
ip link add name way type dummy
for try in \
  "curl -sS --max-time 5 http://192.0.2.2/" \
  "curl -sS --max-time 5 --noproxy * https://allowed.test/" \
  "nslookup allowed.test 192.0.2.53" \
  "wget -T 5 -O- http://[2001:db8::1]/"
do
  $try && echo "got out: $try"
done
ip -o link | cut -d: -f2
id -u
"""

type Inside = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def podman(program: Callable[[str], str]) -> Iterator[Podman]:
    program("runc")
    # Not pytest's own directory: podman wants a path of at most 50 characters.
    with tempfile.TemporaryDirectory(prefix="podman-", ignore_cleanup_errors=True) as directory:
        yield Podman(Path(directory), podman=program("podman"), busybox=program("busybox"))


@pytest.fixture
def way_out(tmp_path: Path) -> Path:
    """The directory on the host in which the socket lies."""
    directory = tmp_path / "way-out"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def proxy(start_proxy: StartProxy, way_out: Path) -> Proxy:
    return start_proxy(ALLOWLIST, "--listen", f"unix:{way_out}/proxy.sock")


@pytest.fixture
def inside(podman: Podman, proxy: Proxy, way_out: Path) -> Inside:
    """Run a shell script in a container, as root, behind a relay."""

    def run(script: str) -> subprocess.CompletedProcess[str]:
        mounts = ((way_out, WAY_OUT), (proxy.ca_file, "/ca.pem:ro"))
        return subprocess.run(
            podman.argv([*RELAY, "sh", "-c", script], *mounts),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_an_allowed_host_answers_through_the_relay(inside: Inside, internet: Internet) -> None:
    with internet.watch() as seen:
        ran = inside(
            "curl -sS --cacert /ca.pem -o /dev/null -w '%{http_code}' https://allowed.test/in"
        )

    assert ran.stdout == "200", ran.stderr
    assert seen.targets() == ["/in"]


def test_another_host_is_denied_and_nothing_leaves(
    inside: Inside, proxy: Proxy, internet: Internet
) -> None:
    with internet.watch() as seen:
        ran = inside("curl -sS --cacert /ca.pem https://denied.test/")

    assert ran.returncode == 56, ran.stdout
    assert "403" in ran.stderr
    assert seen.nothing()
    (row,) = proxy.decisions("denied.test:443")
    assert (row.reason, row.allowed) == ("no-rule", False)
    assert row.listener.startswith("unix ")
    assert "uid 0" in row.client


def test_root_in_the_container_finds_no_way_around(inside: Inside, internet: Internet) -> None:
    with internet.watch() as seen:
        ran = inside(GO_AROUND)

    assert "got out" not in ran.stdout, ran.stdout
    assert ran.stdout.split() == ["lo", "0"], ran.stderr
    assert seen.nothing()


def test_tools_in_the_container_are_led_to_the_relay(inside: Inside) -> None:
    ran = inside("env; cat /etc/hosts; hostname")

    *_, host = ran.stdout.split()
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        assert f"{name}=http://127.0.0.1:3128\n" in ran.stdout
    assert f"127.0.0.1\t{host}" in ran.stdout


def test_a_container_outlives_a_restart_of_the_proxy(
    podman: Podman, proxy: Proxy, way_out: Path
) -> None:
    ask = "curl -sS --cacert /ca.pem -o /dev/null -w '%{http_code}\\n' https://allowed.test/"
    mounts = ((way_out, WAY_OUT), (proxy.ca_file, "/ca.pem:ro"))
    running = subprocess.Popen(
        podman.argv([*RELAY, "sh", "-c", f"{ask}; cat > /dev/null; {ask}"], *mounts),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with running:
        assert running.stdin is not None
        assert running.stdout is not None
        first = running.stdout.readline()

        proxy.restart()
        until((way_out / "proxy.sock").exists, "the socket to be there again")
        running.stdin.close()

        assert (first, running.stdout.readline()) == ("200\n", "200\n")
