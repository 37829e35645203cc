"""The next image of a container is noted until the container has it."""

from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import next_image, store


@pytest.fixture
def statedir(tmp_path: Path) -> Path:
    store.make_directory(store.directory_of(tmp_path, "web"))
    return tmp_path


def test_without_an_update_there_is_none(statedir: Path) -> None:
    assert next_image.of(statedir, "web") is None


def test_an_image_is_noted_until_it_is_forgotten(statedir: Path) -> None:
    next_image.note(statedir, "web", "new:latest")
    assert next_image.of(statedir, "web") == "new:latest"

    next_image.forget(statedir, "web")
    next_image.forget(statedir, "web")

    assert next_image.of(statedir, "web") is None


@pytest.mark.parametrize("text", ["", "[]", "{", "{}"])
def test_a_note_that_cannot_be_read_is_an_error(statedir: Path, text: str) -> None:
    (store.directory_of(statedir, "web") / next_image.RECORD).write_text(text)

    with pytest.raises(ClaudeProxyError, match="image"):
        next_image.of(statedir, "web")
