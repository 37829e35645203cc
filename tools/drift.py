"""What the newest clients and libraries would change; run it by `make drift`.

It installs the newest of everything that poetry.lock and tools/e2e pin into build/drift, runs the
end-to-end tests there, and prints which versions are newer, what Claude Code asks of the network
that tests/e2e/recorded does not know, and which hosts Docker names or sends clients to that
tests/config/recorded does not know. Exit code 0: nothing that matters has changed; 1: a test
failed, something is new on the wire, or Docker's hosts could not be read; 2: the newest could not
be installed.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "drift"
RECORDED = ROOT / "tests" / "e2e" / "recorded" / "claude-code.txt"
DOCKER_HOSTS = ROOT / "tests" / "config" / "recorded" / "docker-hosts.txt"
DOCKER_PAGE = (
    "https://raw.githubusercontent.com/docker/docs/main/content/manuals/desktop/setup/allow-list.md"
)
DOCKER_IMAGE = "library/hello-world"
SAME, DRIFTED, FAILED = 0, 1, 2


def install_libraries() -> Path:
    """Make a venv with the newest that pyproject.toml allows, and return its Python."""
    venv = PLACE / "venv"
    python = venv / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = project["dependency-groups"]["dev"]
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "--editable", str(ROOT), *wanted], check=True, cwd=ROOT)
    return python


def install_clients() -> Path:
    """Install the newest of the programs that npm has, and return where."""
    prefix = PLACE / "e2e"
    subprocess.run(
        ["bash", ROOT / "tools" / "e2e", "--newest"],
        check=True,
        cwd=ROOT,
        env=os.environ | {"E2E_PREFIX": str(prefix)},
    )
    return prefix


def pinned_libraries() -> dict[str, str]:
    """Return the version of each library that poetry.lock pins."""
    lock = tomllib.loads((ROOT / "poetry.lock").read_text("utf-8"))
    return {package["name"].lower(): package["version"] for package in lock["package"]}


def installed_libraries(python: Path) -> dict[str, str]:
    """Return the version of each library in the venv."""
    listed = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return {found["name"].lower(): found["version"] for found in json.loads(listed.stdout)}


def pinned_clients() -> dict[str, str]:
    """Return the version of each client that tools/e2e pins."""
    text = (ROOT / "tools" / "e2e").read_text("utf-8")
    return dict(re.findall(r"(@?[\w/-]+)@(\d[\w.]*)", text))


def installed_clients(prefix: Path) -> dict[str, str]:
    """Return the version of each client that was installed."""
    found = {}
    for name in pinned_clients():
        manifest = prefix / "node_modules" / name / "package.json"
        if manifest.exists():
            found[name] = json.loads(manifest.read_text("utf-8"))["version"]
    return found


def changes(pinned: Mapping[str, str], newest: Mapping[str, str]) -> list[str]:
    """Return a line for each version that differs."""
    return [
        f"  {name} {pinned[name]} -> {newest[name]}"
        for name in sorted(pinned)
        if name in newest and pinned[name] != newest[name]
    ]


def run_tests(python: Path, tools: Path, traffic: Path, arguments: Sequence[str]) -> int:
    """Run the end-to-end tests with the newest of everything, and return pytest's exit code."""
    traffic.unlink(missing_ok=True)
    environment = os.environ | {"E2E_TOOLS": str(tools), "E2E_TRAFFIC": str(traffic)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    words = [str(python), "-m", "pytest", "-m", "e2e", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode


def lines_of(file: Path) -> set[str]:
    """Return the lines of a record of traffic, without its comments."""
    if not file.exists():
        return set()
    return {
        line for line in file.read_text("utf-8").splitlines() if line and not line.startswith("#")
    }


def hosts_in(page: str) -> set[str]:
    """Return the hosts of the table on Docker's page."""
    return set(re.findall(r"^\|\s*https://([a-z0-9.-]+)", page, re.MULTILINE))


def known_docker_hosts() -> set[str]:
    """Return the hosts that were looked at for the preset docker."""
    return {line.partition(" ")[2] for line in lines_of(DOCKER_HOSTS)}


def get(url: str, **fields: str) -> bytes:
    """Return what an HTTPS URL answers; OSError if that is no success."""
    request = urllib.request.Request(url, headers=fields)  # noqa: S310 - the callers' are HTTPS
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return bytes(answer.read())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect unfollowed, so that it is an HTTPError with its Location."""

    def redirect_request(self, *_: object) -> None:
        """Follow none."""


def layer_host() -> str:
    """Return the host to which the registry sends a client for a layer; OSError if it fails."""
    realm = f"https://auth.docker.io/token?service=registry.docker.io&scope=repository:{DOCKER_IMAGE}:pull"
    fields = {"Authorization": f"Bearer {json.loads(get(realm))['token']}"}
    base = f"https://registry-1.docker.io/v2/{DOCKER_IMAGE}"
    index = json.loads(get(f"{base}/manifests/latest", **fields))
    manifest = json.loads(get(f"{base}/manifests/{index['manifests'][0]['digest']}", **fields))
    request = urllib.request.Request(  # noqa: S310 - it is HTTPS
        f"{base}/blobs/{manifest['layers'][0]['digest']}", headers=fields
    )
    try:
        urllib.request.build_opener(_NoRedirect).open(request, timeout=60).close()
    except urllib.error.HTTPError as redirect:
        return redirect.headers.get("Location", "").removeprefix("https://").partition("/")[0]
    return "registry-1.docker.io"


def new_docker_hosts() -> list[str]:
    """Return a line for each host that nobody has looked at, or for why none is known."""
    try:
        found = hosts_in(get(DOCKER_PAGE).decode("utf-8")) | {layer_host()}
    except (OSError, ValueError, LookupError) as problem:
        return [f"  they could not be read: {problem}"]
    return [f"  {host}" for host in sorted(found - known_docker_hosts())]


def report(title: str, lines: Sequence[str]) -> None:
    """Print a list, or that there is none."""
    sys.stdout.write("\n".join([f"{title}:", *(lines or ["  nothing"])]) + "\n")


def main(arguments: Sequence[str]) -> int:
    """Compare the newest with what is pinned, and return the exit code."""
    traffic = PLACE / "traffic.txt"
    PLACE.mkdir(parents=True, exist_ok=True)
    try:
        python, tools = install_libraries(), install_clients()
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"claude-proxy: error: the newest cannot be installed: {error}\n")
        return FAILED
    tests = run_tests(python, tools, traffic, arguments)
    seen, recorded = lines_of(traffic), lines_of(RECORDED)
    report("newer libraries", changes(pinned_libraries(), installed_libraries(python)))
    report("newer clients", changes(pinned_clients(), installed_clients(tools)))
    report("new on the wire", [f"  {line}" for line in sorted(seen - recorded)])
    report("recorded, and not asked this time", [f"  {line}" for line in sorted(recorded - seen)])
    docker = new_docker_hosts()
    report("new hosts of Docker", docker)
    sys.stdout.write(f"end-to-end tests: {'passed' if tests == 0 else f'exit code {tests}'}\n")
    return DRIFTED if tests or not seen or seen - recorded or docker else SAME


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
