"""What the engine says of itself is held back; what the command says is not."""

import os

import pytest

from claude_proxy.sandbox.container.held_errors import HeldErrors


def after(said: bytes) -> HeldErrors:
    reading, writing = os.pipe()
    errors = HeldErrors(reading, quiet=False)
    os.write(writing, said)
    os.close(writing)
    return errors


def test_the_last_line_of_the_engine_is_held_back(capfd: pytest.CaptureFixture[str]) -> None:
    errors = after(b"of the command\nError: no such program\n")

    assert errors.own
    assert errors.finish(said=False) == b"Error: no such program\n"
    assert capfd.readouterr().err == "of the command\n"


def test_what_was_the_commands_is_written_after_all(capfd: pytest.CaptureFixture[str]) -> None:
    after(b"Error: of the command\n").finish()

    assert capfd.readouterr().err == "Error: of the command\n"
