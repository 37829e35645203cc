"""A work tree is compared as data: links are not followed, and everything has a bound."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from claude_proxy.sandbox.git import work_tree
from claude_proxy.sandbox.git.work_tree import (
    EXECUTABLE,
    FILE,
    GITLINK,
    LINK,
    Differences,
    Entry,
    Reading,
    blob_name,
    differences,
)


@dataclass
class Read:
    """What was asked and written while a tree was read."""

    ignored: tuple[bytes, ...] = ()
    rules: dict[bytes, bytes] = field(default_factory=dict)
    blobs: list[bytes] = field(default_factory=list)

    def of(self, tree: Path, commit: dict[bytes, Entry] | None = None) -> Differences:
        def write(data: bytes) -> str:
            self.blobs.append(data)
            return blob_name(data, "sha1")

        def is_ignored(path: bytes, _: bool) -> bool:  # noqa: FBT001 - as it is called
            return path in self.ignored

        reading = Reading(is_ignored, self.rules.__setitem__, write)
        return differences(tree, commit or {}, reading)


def entry(data: bytes, mode: str = FILE) -> Entry:
    return Entry(mode, blob_name(data, "sha1"))


def test_the_name_of_a_file_is_the_one_that_git_gives() -> None:
    assert blob_name(b"hello\n", "sha1") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_what_is_as_in_the_commit_is_no_difference(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "crlf").write_bytes(b"x\r\n")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    commit = {
        b"a": entry(b"x"),
        b"crlf": entry(b"x\n"),
        b"link": entry(b"a", LINK),
        b"sub": Entry(GITLINK, "0" * 40),
    }

    assert Read().of(tmp_path, commit).count == 0


def test_new_changed_removed_and_executable_files_differ(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"1")
    (tmp_path / "changed").write_bytes(b"2")
    (tmp_path / "tool").write_bytes(b"3")
    (tmp_path / "tool").chmod(0o755)
    commit = {b"changed": entry(b"0"), b"tool": entry(b"3"), b"dir/gone": entry(b"4")}
    read = Read()

    found = read.of(tmp_path, commit)

    assert found.changed == {
        b"new": entry(b"1"),
        b"changed": entry(b"2"),
        b"tool": entry(b"3", EXECUTABLE),
        b"dir/gone": None,
    }
    assert sorted(read.blobs) == [b"1", b"2", b"3"]


def test_a_link_is_its_text_and_never_what_it_leads_to(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_bytes(b"s3cret")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "dir").symlink_to(secret)
    (tree / "key").symlink_to(secret / "key")
    read = Read()

    found = read.of(tree, {b"dir/key": entry(b"old")})

    assert set(found.changed) == {b"dir", b"key", b"dir/key"}
    assert b"s3cret" not in read.blobs


def test_a_directory_that_is_swapped_for_a_link_meanwhile_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_bytes(b"s3cret")
    tree = tmp_path / "tree"
    (tree / "b").mkdir(parents=True)
    (tree / "a").mkdir()
    (tree / "a" / ".gitignore").write_bytes(b"rules")
    read = Read()

    class Swapping(dict[bytes, bytes]):
        def __setitem__(self, key: bytes, value: bytes) -> None:
            (tree / "b").rmdir()
            (tree / "b").symlink_to(secret)

    read.rules = Swapping()
    read.of(tree)

    assert b"s3cret" not in read.blobs


def test_pipes_sockets_and_closed_files_are_named_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert Read().of(tmp_path).unread == [b"pipe"]


@pytest.mark.parametrize("git", [".git", ".GIT", ".git."])
def test_repositories_inside_are_named_and_not_entered(tmp_path: Path, git: str) -> None:
    (tmp_path / "nested" / git).mkdir(parents=True)
    (tmp_path / "nested" / "file").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / git).write_text("gitdir: /elsewhere")

    found = Read().of(tmp_path, {b"sub": Entry(GITLINK, "0" * 40)})

    assert found.nested == [b"nested", b"sub"]
    assert not found.changed


def test_ignored_files_are_left_out_unless_the_commit_has_them(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build/kept").write_bytes(b"new")
    (tmp_path / "log").write_bytes(b"x")

    read = Read(ignored=(b"build", b"log"))

    assert set(read.of(tmp_path, {b"build/kept": entry(b"old")}).changed) == {b"build/kept"}


def test_rules_are_noted_before_what_they_are_about_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".gitignore").write_bytes(b"top")
    (tmp_path / "sub/.gitignore").symlink_to("../.gitignore")
    read = Read()

    read.of(tmp_path)

    assert read.rules == {b"": b"top"}


def test_large_files_are_compared_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_tree, "MAX_BYTES", 4)
    (tmp_path / "same").write_bytes(b"12345678")
    (tmp_path / "other").write_bytes(b"87654321")
    read = Read()

    found = read.of(tmp_path, {b"same": entry(b"12345678")})

    assert (found.large, read.blobs) == ([b"other"], [])


def test_what_is_too_deep_or_too_much_is_named_and_counts_as_no_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").touch()
    commit = {b"a/b/c": entry(b"")}

    monkeypatch.setattr(work_tree, "MAX_DEPTH", 1)
    deep = Read().of(tmp_path, commit)
    monkeypatch.setattr(work_tree, "MAX_ENTRIES", 0)
    much = Read().of(tmp_path, commit)

    assert (deep.unread, deep.changed) == ([b"a/b"], {})
    assert (much.unread, much.changed) == ([b"."], {})


def test_a_sparse_file_of_any_size_costs_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_tree, "MAX_COMPARED", 64 * 1024 * 1024)
    for name in ("a", "b", "tracked"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**40)

    found = Read().of(tmp_path, {b"tracked": entry(b"old")})

    assert sorted((*found.large, *found.unread)) == [b"a", b"b", b"tracked"]
    assert not found.changed
