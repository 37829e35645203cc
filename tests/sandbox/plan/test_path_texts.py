"""The comparison as text agrees with that of paths."""

from pathlib import Path

import pytest

from claude_proxy.sandbox.plan import path_texts

_PATHS = [Path(text) for text in ("/", "/a", "/ab", "/a/b", "/a/bc", "/a/b/c", "/é/b c")]


@pytest.mark.parametrize("directory", _PATHS)
@pytest.mark.parametrize("path", _PATHS)
def test_text_and_paths_agree_on_what_is_below_what(path: Path, directory: Path) -> None:
    inside = path.is_relative_to(directory)
    assert path_texts.is_at_or_below(path, directory) == inside
    if path != directory:
        assert str(path).startswith(path_texts.prefix_of(directory)) == inside


@pytest.mark.parametrize("path", _PATHS)
def test_directories_above_are_those_of_the_path(path: Path) -> None:
    assert list(path_texts.above(path)) == [str(parent) for parent in path.parents]


def test_nearest_directory_above_comes_first() -> None:
    values = {"/": 1, "/a": 2, "/a/b/c": 3}
    assert path_texts.nearest_above(Path("/a/b/c"), values) == 2
    assert path_texts.nearest_above(Path("/x"), values) == 1
    assert path_texts.nearest_above(Path("/x"), {}) is None
