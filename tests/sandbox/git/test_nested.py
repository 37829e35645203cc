"""Repositories within a project are found, nearest first, without following links."""

from pathlib import Path

from claude_proxy.sandbox.git.nested import git_entries_below


def test_directories_files_and_links_are_told_apart(project: Path) -> None:
    for name in (".git/modules/x/.git", "a/b/.git", "node_modules/m/.git"):
        (project / name).mkdir(parents=True)
    (project / "c").mkdir()
    (project / "c/.git").write_text("gitdir: x\n")
    (project / "d").mkdir()
    (project / "d/.git").symlink_to("nowhere")
    (project / "e").symlink_to("a")

    found = git_entries_below(project)

    # Those of submodules are in .git, which is looked at apart from this.
    assert set(found.directories) == {project / "a/b/.git"}
    assert (found.files, found.links) == ([project / "c/.git"], [project / "d/.git"])
    assert found.complete


def test_a_walk_that_is_cut_short_says_so(project: Path) -> None:
    for number in range(20):
        (project / f"{number}/x").mkdir(parents=True)

    assert not git_entries_below(project, limit=10).complete
    assert git_entries_below(project / "none").complete
