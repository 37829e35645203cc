"""A missing program is named, with the exit code that shells have for it."""

import sys
from pathlib import Path

import pytest

from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.missing_programs import (
    NOT_EXECUTABLE,
    NOT_FOUND,
    NoProgramError,
    said_by_init,
)
from claude_proxy.sandbox.container.plan.model import EngineKind
from tests.support.container_parts import fake_engine


@pytest.mark.parametrize(
    ("code", "said"), [(NOT_FOUND, 'no program "x"'), (NOT_EXECUTABLE, '"x" cannot be executed')]
)
def test_it_is_named_and_has_the_exit_code_of_a_shell(code: int, said: str) -> None:
    error = NoProgramError("x", code)

    assert said in error.what
    assert error.exit_code == code


TINI = "[FATAL tini (6)] exec nosuch failed: No such file or directory\r\n"


@pytest.mark.parametrize(
    ("said", "code", "expected"),
    [
        (TINI, 127, 'there is no program "nosuch" in the container'),
        (TINI, 126, '"nosuch" cannot be executed in the container'),
        ("sh: nosuch: not found\r\n", 127, None),
        (TINI, 1, None),
    ],
)
def test_what_an_init_wrote_into_the_log_is_told(
    said: str, code: int, expected: str | None, tmp_path: Path
) -> None:
    environ = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    program = fake_engine(tmp_path / "bin", (["logs"], said, "", 0))

    error = said_by_init(Engine(EngineKind.PODMAN, program, environ), "web", code)

    assert (None if error is None else error.what) == expected
