"""The wheel holds what the program needs, and poetry.lock is what gets installed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
from poetry.core.factory import Factory
from poetry.core.masonry.builders.wheel import WheelBuilder

from claude_proxy import __version__
from tools import pinned

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCK: dict[str, Any] = tomllib.loads((ROOT / "poetry.lock").read_text("utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dist")
    name = WheelBuilder(Factory().create_poetry(ROOT)).build(target)
    return target / name


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the programs of a fresh environment with the wheel in it.

    Its dependencies are the ones of the environment that the tests run in, by a .pth file: so
    nothing is fetched, and nothing of the source tree is to be seen.
    """
    target = tmp_path_factory.mktemp("installed")
    venv.create(target)
    programs = target / "bin"
    pip = (sys.executable, "-m", "pip", "--python", str(programs / "python"), "--quiet")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    [site] = target.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(_site_packages(), "utf-8")
    return programs


def _site_packages() -> str:
    return str(Path(pytest.__file__).parent.parent)


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_default_allowlist_beside_the_code(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = archive.read("claude_proxy/allowlist.yaml")

    assert shipped == (ROOT / "allowlist.yaml").read_bytes()


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "claude_proxy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert package - contents(wheel) == set()
    assert {"claude_proxy/py.typed", "claude_proxy/presets/claude.yaml"} <= package


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    assert {
        name
        for name in contents(wheel)
        if not name.startswith(("claude_proxy/", f"claude_proxy-{__version__}.dist-info/"))
    } == set()


def test_the_version_is_told_once(wheel: Path) -> None:
    assert PYPROJECT["project"]["version"] == __version__
    assert wheel.name == f"claude_proxy-{__version__}-py3-none-any.whl"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--version"], f"claude-proxy, version {__version__}"),
        (["presets"], "claude-min"),
        (["presets", "claude"], "api.anthropic.com"),
        (["schema"], '"$schema"'),
        (["check", "https://api.anthropic.com/"], "allowed"),
    ],
)
def test_the_installed_program_runs(
    arguments: list[str], shown: str, installed: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [str(installed / "claude-proxy"), *arguments],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout


def test_the_lock_file_was_made_from_this_pyproject() -> None:
    """Compute what Poetry does (`poetry check --lock`), for those who have no Poetry."""
    project = PYPROJECT["project"]
    relevant = {
        "project": {key: project[key] for key in ("requires-python", "dependencies")},
        "dependency-groups": PYPROJECT["dependency-groups"],
        "tool": {"poetry": {}},
    }
    digest = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()

    assert LOCK["metadata"]["content-hash"] == digest, "run `make lock`"


def test_every_locked_file_has_a_hash_and_no_address() -> None:
    assert [package["name"] for package in LOCK["package"] if "source" in package] == []
    assert [
        file["file"]
        for package in LOCK["package"]
        for file in package["files"]
        if not file["hash"].startswith("sha256:")
    ] == []


def test_every_locked_package_is_pinned_with_all_its_hashes() -> None:
    lines = "\n".join(pinned.requirements(LOCK))

    for package in LOCK["package"]:
        assert f"{package['name']}=={package['version']}" in lines
    assert lines.count("--hash=") == sum(len(package["files"]) for package in LOCK["package"])


@pytest.mark.parametrize(
    ("package", "marker"),
    [
        ({"groups": ["main"]}, ""),
        ({"groups": ["main"], "markers": 'os_name == "nt"'}, 'os_name == "nt"'),
        ({"groups": ["dev", "main"], "markers": {"main": 'os_name == "nt"'}}, ""),
        (
            {"groups": ["dev", "main"], "markers": {"main": "a == '1'", "dev": "b == '2'"}},
            "(a == '1') or (b == '2')",
        ),
    ],
)
def test_a_package_is_installed_where_any_of_its_groups_needs_it(
    package: dict[str, Any], marker: str
) -> None:
    assert pinned.marker_of(package) == marker


def test_what_is_installed_is_what_is_locked() -> None:
    """The environment that the tests run in was made by `make`, from the lock file."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=json"],
        capture_output=True,
        check=True,
    )
    locked: dict[str, set[str]] = {}
    for package in LOCK["package"]:
        locked.setdefault(package["name"], set()).add(package["version"])

    installed = {
        found["name"].lower().replace("_", "-").replace(".", "-"): found["version"]
        for found in json.loads(listed.stdout)
    }
    assert {
        name: version
        for name, version in installed.items()
        if name in locked and version not in locked[name]
    } == {}


# Finding a Python that is new enough


class Machine:
    """A PATH, a home and a directory to run tools/find-python in."""

    def __init__(self, directory: Path) -> None:
        self._programs = directory / "bin"
        self.home = directory / "home"
        self._clone = directory / "clone"
        for made in (self._programs, self.home, self._clone):
            made.mkdir()
        for tool in ("cat", "dirname", "mkdir", "ln"):
            (self._programs / tool).symlink_to(str(shutil.which(tool)))

    def has(self, path: Path | str, script: str) -> None:
        """Put a program on PATH, or elsewhere."""
        program = self._programs / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        program.chmod(0o755)

    def find(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(ROOT / "tools" / "find-python")],
            cwd=self._clone,
            env={"PATH": str(self._programs), "HOME": str(self.home), **variables},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine of a few tools and no Python, in a clone of its own."""
    return Machine(tmp_path)


TOO_OLD = "exit 1"  # what the question "are you 3.12, with ensurepip?" gets from an old one
NEW_ENOUGH = f'exec "{sys.executable}" "$@"'


def test_a_newer_python_beside_the_old_one_is_found(machine: Machine) -> None:
    machine.has("python3", TOO_OLD)
    machine.has("python3.12", NEW_ENOUGH)

    assert machine.find().stdout.strip() == sys.executable


def test_a_name_that_leads_to_no_python_is_passed_over(machine: Machine) -> None:
    machine.has("python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    machine.has("python3", NEW_ENOUGH)

    found = machine.find()

    assert (found.stdout.strip(), found.stderr) == (sys.executable, "")


@pytest.mark.parametrize("root", ["home/.pyenv", "elsewhere"])
def test_pyenvs_versions_are_looked_at(root: str, machine: Machine) -> None:
    place = machine.home.parent / root
    machine.has("python3", TOO_OLD)
    machine.has(place / "versions" / "3.11.7" / "bin" / "python", TOO_OLD)
    machine.has(place / "versions" / "3.13.0" / "bin" / "python", NEW_ENOUGH)
    variables = {"PYENV_ROOT": str(place)} if root == "elsewhere" else {}

    assert machine.find(**variables).stdout.strip() == sys.executable


def test_uv_is_asked_last_and_fetches_into_the_clone(machine: Machine) -> None:
    machine.has("python3", TOO_OLD)
    bin_directory = '"$UV_PYTHON_INSTALL_DIR/cpython-3.13/bin"'
    machine.has(
        "uv",
        '[ "$2" = install ] || exit 2\n'
        f"mkdir -p {bin_directory}\n"
        f'ln -s "{machine.home}/fetched" {bin_directory}/python3.13',
    )
    machine.has(machine.home / "fetched", NEW_ENOUGH)

    assert machine.find().stdout.strip() == sys.executable


def test_without_any_python_it_says_what_to_do(machine: Machine) -> None:
    machine.has("python3", TOO_OLD)

    found = machine.find()

    assert (found.returncode, found.stdout) == (2, "")
    assert "claude-proxy: error: no Python 3.12 or newer" in found.stderr
    assert "make PYTHON=" in found.stderr


def test_a_python_that_was_named_is_taken_or_refused(machine: Machine) -> None:
    machine.has("python3", NEW_ENOUGH)
    machine.has("old", TOO_OLD)

    assert machine.find(PYTHON=sys.executable).stdout.strip() == sys.executable
    refused = machine.find(PYTHON="old")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "PYTHON=old" in refused.stderr
