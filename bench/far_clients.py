"""The real clients whose round trips are counted: curl, git, npm, pip and Claude Code.

Each does its smallest ordinary piece of work in an empty directory, and says how many seconds that
took: a client that tells its own time is believed, of another the whole process counts.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.processes import StartError
from tests.e2e.rig.git_host import git_host
from tests.e2e.rig.internet import Internet
from tests.e2e.rig.messages_api import SPOKEN, messages_api
from tests.e2e.rig.package_index import NODE_PACKAGE, PYTHON_PACKAGE, node_index, python_index

REPOSITORY = Path(__file__).resolve().parent.parent
_TOOLS = REPOSITORY / "build" / "e2e" / "node_modules" / ".bin"
_PATIENCE_S = 120.0
_BURST = 3  # Claude Code opens as many tunnels at once
_KEY = "sk-ant-api03-imitation"  # the imitated service takes any

WEB_HOST, HTTP2_HOST, GIT_HOST, NODE_HOST, PYTHON_HOST, API_HOST = HOSTS = (
    "origin.test",
    "h2.test",
    "git.test",
    "npm.test",
    "pypi.test",
    "api.anthropic.com",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client works, and with what in its environment."""

    internet: Internet
    directory: Path
    environment: Mapping[str, str]

    def ran(self, *words: str | Path) -> str:
        """Run a command in the place to its end; return what it printed."""
        ran = subprocess.run(
            self.internet.host.argv([str(word) for word in words], cwd=self.directory),
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        if ran.returncode:
            raise StartError(f"{words[0]}: exit code {ran.returncode}: {ran.stderr.strip()[-300:]}")
        return ran.stdout

    def seconds_of(self, *words: str | Path) -> float:
        """Run a command, and return how long that took."""
        start = time.monotonic()
        self.ran(*words)
        return time.monotonic() - start


@dataclass(frozen=True, slots=True)
class Client:
    """One client, what it does, and the program that it needs."""

    name: str
    title: str
    program: str
    work: Callable[[Place, str], float]

    def found(self) -> str | None:
        """Return the path of its program, None if it is not installed."""
        return shutil.which(self.program, path=_TOOLS) or shutil.which(self.program)


def put_sites(internet: Internet, directory: Path) -> None:
    """Put on the internet what the clients ask for, with names that need no look-up."""
    sites = {
        WEB_HOST: None,
        HTTP2_HOST: None,
        GIT_HOST: git_host(_forge(directory)),
        NODE_HOST: node_index(NODE_HOST),
        PYTHON_HOST: python_index(),
        API_HOST: messages_api,
    }
    lines = [f"{internet.site(host, site)} {host}\n" for host, site in sites.items()]
    internet.site(HTTP2_HOST, http2=True)
    # git asks who this machine is.
    lines.append(f"127.0.0.1 {socket.gethostname()}\n")
    # A look-up is a round trip for everybody, or none where a cache is near: here there is none.
    with (directory / "hosts").open("a") as hosts:
        hosts.writelines(lines)


def _forge(directory: Path) -> Path:
    """Make a bare repository with one commit, and return the directory that it is served from."""
    forge, first = directory / "forge", directory / "first"
    own = ["-c", "user.name=a", "-c", "user.email=a@b.test", "-C", str(first)]
    first.mkdir()
    (first / "file").write_text("content\n")
    for words in (
        ["init", "--quiet", "--initial-branch=main", str(first)],
        [*own, "add", "file"],
        [*own, "commit", "--quiet", "-m", "first"],
        ["clone", "--quiet", "--bare", str(first), str(forge / "owner" / "project.git")],
    ):
        subprocess.run(["git", *words], check=True, capture_output=True)
    return forge


def _curl(place: Place, program: str) -> float:
    words = ("-sS", "--fail", "--output", "/dev/null", "--write-out", "%{time_total}")
    return float(place.ran(program, *words, f"https://{WEB_HOST}/page"))


def _curl_burst(place: Place, program: str) -> float:
    url = f"https://{WEB_HOST}/page"
    words = [
        "-sS",
        "--fail",
        "--parallel",
        "--parallel-immediate",
        "--write-out",
        "%{time_total}\n",
    ]
    for _ in range(_BURST):
        words += ["--output", "/dev/null", url]
    return max(map(float, place.ran(program, *words).split()))


def _curl_http2(place: Place, program: str) -> float:
    words = (
        "-sS",
        "--fail",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_version} %{time_total}",
    )
    version, seconds = place.ran(program, *words, f"https://{HTTP2_HOST}/page").split()
    if version != "2":
        raise StartError(f"curl spoke HTTP/{version}")
    return float(seconds)


def _git(place: Place, program: str) -> float:
    url = f"https://{GIT_HOST}/owner/project.git"
    return place.seconds_of(program, "clone", "--quiet", url, "clone")


def _npm(place: Place, program: str) -> float:
    (place.directory / "package.json").write_text("{}")
    words = ("install", "--no-update-notifier", "--no-audit", "--no-fund")
    where = ("--registry", f"https://{NODE_HOST}/", "--cache", place.directory / "cache")
    return place.seconds_of(program, *words, *where, NODE_PACKAGE)


def _pip(place: Place, _: str) -> float:
    words = ("-m", "pip", "--isolated", "download", "--disable-pip-version-check", "--quiet")
    where = ("--no-cache-dir", "--index-url", f"https://{PYTHON_HOST}/simple")
    return place.seconds_of(sys.executable, *words, *where, PYTHON_PACKAGE)


def _claude(place: Place, program: str) -> float:
    settings = {
        "hasCompletedOnboarding": True,
        "customApiKeyResponses": {"approved": [_KEY[-20:]], "rejected": []},
        "projects": {str(place.directory): {"hasTrustDialogAccepted": True}},
    }
    (place.directory / ".claude.json").write_text(json.dumps(settings))
    start = time.monotonic()
    said = place.ran("env", f"ANTHROPIC_API_KEY={_KEY}", program, "-p", "hi")
    took = time.monotonic() - start
    if said.strip() != SPOKEN:
        raise StartError(f"Claude Code said {said[-300:]!r}")
    return took


CLIENTS = (
    Client("curl", "curl's first request, by its own clock", "curl", _curl),
    Client("burst", "the last of three first requests at once", "curl", _curl_burst),
    Client("http2", "curl's first request over HTTP/2", "curl", _curl_http2),
    Client("git", "git clone of one commit", "git", _git),
    Client("npm", "npm install of one package", "npm", _npm),
    Client("pip", "pip download of one package", sys.executable, _pip),
    Client("claude", "claude -p, a short answer", "claude", _claude),
)
