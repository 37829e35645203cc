"""A missing program is named, with the exit code that shells have for it."""

import pytest

from claude_proxy.sandbox.container.missing_programs import (
    NOT_EXECUTABLE,
    NOT_FOUND,
    NoProgramError,
)


@pytest.mark.parametrize(
    ("code", "said"), [(NOT_FOUND, 'no program "x"'), (NOT_EXECUTABLE, '"x" cannot be executed')]
)
def test_it_is_named_and_has_the_exit_code_of_a_shell(code: int, said: str) -> None:
    error = NoProgramError("x", code)

    assert said in error.what
    assert error.exit_code == code
