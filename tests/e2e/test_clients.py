"""The clients that people use get through with nothing but what `claude-proxy env` prints."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import FindProgram

from .conftest import StartProxy
from .rig.git_host import git_host
from .rig.internet import Internet
from .rig.package_index import NODE_PACKAGE, PYTHON_PACKAGE, node_index, python_index
from .rig.proxy import Proxy

REQUESTS = """
import requests
answer = requests.post("https://origin.test/echo", data=b"by requests")
print(answer.json()["body"])
"""

HTTPX = """
import sys
import httpx
with httpx.Client(http2=sys.argv[1] == "2") as client:
    answer = client.post("https://h2.test/echo", content=b"by httpx")
print(answer.json()["body"])
"""

WEB_SOCKET = """
from websockets.sync.client import connect
with connect("wss://echoing.test/web-socket") as socket:
    for message in ("hello", b"\\x00\\xff", "x" * 100_000):
        socket.send(message)
        assert socket.recv() == message
print("echoed")
"""

NODE = """
const answer = await fetch("https://origin.test/echo", {method: "POST", body: "by fetch"});
console.log((await answer.json()).body);
"""


@pytest.fixture(scope="package")
def environment(proxy: Proxy) -> Mapping[str, str]:
    """What every client here is started with, and nothing else."""
    return proxy.env()


def python(proxy: Proxy, script: str, *arguments: str, env: Mapping[str, str]) -> str:
    """Run a Python script and return what it printed."""
    ran = proxy.place.run(sys.executable, "-c", script, *arguments, environment=env)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_requests_posts(proxy: Proxy, environment: Mapping[str, str]) -> None:
    assert python(proxy, REQUESTS, env=environment) == "by requests"


@pytest.mark.parametrize("version", ["1", "2"])
def test_httpx_posts(proxy: Proxy, environment: Mapping[str, str], version: str) -> None:
    assert python(proxy, HTTPX, version, env=environment) == "by httpx"


def test_a_web_socket_echoes(
    proxy: Proxy, environment: Mapping[str, str], internet: Internet
) -> None:
    with internet.watch() as seen:
        printed = python(proxy, WEB_SOCKET, env=environment)

    assert printed == "echoed"
    assert [exchange.target for exchange in seen.exchanges] == ["/web-socket"]
    assert seen.exchanges[0].body_bytes == 100_007 + len((1000).to_bytes(2))
    row = proxy.outcome("echoing.test:443", "/web-socket")
    assert (row.allowed, row.status) == (True, 101)


def test_node_fetches(
    proxy: Proxy, environment: Mapping[str, str], program: FindProgram, tmp_path: Path
) -> None:
    node = program("node")
    version = proxy.place.run(node, "--version").stdout.strip().removeprefix("v")
    # Where fetch began to heed NODE_USE_ENV_PROXY.
    assert tuple(map(int, version.split("."))) >= (22, 21, 0), f"{node} is too old: {version}"
    script = tmp_path / "script.mjs"
    script.write_text(NODE)

    ran = proxy.place.run(node, script, environment=environment)

    assert ran.stdout.strip() == "by fetch", ran.stderr


def test_curl_speaks_http2_to_the_origin(
    proxy: Proxy, environment: Mapping[str, str], internet: Internet
) -> None:
    with internet.watch() as seen:
        ran = proxy.place.run(
            "curl",
            "-sS",
            "--http2",
            "https://h2.test/echo",
            "-d",
            "by curl",
            environment=environment,
        )

    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["body"] == "by curl"
    assert [exchange.version for exchange in seen.exchanges] == ["HTTP/2"]


def test_pip_installs_from_an_index(
    start_proxy: StartProxy, internet: Internet, tmp_path: Path
) -> None:
    internet.site("index.test", python_index())
    proxy = start_proxy("allow: [{host: index.test, methods: [GET, HEAD]}]\n")
    target = tmp_path / "installed"

    ran = proxy.place.run(
        *(sys.executable, "-m", "pip", "--isolated", "install"),
        *("--disable-pip-version-check", "--no-cache-dir"),
        *("--index-url", "https://index.test/simple", "--target", target, PYTHON_PACKAGE),
        environment={**proxy.env(), "PIP_CONFIG_FILE": "/dev/null"},
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (target / f"{PYTHON_PACKAGE}.py").exists()
    requests = [row.path for row in proxy.decisions("index.test:443") if row.method == "GET"]
    assert requests[0] == f"/simple/{PYTHON_PACKAGE}/"


def test_npm_installs_a_scoped_package(
    start_proxy: StartProxy, internet: Internet, tmp_path: Path, program: FindProgram
) -> None:
    internet.site("index.test", node_index("index.test"))
    proxy = start_proxy("allow: [{host: index.test, methods: [GET, HEAD]}]\n")
    (tmp_path / "package.json").write_text("{}")

    with internet.watch() as seen:
        ran = proxy.place.run(
            *(
                program("npm"),
                "install",
                "--no-update-notifier",
                "--registry",
                "https://index.test/",
                NODE_PACKAGE,
            ),
            environment=proxy.env(),
            cwd=tmp_path,
        )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (tmp_path / "node_modules" / NODE_PACKAGE / "index.js").exists()
    # The encoded slash goes upstream as the client wrote it.
    assert seen.targets()[0] == "/@rig%2fgreeting"


class Repository:
    """A repository with one commit, on a forge that would take a push."""

    def __init__(self, proxy: Proxy, root: Path) -> None:
        self.proxy = proxy
        self.url = "https://github.com/owner/project.git"
        self._bare = root / "owner" / "project.git"
        environment = proxy.env()
        names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.test"}
        names |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.test"}
        self._environment = {**environment, **names, "GIT_TERMINAL_PROMPT": "0"}
        first = root / "first"
        self.git("init", "--quiet", "--initial-branch=main", str(first))
        (first / "file").write_text("content\n")
        self.git("-C", str(first), "add", "file")
        self.git("-C", str(first), "commit", "--quiet", "-m", "first")
        self.git("clone", "--quiet", "--bare", str(first), str(self._bare))

    def git(self, *arguments: str) -> None:
        """Run git; it must succeed."""
        code, said = self.try_git(*arguments)
        assert code == 0, said

    def try_git(self, *arguments: str) -> tuple[int, str]:
        """Run git; return its exit code and what it said."""
        ran = self.proxy.place.run("git", *arguments, environment=self._environment)
        return ran.returncode, ran.stderr

    def head(self) -> str:
        """Return the commit that the forge has."""
        ran = self.proxy.place.run("git", "-C", self._bare, "rev-parse", "main")
        return ran.stdout.strip()


@pytest.fixture
def repository(start_proxy: StartProxy, internet: Internet, tmp_path: Path) -> Repository:
    """A repository behind the rules of the preset: reading only."""
    root = tmp_path / "forge"
    internet.site("github.com", git_host(root))
    return Repository(start_proxy("allow: [preset: github]\n"), root)


def test_git_clones_and_fetches(repository: Repository, tmp_path: Path) -> None:
    clone = tmp_path / "clone"

    repository.git("clone", "--quiet", repository.url, str(clone))
    repository.git("-C", str(clone), "fetch", "--quiet", "--force", "origin", "main")

    assert (clone / "file").read_text() == "content\n"


def test_git_cannot_push(repository: Repository, internet: Internet, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    repository.git("clone", "--quiet", repository.url, str(clone))
    repository.git("-C", str(clone), "commit", "--quiet", "--allow-empty", "-m", "second")
    before = repository.head()

    with internet.watch() as seen:
        code, said = repository.try_git("-C", str(clone), "push", "origin", "main")

    assert (code != 0, "403" in said) == (True, True), said
    assert "remote: Pushing to this repository is not allowed." in said
    assert repository.head() == before
    assert seen.exchanges == []
    denied = [row for row in repository.proxy.decisions("github.com:443") if not row.allowed]
    assert [(row.method, row.path, row.reason) for row in denied] == [
        ("GET", "/owner/project.git/info/refs?service=git-receive-pack", "path-not-allowed")
    ]
