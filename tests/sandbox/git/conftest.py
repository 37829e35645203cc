"""Fixtures of Git repositories and of runs on them."""

import pytest

from tests.sandbox.boxes import Box
from tests.sandbox.git.repositories import repository
from tests.sandbox.git.runs import GitBox


@pytest.fixture
def git_box(box: Box) -> GitBox:
    """A box whose project is a repository with one commit."""
    box.project.rmdir()
    repository(box.project)
    return GitBox(box)
