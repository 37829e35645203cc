"""What a clone committed comes over, and nothing is lost on either side."""

from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.git import clones
from claude_proxy.sandbox.git.clones import remove_tree
from claude_proxy.sandbox.git.ref_moves import Move
from tests.sandbox.boxes import executable
from tests.sandbox.git.cloned import Cloned, cloned
from tests.sandbox.git.repositories import commit, git, repository


def kept(made: Cloned, name: str = "main") -> str:
    return made.outside("rev-parse", f"refs/claude-proxy/refactor/{name}")


def test_the_checked_out_branch_goes_forward_with_its_files(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    at = made.commit("two")

    taken = made.take()

    assert (taken.complete, taken.checked_out) == (True, "main")
    assert made.outside("rev-parse", "main") == kept(made) == at
    assert (made.project / "two").read_text() == "two\n"
    assert made.outside("status", "--porcelain") == ""


def test_uncommitted_work_elsewhere_is_kept(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    (made.project / "one").write_text("mine")
    (made.project / "new").write_text("mine")

    assert made.take().complete

    assert (made.project / "one").read_text() == (made.project / "new").read_text() == "mine"
    assert (made.project / "two").exists()


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("name", ["one", "two"])
def test_uncommitted_work_in_the_way_stays_and_the_branch_too(
    tmp_path: Path, name: str, *, ignored: bool
) -> None:
    made = cloned(tmp_path)
    made.write("one", "theirs\n")
    made.inside("commit", "-qam", "one")
    at = made.commit("two")
    before = made.outside("rev-parse", "main")
    (made.project / name).write_text("mine")
    if ignored:
        (made.project / ".git/info/exclude").write_text(f"{name}\n")

    taken = made.take()

    assert (made.project / name).read_text() == "mine"
    assert made.outside("rev-parse", "main") == before
    assert kept(made) == at
    assert not taken.complete
    assert [ref.problem for ref in taken.brought.refs] == [
        f"uncommitted work is in the way: {name}"
    ]


def test_what_was_in_the_way_is_taken_the_next_time(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    at = made.commit("two")
    (made.project / "two").write_text("mine")
    made.take()
    (made.project / "two").unlink()

    assert made.take().complete
    assert made.outside("rev-parse", "main") == at


def test_a_branch_that_is_not_checked_out_goes_forward(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    made.outside("checkout", "-q", "-b", "mine")
    at = made.commit("two")

    assert made.take().complete

    assert made.outside("rev-parse", "main") == at
    assert not (made.project / "two").exists()


def test_a_new_branch_is_created_and_one_alone_can_be_taken(tmp_path: Path) -> None:
    made = cloned(tmp_path, "agent")
    made.commit("two")
    made.inside("checkout", "-q", "-b", "other")
    made.commit("three")

    made.take("agent")
    first = made.outside("branch", "--format=%(refname:short)").split()
    made.take()

    assert first == ["agent", "main"]
    assert made.outside("branch", "--format=%(refname:short)").split() == ["agent", "main", "other"]


def test_what_diverged_is_kept_beside(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    at = made.commit("two")
    ours = commit(made.project, "three")

    taken = made.take()

    assert [ref.move for ref in taken.brought.refs] == [Move.DIVERGED]
    assert (made.outside("rev-parse", "main"), kept(made)) == (ours, at)
    assert not taken.complete
    assert [ref.move for ref in made.take().brought.refs] == [Move.DIVERGED]  # said again


def test_nothing_new_is_complete_and_a_second_time_takes_what_is_new(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    empty = made.take()
    made.commit("two")
    made.take()
    at = made.commit("three")

    assert (empty.complete, empty.brought.refs) == (True, ())
    assert made.take().complete
    assert made.outside("rev-parse", "main") == at


def test_a_branch_that_was_taken_stays_when_the_clone_deletes_it(tmp_path: Path) -> None:
    made = cloned(tmp_path, "agent")
    at = made.commit("two")
    made.take()
    made.inside("checkout", "-q", "main")
    made.inside("branch", "-D", "agent")

    made.take()

    assert made.outside("rev-parse", "agent") == at


def test_a_branch_of_another_worktree_does_not_move_under_it(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    made.outside("checkout", "-q", "-b", "mine")
    made.outside("worktree", "add", "-q", str(tmp_path / "linked"), "main")
    made.commit("two")

    taken = made.take()

    assert not taken.complete
    assert git("status", "--porcelain", at=tmp_path / "linked") == ""


def test_an_empty_repository_gets_its_first_commit(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    git("init", "-q", at=tmp_path / "project")
    made = cloned(tmp_path)
    made.commit("first")

    assert made.take().complete
    assert (made.project / "first").exists()


def test_a_bare_repository_goes_forward(tmp_path: Path) -> None:
    main = repository(tmp_path / "main")
    git("clone", "-q", "--bare", str(main), str(tmp_path / "project"), at=tmp_path)
    made = cloned(tmp_path)
    at = made.commit("two")

    assert made.take().complete
    assert made.outside("rev-parse", "main") == at


@pytest.mark.parametrize("place", ["hooks", "project"])
def test_no_hook_runs_not_even_one_that_comes_over(tmp_path: Path, place: str) -> None:
    project = repository(tmp_path / "project")
    ran = tmp_path / "ran"
    hook = f"#!/bin/sh\ntouch {ran}\n"
    if place == "project":
        git("config", "core.hooksPath", ".husky", at=project)
    made = cloned(tmp_path)
    for name in ("post-merge", "post-checkout", "reference-transaction", "post-index-change"):
        if place == "project":
            made.write(f".husky/{name}", hook, 0o755)
        else:
            executable(project / ".git/hooks" / name, hook)
    made.inside("add", ".")
    made.commit("two")

    assert made.take().complete
    assert not ran.exists()


@pytest.mark.parametrize("brings_attributes", [False, True])
def test_a_file_that_needs_a_filter_is_left_to_the_user(
    tmp_path: Path, *, brings_attributes: bool
) -> None:
    project = repository(tmp_path / "project")
    ran = tmp_path / "ran"
    if not brings_attributes:
        (project / ".gitattributes").write_text("*.bin filter=x\n")
        git("add", ".", at=project)
        git("commit", "-qm", "attributes", at=project)
    git("config", "filter.x.smudge", "sh tool", at=project)
    made = cloned(tmp_path)
    if brings_attributes:
        made.write(".gitattributes", "*.bin filter=x\n")
    made.write("tool", f"touch {ran}\ncat\n")
    made.write("z.bin")
    made.inside("add", ".")
    made.commit("two")

    taken = made.take()

    assert not ran.exists()
    assert "filter" in taken.brought.refs[0].problem
    assert kept(made)


def test_a_branch_that_the_clone_does_not_have_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClaudeProxyError, match="has no branch 'other'") as error:
        cloned(tmp_path).take("other")

    assert error.value.fix == "name one of main"


def test_a_project_that_is_gone_or_a_clone_that_is_damaged_is_an_error(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    remove_tree(made.clone.git)
    with pytest.raises(ClaudeProxyError, match="the clone cannot be read"):
        made.take()

    remove_tree(made.project)
    with pytest.raises(ClaudeProxyError, match="the repository of the project is gone"):
        made.take()


def test_what_an_earlier_clone_of_the_name_left_is_not_lost(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    first = made.commit("two")
    commit(made.project, "three")
    made.take()
    clones.remove(made.clone)

    again = cloned(tmp_path)
    second = again.commit("four")
    commit(again.project, "five")
    again.take()

    refs = again.outside("for-each-ref", "--format=%(objectname)", "refs/claude-proxy").split()
    assert set(refs) == {first, second}


def test_what_a_clone_rewrites_leaves_nothing_where_a_branch_has_it(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    made.take()
    made.inside("commit", "-q", "--amend", "-m", "better")
    made.take()

    kept_refs = made.outside("for-each-ref", "--format=%(refname)", "refs/claude-proxy").split()
    assert kept_refs == ["refs/claude-proxy/refactor/main"]
