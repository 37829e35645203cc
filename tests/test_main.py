"""`python -m claude_proxy` is the command line, with its output and exit code."""

import subprocess
import sys

import pytest

from claude_proxy.cli.main import main


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "claude_proxy", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_module_prints_what_the_command_line_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran = run("--version")

    assert (ran.returncode, main(["--version"])) == (0, 0)
    assert ran.stdout == capsys.readouterr().out


def test_the_exit_code_is_the_command_lines() -> None:
    ran = run("no-such-command")

    assert (ran.returncode, ran.stdout) == (2, "")
    assert "error: " in ran.stderr
