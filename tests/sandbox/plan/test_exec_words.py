"""COMMAND is executed with default signals, and ends with a shell's exit code if it cannot be."""

import subprocess
from pathlib import Path

import pytest

from claude_proxy.sandbox.plan.exec_words import words

ENV = Path("/usr/bin/env")


@pytest.mark.parametrize("env", [None, ENV])
@pytest.mark.parametrize("name", ["a=b", "plain", "with space"])
def test_a_program_is_executed_whatever_its_name(
    tmp_path: Path, env: Path | None, name: str
) -> None:
    program = tmp_path / name
    program.write_text('#!/bin/sh\necho "ran $1"\n')
    program.chmod(0o755)

    done = subprocess.run(words((str(program), "x=y"), env), stdout=subprocess.PIPE, check=False)

    assert done.stdout == b"ran x=y\n"


def test_a_program_is_not_taken_for_an_option_of_env() -> None:
    assert words(("-x",), ENV) == (str(ENV), "--default-signal=INT,QUIT", "--", "-x")


@pytest.mark.parametrize("env", [None, ENV])
def test_what_cannot_be_executed_ends_with_the_exit_code_of_a_shell(
    tmp_path: Path, env: Path | None
) -> None:
    plain = tmp_path / "plain"
    plain.touch()

    for path, code in ((plain, 126), (tmp_path / "missing", 127)):
        done = subprocess.run(words((str(path),), env), stderr=subprocess.PIPE, check=False)

        assert done.returncode == code
