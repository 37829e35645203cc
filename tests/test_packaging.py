"""The wheel holds what the program needs, and poetry.lock is what gets installed."""

import hashlib
import json
import os
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

ROOT = Path(__file__).resolve().parents[1]
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
    assert {"claude_proxy/py.typed", "claude_proxy/config/presets/claude.yaml"} <= package


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
        "project": {
            key: project[key]
            for key in ("requires-python", "dependencies", "optional-dependencies")
        },
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
