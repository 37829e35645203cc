"""Shared by the tests of this directory."""

from pathlib import Path

import pytest


@pytest.fixture
def confdir(tmp_path: Path) -> Path:
    return tmp_path / "config" / "claude-proxy"
