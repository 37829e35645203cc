"""A private Git directory has what git needs, and nothing that is shared with the host."""

import shutil
from dataclasses import replace
from pathlib import Path

from claude_proxy.sandbox.git import private_directory
from claude_proxy.sandbox.git.discovery import discover
from claude_proxy.sandbox.git.ref_files import read_refs
from claude_proxy.sandbox.plan.git_facts import GitDirectory
from tests.sandbox.git.repositories import commit, git, repository


def made(tree: Path, place: Path) -> GitDirectory:
    directory = discover(tree, None, [], place).directories[0]
    private_directory.make(directory)
    return directory


def test_refs_head_index_and_settings_are_copied(tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree")
    commit(tree, "two")
    git("pack-refs", "--all", at=tree)
    git("tag", "v1", at=tree)

    one = made(tree, tmp_path / "place")

    assert read_refs(one.private) == read_refs(one.host) == read_refs(one.start)
    for name in ("index", "config"):
        assert (one.private / name).read_bytes() == (one.host / name).read_bytes()
    # Git trusts an entry of the index that is older than the index itself.
    times = [(at / "index").stat().st_mtime_ns for at in (one.private, one.host)]
    assert times[0] == times[1]


def test_objects_are_named_by_their_place_inside(tmp_path: Path) -> None:
    one = made(repository(tmp_path / "tree"), tmp_path / "place")

    assert (one.private / "objects/info/alternates").read_text() == (
        "/run/claude-proxy/objects/0/objects\n"
    )
    assert not list((one.private / "objects/pack").iterdir())


def test_hooks_logs_locks_links_and_other_runs_are_left_out(tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree")
    git("update-ref", "refs/claude-proxy/other/main", "HEAD", at=tree)
    (tree / ".git/hooks").mkdir(exist_ok=True)
    (tree / ".git/hooks/pre-commit").touch()
    (tree / ".git/index.lock").touch()
    (tree / ".git/refs/heads/link").symlink_to("/etc/passwd")

    one = made(tree, tmp_path / "place")

    assert not list((one.private / "hooks").iterdir())
    for name in ("index.lock", "logs", "refs/claude-proxy", "refs/heads/link"):
        assert not (one.private / name).exists()


def test_a_run_can_write_hooks_of_its_own_where_the_host_has_no_directory_for_them(
    tmp_path: Path,
) -> None:
    tree = repository(tmp_path / "tree")
    shutil.rmtree(tree / ".git/hooks", ignore_errors=True)

    one = made(tree, tmp_path / "place")

    assert one.hooks is None  # so that nothing is mounted there
    assert list((one.private / "hooks").iterdir()) == []


def test_an_operation_that_has_begun_goes_on_inside(tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree")
    (tree / ".git/rebase-merge").mkdir()
    (tree / ".git/rebase-merge/onto").write_text("x")
    (tree / ".git/MERGE_HEAD").write_text("y")

    one = made(tree, tmp_path / "place")

    assert (one.private / "rebase-merge/onto").read_text() == "x"
    assert (one.private / "MERGE_HEAD").read_text() == "y"


def test_stashes_of_the_host_are_there(tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree")
    for text in ("a", "b"):
        (tree / "one").write_text(text)
        git("stash", "-q", at=tree)

    one = made(tree, tmp_path / "place")

    assert {"refs/stash", "refs/stash@1"} <= read_refs(one.private).refs.keys()


def test_a_head_that_is_a_link_becomes_a_file(tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree")
    (tree / ".git/HEAD").unlink()
    (tree / ".git/HEAD").symlink_to("refs/heads/main")

    one = made(tree, tmp_path / "place")

    assert (one.private / "HEAD").read_text() == "ref: refs/heads/main\n"


def test_a_linked_worktree_has_its_own_head_and_index(tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree")
    git("worktree", "add", "-q", tree / "w", at=tree)
    directory = discover(tree, None, [], tmp_path / "place").directories[0]

    private_directory.make(replace(directory, worktrees=("worktrees/w",)))

    own = directory.private / "worktrees/w"
    assert (own / "commondir").read_text() == "../..\n"
    assert (own / "index").exists()
    assert read_refs(directory.start, "worktrees/w").head == "refs/heads/w"
