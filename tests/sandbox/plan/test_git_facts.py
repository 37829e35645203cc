"""A path in a Git directory that is mounted over counts as covered."""

from pathlib import Path

from claude_proxy.sandbox.plan.git_facts import GitDirectory, GitMounts, ObjectStore


def test_what_is_below_a_git_directory_is_covered() -> None:
    git = GitMounts((GitDirectory(Path("/p/.git"), Path("/s/0"), Path("/s/0.start")),))

    assert git.covers(Path("/p/.git/modules/x"))
    assert not git.covers(Path("/p/.github"))


def test_each_store_has_a_place_of_its_own_inside() -> None:
    assert ObjectStore.inside(0) != ObjectStore.inside(1)
