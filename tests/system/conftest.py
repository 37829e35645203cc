"""Shared by the tests of this directory."""

from pathlib import Path

import pytest


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory of the owner's alone, whatever is above it."""
    tmp_path.chmod(0o700)
    return tmp_path
