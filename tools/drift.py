"""What the newest clients and libraries would change; run it by `make drift`.

It installs the newest of everything that poetry.lock and tools/e2e pin into build/drift, runs the
end-to-end tests there, and prints which versions are newer and what Claude Code asks of the network
that tests/e2e/recorded does not know. Exit code 0: nothing that matters has changed; 1: a test
failed or something is new on the wire; 2: the newest could not be installed.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "drift"
RECORDED = ROOT / "tests" / "e2e" / "recorded" / "claude-code.txt"
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
    sys.stdout.write(f"end-to-end tests: {'passed' if tests == 0 else f'exit code {tests}'}\n")
    return DRIFTED if tests or not seen or seen - recorded else SAME


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
