"""A scratch repository has the run's objects and the host's, and nothing else of the run."""

from pathlib import Path

from claude_proxy.sandbox.git import scratch
from claude_proxy.sandbox.git.host_git import HostGit
from tests.sandbox.git.repositories import commit, git, private_of, repository


def test_packs_get_an_index_and_objects_of_both_sides_are_there(tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree")
    private = private_of(tree / ".git", tmp_path / "private")
    base = git("rev-parse", "HEAD", at=tree)
    new = commit(tree, "two", directory=private)
    git("repack", "-q", "-a", "-d", "-l", at=tree, directory=private)

    made = scratch.fill(private, tree / ".git", tmp_path / "scratch", sha256=False)

    assert not made.problems
    types = scratch.types_of(HostGit(made.directory), [base, new, "c" * 40])
    assert types == {base: "commit", new: "commit"}
    assert "alternates" not in (made.directory / "config").read_text()


def test_a_damaged_pack_is_a_problem_and_is_left_out(tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree")
    private = private_of(tree / ".git", tmp_path / "private")
    pack = private / "objects/pack" / f"pack-{'a' * 40}.pack"
    pack.parent.mkdir()
    pack.write_text("none")
    pack.with_suffix(".idx").touch()

    made = scratch.fill(private, tree / ".git", tmp_path / "scratch", sha256=False)

    assert len(made.problems) == 1
    assert not list((made.directory / "objects/pack").iterdir())


def test_sha256_and_a_shallow_history_are_taken_over(tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree")
    (tree / ".git/shallow").write_text("x\n")
    private = private_of(tree / ".git", tmp_path / "private")

    made = scratch.fill(private, tree / ".git", tmp_path / "scratch", sha256=True)

    assert "sha256" in (made.directory / "config").read_text()
    assert (made.directory / "shallow").read_text() == "x\n"


def test_a_path_with_a_line_feed_is_one_alternate(tmp_path: Path) -> None:
    tree = repository(tmp_path / "a\nb")
    private = private_of(tree / ".git", tmp_path / "private")

    made = scratch.fill(private, tree / ".git", tmp_path / "scratch", sha256=False)

    head = git("rev-parse", "HEAD", at=tree)
    assert scratch.types_of(HostGit(made.directory), [head]) == {head: "commit"}
