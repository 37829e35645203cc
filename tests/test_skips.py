"""What a run says of the tests that it left out: in CI there are none."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SKIPPING = {
    "itself": "import pytest\ndef test_it(): pytest.skip('no')\n",
    "marked": "import pytest\n@pytest.mark.skip\ndef test_it(): pass\n",
    "module": "import pytest\npytest.skip('no', allow_module_level=True)\n",
    "missing": "def test_it(program): program('no-such-program')\n",
}
RUNNING = {
    "plain": "def test_it(): pass\n",
    "expected": "import pytest\n@pytest.mark.xfail(strict=True)\ndef test_it(): assert False\n",
    "there": "def test_it(program): assert program('sh')\n",
}


def run(
    directory: Path, files: Mapping[str, str], *options: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run test files by themselves, under the rules of tests/conftest.py."""
    for name, text in files.items():
        (directory / f"test_{name}.py").write_text(text, "utf-8")
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    alone = {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", *options, str(directory)],
        cwd=directory,
        env=inherited | alone | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_that_skips_anything_fails_in_ci_and_says_what(tmp_path: Path) -> None:
    ran = run(tmp_path, SKIPPING | RUNNING, CI="true")

    assert ran.returncode == 1
    _, _, named = ran.stdout.partition("skipped, which CI does not allow")
    assert [name for name in SKIPPING if f"test_{name}.py" not in named] == []
    assert [name for name in RUNNING if f"test_{name}.py" in named] == []


def test_a_skip_while_a_worker_collects_fails_in_ci_too(tmp_path: Path) -> None:
    ran = run(tmp_path, SKIPPING | RUNNING, "-p", "xdist", "-n", "2", CI="true")

    assert ran.returncode == 1
    _, _, named = ran.stdout.partition("skipped, which CI does not allow")
    assert [name for name in SKIPPING if f"test_{name}.py" not in named] == []


def test_elsewhere_a_run_says_at_its_end_what_was_left_out_and_how_to_have_it(
    tmp_path: Path,
) -> None:
    ran = run(tmp_path, SKIPPING | RUNNING)

    assert ran.returncode == 0
    _, _, left_out = ran.stdout.partition(" left out ")
    assert "1 test: no-such-program is not installed\n" in left_out
    assert "2 tests: no\n" in left_out
    assert "make e2e-tools E2E=--system" in left_out


def test_a_run_that_leaves_nothing_out_says_nothing_of_it(tmp_path: Path) -> None:
    assert "left out" not in run(tmp_path, RUNNING).stdout


def test_a_run_that_skips_nothing_passes_in_ci(tmp_path: Path) -> None:
    ran = run(tmp_path, RUNNING, CI="true")

    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
