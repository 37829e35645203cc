"""A symbolic link is covered by a mount, so that it cannot be replaced from inside."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.sandbox.bubblewrap import link_cover
from tests.conftest import FindProgram


@pytest.fixture
def inside(tmp_path: Path, program: FindProgram) -> Iterator["subprocess.Popen[str]"]:
    """A shell in namespaces of its own that runs what is written to it."""
    unshare = program("unshare")
    words = [unshare, "-r", "-m", "sh", "-c", 'echo; while read -r line; do eval "$line"; done']
    with subprocess.Popen(
        words, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        assert process.stdin is not None
        process.stdin.close()


def covered(process: "subprocess.Popen[str]", source: Path, link: Path) -> int:
    words = [sys.executable, "-I", "-S", link_cover.__file__, str(process.pid)]
    words += [str(source), str(link)]
    return subprocess.run(words, check=False, capture_output=True).returncode


def answer(process: "subprocess.Popen[str]", script: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{script}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_a_covered_link_is_a_file_that_cannot_be_replaced(
    inside: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    (tmp_path / "source").write_text("gitdir: x\n")
    (tmp_path / "link").symlink_to("elsewhere")

    assert covered(inside, tmp_path / "source", tmp_path / "link") == 0

    assert answer(inside, "cat link") == "gitdir: x"
    assert answer(inside, "rm -f link 2>/dev/null || echo no") == "no"
    assert answer(inside, "mv link x 2>/dev/null || echo no") == "no"
    assert answer(inside, "(echo y >link) 2>/dev/null || echo no") == "no"
    assert (tmp_path / "link").is_symlink()


def test_what_is_no_link_is_not_covered(inside: "subprocess.Popen[str]", tmp_path: Path) -> None:
    (tmp_path / "source").touch()
    (tmp_path / "directory").mkdir()

    assert covered(inside, tmp_path / "source", tmp_path / "directory") != 0
    assert covered(inside, tmp_path / "source", tmp_path / "none") != 0
