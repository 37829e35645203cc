"""Shared by the tests of this directory."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory for the runs of a user, whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="control-") as name:
        yield Path(name)
