"""No socket of the host's is in reach of a container."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container import shown_sockets
from claude_proxy.sandbox.container.shown_sockets import refuse_sockets, sockets_in


@contextmanager
def listening(*paths: Path) -> Iterator[None]:
    with ExitStack() as stack:
        for path in paths:
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        yield


def test_sockets_are_found_at_any_depth_and_nothing_else(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path)

    with listening(tmp_path / "one", deep / "two"):
        found = sockets_in(tmp_path)

    assert found.paths == (tmp_path / "one", deep / "two")
    assert found.complete


def test_a_tree_that_is_too_large_is_not_searched_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_sockets, "_MOST_ENTRIES", 2)
    for name in "abc":
        (tmp_path / name).write_text("")

    assert not sockets_in(tmp_path).complete
    assert refuse_sockets([("--allow-ro", tmp_path)]) == [tmp_path]


def test_a_socket_that_is_named_is_refused_also_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "docker.sock")

    with listening(tmp_path / "docker.sock"):
        for name in ("docker.sock", "link"):
            with pytest.raises(ConfigError, match="is a Unix socket"):
                refuse_sockets([("--allow-ro", tmp_path / name)])


def test_a_directory_with_a_socket_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()

    with listening(tmp_path / "deep" / "agent.1"), pytest.raises(ConfigError, match="contains"):
        refuse_sockets([("--allow-rw", tmp_path)])


def test_files_and_directories_without_sockets_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    named = [("--allow-ro", tmp_path), ("--allow-ro", tmp_path / "file")]

    assert refuse_sockets(named) == []
