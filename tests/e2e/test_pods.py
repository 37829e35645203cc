"""The wall of a pod, in network namespaces: rules by user, and a check that fails closed."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.cli.main import main
from tests.conftest import FindProgram
from tests.support.waiting import until

from .rig.internet import Internet
from .rig.launch import REACHABLE
from .rig.namespaces import INTERNET_ADDRESS
from .rig.proxy import REPOSITORY, Workplace

PROXY, AGENT = 9051, 1000
NO_VSOCK = f"""
import os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from tools.libseccomp import ALLOW, Filter, call_number, equal, errno_action
import errno
with Filter(ALLOW) as rules:
    rules.add(errno_action(errno.EPERM), call_number("socket"), equal(0, 40))
    rules.load()
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Pod:
    """The namespace of a pod: a proxy, and programs of other users beside it."""

    def __init__(self, place: Workplace, rules: Path) -> None:
        self.place, self._rules = place, rules
        self.state = place.directory / "proxy"
        self.state.mkdir(mode=0o755)
        os.chown(self.state, PROXY, PROXY)

    def as_user(self, uid: int, *words: str | Path) -> list[str]:
        paths = [sys.prefix, sys.base_prefix, str(REPOSITORY)]
        ids = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]
        reachable = ["unshare", "--mount", sys.executable, "-I", str(REACHABLE), *paths, "--"]
        # As containerd's profile has it.
        filtered = [sys.executable, "-c", NO_VSOCK]
        return [*reachable, "setpriv", *ids, "--", *filtered, *map(str, words)]

    def check(self, uid: int = AGENT, *more: str) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-m", "claude_proxy", "doctor", "--attack-here", "--json", *more]
        environment = self.place.environment(
            HTTPS_PROXY="http://127.0.0.1:3128",
            HOME="/tmp",
            KUBERNETES_SERVICE_HOST=INTERNET_ADDRESS,
            KUBERNETES_SERVICE_PORT="443",
            PYTHONSAFEPATH="1",
        )
        return self.place.run(*self.as_user(uid, *words), environment=environment)

    def load(self) -> None:
        done = self.place.run("nft", "-f", str(self._rules))
        assert done.returncode == 0, done.stderr

    def unload(self) -> None:
        self.place.run("nft", "flush", "ruleset")


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("manifests")
    for layout in ("one", "two"):
        place = directory / layout
        place.mkdir()
        assert main(["container", "init", "kubernetes", str(place), "--pods", layout]) == 0
    return directory


@pytest.fixture
def pod(internet: Internet, manifests: Path, program: FindProgram) -> Iterator[Pod]:
    program("nft")
    if os.geteuid() != 0:
        pytest.skip("root is needed to be other users")
    with tempfile.TemporaryDirectory(prefix="pod-") as directory:
        Path(directory).chmod(0o755)  # of other users, too
        yield from running(internet, manifests, Path(directory))


def running(internet: Internet, manifests: Path, directory: Path) -> Iterator[Pod]:
    place = Workplace(internet, directory)
    pod = Pod(place, manifests / "one/kubernetes/egress.nft")
    listed = place.directory / "allowlist.yaml"
    listed.write_text("allow: [origin.test]\n")
    root = place.directory / "root.pem"
    root.write_bytes(internet.pki.root_file.read_bytes())
    words = [sys.executable, "-m", "claude_proxy", "serve", "--listen", "127.0.0.1:3128", "--quiet"]
    words += ["--confdir", str(pod.state), "--statedir", str(pod.state)]
    words += ["--allowlist", str(listed), "--upstream-ca", str(root)]
    with (
        (place.directory / "log").open("wb") as log,
        subprocess.Popen(
            internet.host.argv(pod.as_user(PROXY, *words), cwd=Path("/")),
            env=place.environment(PYTHONSAFEPATH="1", CLAUDE_PROXY_WARM_UPSTREAMS="false"),
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as proxy,
    ):
        try:
            until(lambda: proxy.poll() is not None or answers(pod), "the proxy to listen")
            assert proxy.poll() is None, (place.directory / "log").read_text()
            yield pod
        finally:
            pod.unload()
            proxy.terminate()


def answers(pod: Pod) -> bool:
    ask = "import socket; socket.socket().connect(('127.0.0.1', 3128))"
    return pod.place.run(sys.executable, "-c", ask).returncode == 0


def rows(done: "subprocess.CompletedProcess[str]") -> dict[str, str]:
    return {row["name"]: row["result"] for row in json.loads(done.stdout)["attacks"]}


def test_without_the_rules_the_check_fails_and_says_what_got_out(pod: Pod) -> None:
    done = pod.check()

    assert done.returncode == 1, done.stderr
    assert rows(done)["pod-proxy"] == "works"
    assert rows(done)["pod-tcp"] == "THROUGH"
    assert f"{INTERNET_ADDRESS}:443: connected" in done.stdout


def test_with_the_rules_the_check_passes_and_the_proxy_still_reaches_upstreams(pod: Pod) -> None:
    pod.load()

    done = pod.check()

    assert set(rows(done).values()) == {"works", "stopped"}, done.stdout
    assert done.returncode == 0
    ran = pod.place.run(
        *pod.as_user(AGENT, "curl", "-sS", "--cacert", pod.state / "mitmproxy-ca-cert.pem"),
        *("-x", "http://127.0.0.1:3128", "-o", "/dev/null", "-w", "%{http_code}"),
        "https://origin.test/in",
    )
    assert ran.stdout == "200", ran.stderr


def test_root_without_capabilities_is_kept_in_as_well(pod: Pod) -> None:
    pod.load()

    ran = pod.place.run("curl", "-sS", "--max-time", "5", f"https://{INTERNET_ADDRESS}/")

    assert ran.returncode == 7, ran.stderr


def test_the_proxy_itself_is_kept_to_its_ports(pod: Pod) -> None:
    pod.load()
    words = ("curl", "-sSk", "-o", "/dev/null", "--max-time", "5")

    allowed = pod.place.run(*pod.as_user(PROXY, *words, f"https://{INTERNET_ADDRESS}/"))
    other = pod.place.run(*pod.as_user(PROXY, *words, f"http://{INTERNET_ADDRESS}:80/"))

    assert other.returncode == 7, other.stderr
    assert allowed.returncode != 7, allowed.stderr


def test_without_a_proxy_the_check_does_not_pass(pod: Pod) -> None:
    pod.load()
    environment = pod.place.environment(HTTPS_PROXY="http://127.0.0.1:3129", HOME="/tmp")
    words = [sys.executable, "-m", "claude_proxy", "doctor", "--attack-here", "--json"]

    done = pod.place.run(*pod.as_user(AGENT, *words), environment=environment)

    assert done.returncode != 0
    assert rows(done)["pod-proxy"] == "error"


@pytest.mark.parametrize("layout", ["one", "two"])
def test_the_manifests_are_valid_after_kustomize(
    manifests: Path, layout: str, program: FindProgram, tmp_path: Path
) -> None:
    built = tmp_path / "all.yaml"
    kubectl = program("kubectl")

    done = subprocess.run(
        [kubectl, "kustomize", str(manifests / layout / "kubernetes")],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    built.write_bytes(done.stdout)
    checked = subprocess.run(
        [program("kubernetes-validate"), "--strict", str(built)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr


CHECKED = {
    "compose": ("compose.yaml", "vendor.compose-spec"),
    "github-action": (".github/actions/claude-proxy/action.yml", "vendor.github-actions"),
}


@pytest.mark.parametrize("kind", CHECKED)
def test_the_other_files_are_what_their_schemas_ask_for(
    kind: str, program: FindProgram, tmp_path: Path
) -> None:
    path, schema = CHECKED[kind]
    assert main(["container", "init", kind, str(tmp_path)]) == 0

    checked = subprocess.run(
        [program("check-jsonschema"), "--builtin-schema", schema, str(tmp_path / path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout


def test_the_service_of_the_quadlet_files_is_one_that_systemd_takes(
    program: FindProgram, tmp_path: Path
) -> None:
    assert main(["container", "init", "quadlet", str(tmp_path)]) == 0

    checked = subprocess.run(
        [
            *(program("systemd-analyze"), "--user", "verify", "--man=no"),
            str(tmp_path / "quadlet/claude-proxy-way-out.service"),
        ],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (checked.returncode, checked.stderr) == (0, "")
