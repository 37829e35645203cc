"""The Makefile and do.nu do their own set-up, and tell what to do where they cannot."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FindProgram

ROOT = Path(__file__).resolve().parents[1]


def run(*line: str, cwd: Path = ROOT, **variables: str) -> str:
    """Run a program as from a shell, whatever `make` runs the tests, and return its output."""
    clean = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    done = subprocess.run(
        line, cwd=cwd, env=clean | variables, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_nushell_users_have_the_same_targets(program: FindProgram) -> None:
    assert run(program("nu"), "do.nu") == run("make", "--no-print-directory", "help")


@pytest.mark.parametrize("word", ["9052", "a b", "it's", "$HOME", 'say "hi"'])
def test_nushell_hands_options_on_as_they_are(
    word: str, program: FindProgram, tmp_path: Path
) -> None:
    nu, script = program("nu"), str(ROOT / "do.nu")

    shown = run(nu, script, "run", "--port", word, cwd=tmp_path, MAKEFLAGS="n")

    [line] = [line for line in shown.splitlines() if "claude-proxy serve" in line]
    printed = run("sh", "-c", line.replace("exec .venv/bin/claude-proxy", r"printf '%s\n'"))
    assert printed.splitlines() == ["serve", "--port", word]


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


# What fails is tried once more


def retested(directory: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """Run tools/retest with pytest on a file of tests."""
    (directory / "test_it.py").write_text(tests, "utf-8")
    return subprocess.run(
        ["/bin/sh", str(ROOT / "tools" / "retest"), sys.executable, "-m", "pytest", "-q"],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": str(directory), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


FAILS = "def test_fails(): assert False\n"
FAILS_AT_FIRST = """
from pathlib import Path

def test_lucky():
    seen = Path("seen")
    was_seen = seen.exists()
    seen.touch()
    assert was_seen
"""


def test_a_test_that_passes_at_the_second_try_is_named(tmp_path: Path) -> None:
    found = retested(tmp_path, FAILS_AT_FIRST)

    assert found.returncode == 0
    assert "second try:\n    test_it.py::test_lucky\n" in found.stderr


def test_a_test_that_fails_twice_fails_the_run(tmp_path: Path) -> None:
    found = retested(tmp_path, FAILS_AT_FIRST + FAILS)

    assert found.returncode == 1
    assert "once more" in found.stderr
    assert "second try" not in found.stderr


def test_many_failures_get_no_second_try(tmp_path: Path) -> None:
    found = retested(tmp_path, "".join(FAILS.replace("fails", f"{n}") for n in range(6)))

    assert (found.returncode, found.stderr) == (1, "")


@pytest.mark.parametrize(
    ("tests", "code"),
    [("def test_passes(): pass\n", 0), ("import nothing_of_this_name\n", 2), ("", 5)],
    ids=["passed", "not-loaded", "nothing-found"],
)
def test_where_no_test_failed_there_is_no_second_try(tests: str, code: int, tmp_path: Path) -> None:
    found = retested(tmp_path, tests)

    assert (found.returncode, found.stderr) == (code, "")
