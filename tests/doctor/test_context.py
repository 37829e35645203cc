"""The subject of a diagnosis does not change while it is examined."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from claude_proxy.config.settings import Settings
from claude_proxy.doctor.context import Subject


def test_a_subject_cannot_be_changed_by_a_check() -> None:
    subject = Subject(Settings(Path("/a"), Path("/c"), Path("/s")), {}, "linux")

    with pytest.raises(FrozenInstanceError):
        subject.platform = "darwin"  # type: ignore[misc]
