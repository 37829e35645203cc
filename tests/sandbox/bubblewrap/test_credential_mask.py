"""A login that is replaced outside is covered immediately, and only once."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FindProgram

HIDE = """\
import os, stat, sys
from claude_proxy.sandbox.bubblewrap import credential_mask
path = sys.argv[1]
for _ in range(2):
    credential_mask._cover(path)
    print(stat.S_ISCHR(os.stat(path).st_mode), open("/proc/self/mountinfo").read().count(path))
"""


def covered(path: Path, unshare: str) -> list[str]:
    """Cover a file twice, in its own mount namespace; return what lies there then."""
    command = [unshare, "--user", "--map-root-user", "--mount", sys.executable, "-c", HIDE]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize("content", ["", "a login"])
def test_a_file_is_covered_before_anything_is_written_into_it_and_once(
    tmp_path: Path, program: FindProgram, content: str
) -> None:
    login = tmp_path / ".credentials.json"
    login.write_text(content)

    assert covered(login, program("unshare")) == ["True 1", "True 1"]
    assert login.read_text() == content


def test_a_missing_file_is_not_covered(tmp_path: Path, program: FindProgram) -> None:
    command = [program("unshare"), "--user", "--map-root-user", "--mount", sys.executable, "-c"]
    code = (
        "import sys; from claude_proxy.sandbox.bubblewrap import credential_mask; "
        "credential_mask._cover(sys.argv[1])"
    )

    done = subprocess.run([*command, code, str(tmp_path / "none")], check=False)

    assert done.returncode == 0
