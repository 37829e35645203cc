"""An interrupt that Python swallows in a callback still ends the program, and shows nothing."""

import subprocess
import sys

import pytest

_PROGRAM = """
import signal
from claude_proxy.system import lost_interrupts

class Interrupted(BaseException):
    pass

class Callback:
    def __del__(self):
        raise {error}

lost_interrupts.raise_again()
try:
    Callback()
    while True:
        signal.pause()
except {error}:
    print("ended")
"""


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "Interrupted"])
def test_a_swallowed_interrupt_is_raised_after_the_callback(error: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(error=error)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ended\n", "")


def test_another_exception_of_a_callback_is_reported_as_ever() -> None:
    program = _PROGRAM.format(error="ValueError('a bug')").partition("try:")[0] + "Callback()\n"

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stdout) == (0, "")
    assert "ValueError: a bug" in ran.stderr
