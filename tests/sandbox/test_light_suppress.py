"""Suppression does what contextlib's does, and brings nothing along."""

import subprocess
import sys
from pathlib import Path

import pytest

from claude_proxy.sandbox.light_suppress import suppress


def test_an_exception_that_is_named_or_derived_from_one_is_suppressed() -> None:
    done = []
    with suppress(ValueError, OSError):
        done.append("begun")
        raise FileNotFoundError

    assert done == ["begun"]


def test_any_other_exception_goes_on() -> None:
    with pytest.raises(KeyError), suppress(OSError):
        raise KeyError


def test_a_block_that_ends_by_itself_is_left_alone() -> None:
    with suppress(OSError):
        done = True

    assert done


@pytest.mark.parametrize("program", ["bubblewrap.watchdog", "stream_pump"])
def test_a_program_of_every_run_imports_nothing_that_makes_enumerations(program: str) -> None:
    root = Path(__file__).resolve().parents[2]
    script = (
        f"import sys; sys.path.append({str(root)!r}); "
        f"import claude_proxy.sandbox.{program}; print(*sys.modules)"
    )

    imported = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, check=True, text=True
    ).stdout.split()

    assert {"collections", "contextlib", "enum", "signal", "socket"}.isdisjoint(imported)
