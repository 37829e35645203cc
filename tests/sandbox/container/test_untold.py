"""What a keeper could tell nobody is told by the next command about its container, once."""

from pathlib import Path

from claude_proxy.sandbox.container import store, untold


def told(statedir: Path, name: str) -> list[str]:
    said: list[str] = []
    untold.tell(statedir, name, said.append)
    return said


def test_lines_are_told_once_with_the_name_of_their_container(tmp_path: Path) -> None:
    untold.keep(tmp_path, "web", "warning: this run created .mcp.json")
    untold.keep(tmp_path, "api", "warning: another")

    assert told(tmp_path, "web") == ["web: warning: this run created .mcp.json"]
    assert told(tmp_path, "web") == []


def test_all_that_is_kept_is_told_even_of_containers_that_are_gone(tmp_path: Path) -> None:
    untold.keep(tmp_path, "web", "two")
    untold.keep(tmp_path, "api", "one")
    said: list[str] = []
    untold.tell_all(tmp_path, said.append)

    assert said == ["api: one", "web: two"]


def test_nothing_kept_is_no_container(tmp_path: Path) -> None:
    untold.keep(tmp_path, "web", "line")

    assert store.names(tmp_path) == []


def test_a_kept_line_cannot_move_the_terminal(tmp_path: Path) -> None:
    untold.keep(tmp_path, "web", "a\x1b[2Jb\nc")

    assert told(tmp_path, "web") == ["web: a?[2Jb c"]


def test_what_is_kept_has_a_bound(tmp_path: Path) -> None:
    for _ in range(200):
        untold.keep(tmp_path, "web", "x" * 1000)

    assert sum(map(len, told(tmp_path, "web"))) < 70_000
