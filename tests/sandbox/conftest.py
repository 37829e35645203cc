"""Fixtures of the sandbox tests: a home, a project, and a real sandbox around them."""

from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.sandbox.boxes import Box, a_box


@pytest.fixture
def box(tmp_path: Path, program: FindProgram) -> Box:
    """A box in which commands run under the real bwrap."""
    program("bwrap")
    return a_box(tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project."""
    directory = tmp_path / "project"
    directory.mkdir()
    return directory
