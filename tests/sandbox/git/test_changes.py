"""What a clone changed is shown, and nothing of it is obeyed while it is read."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.git import changes
from claude_proxy.sandbox.git.changes import changes_of
from claude_proxy.sandbox.git.clones import remove_tree
from tests.sandbox.boxes import executable
from tests.sandbox.git.cloned import cloned, environ
from tests.sandbox.git.repositories import commit, git, repository


def test_a_new_clone_has_no_changes(tmp_path: Path) -> None:
    found = cloned(tmp_path).changes()

    assert not found.untaken
    assert (found.commit_count, found.work.count, found.committed.files) == (0, 0, ())


def test_commits_files_and_uncommitted_work_are_shown(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    made.write("tool", mode=0o755)
    made.write("one", "changed\n")

    found = made.changes()

    assert [commit.subject for commit in found.commits] == ["two"]
    assert [(file.path, file.happened) for file in found.committed.files] == [("two", "added")]
    assert "+two" in found.committed.diff
    assert [(file.path, file.happened) for file in found.uncommitted.files] == [
        ("one", "changed"),
        ("tool", "added"),
    ]
    assert found.uncommitted.files[1].reasons == ("new executable",)
    assert "-one\n+changed" in found.uncommitted.diff
    assert (found.untaken, found.head_name) == (True, "main")


def test_a_file_that_was_removed_or_has_become_a_directory_is_shown(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    (made.clone.tree / "one").unlink()
    made.write("one/below")

    found = made.changes().uncommitted.files

    assert [(file.path, file.happened) for file in found] == [
        ("one", "removed"),
        ("one/below", "added"),
    ]


def test_attributes_of_the_clone_hide_nothing(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    made.write(".gitattributes", "* -diff -text\n* binary\n")
    made.write("evil.sh", "evil\n")
    made.inside("add", ".")
    made.inside("commit", "-qm", "hidden")
    made.write("more.sh", "more\n")

    found = made.changes()

    assert "+evil" in found.committed.diff
    assert "+more" in found.uncommitted.diff


def test_no_program_that_the_clone_names_is_run(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    ran = tmp_path / "ran"
    trap = str(executable(tmp_path / "trap", f"#!/bin/sh\ntouch {ran}\ncat\n"))
    made.write(".gitattributes", "* filter=x diff=x merge=x\n")
    made.commit("two")
    nested = repository(made.clone.tree / "nested")
    for at in (made.clone.git / "config", nested / ".git/config"):
        for key in (
            *("core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "diff.external"),
            *("filter.x.clean", "filter.x.smudge", "filter.x.process", "diff.x.textconv"),
            *("diff.x.command", "uploadpack.packObjectsHook", "core.askPass", "gpg.program"),
            *("core.hooksPath", "core.alternateRefsCommand", "include.path", "alias.log"),
        ):
            git("config", "--file", str(at), key, trap, at=tmp_path)
    for name in ("pre-commit", "post-index-change", "reference-transaction", "post-checkout"):
        executable(made.clone.git / "hooks" / name, Path(trap).read_text())
    made.write("one", "changed\n")

    found = made.changes()
    made.take()

    assert found.work.count
    assert not ran.exists()


def test_only_rules_of_the_tree_and_of_the_user_ignore_files(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    (made.clone.git / "info/exclude").write_text("*\n")
    made.inside("config", "core.excludesFile", str(made.write("all", "*\n")))
    home = tmp_path / "home"
    (home / ".config/git").mkdir(parents=True)
    (home / ".config/git/ignore").write_text("mine\n")
    made.write(".gitignore", "build/\n")
    for name in ("build/x", "shown", "mine"):
        made.write(name)

    found = changes_of(made.clone, {**environ(), "HOME": str(home)})

    assert [file.path for file in found.uncommitted.files] == [".gitignore", "all", "shown"]


def test_what_was_taken_is_left_out_unless_it_is_asked_for(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    made.take()
    made.commit("three")

    assert [file.path for file in made.changes().committed.files] == ["three"]
    whole = made.changes(since_start=True)
    assert [file.path for file in whole.committed.files] == ["three", "two"]


def test_a_detached_head_and_a_stash_are_work_that_is_not_taken(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    made.write("one", "stashed\n")
    made.inside("stash")
    stashed = made.changes()
    made.inside("stash", "drop")
    made.inside("checkout", "-q", "--detach")
    made.commit("two")
    detached = made.changes()

    assert stashed.untaken
    assert detached.untaken
    assert (detached.head_name == detached.head, detached.commit_count) == (True, 1)


def test_a_clone_of_an_empty_repository_is_compared_with_nothing(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    git("init", "-q", at=tmp_path / "project")
    made = cloned(tmp_path)
    made.write("new")
    before = made.changes()
    made.commit("first")

    assert [file.path for file in before.uncommitted.files] == ["new"]
    assert [file.path for file in made.changes().committed.files] == ["first"]


def test_a_repository_of_sha_256_is_read(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    git("init", "-q", "--object-format=sha256", at=project)
    commit(project, "one")
    made = cloned(tmp_path)
    made.commit("two")
    made.write("three")

    found = made.changes()

    assert [file.path for file in found.committed.files] == ["two"]
    assert [file.path for file in found.uncommitted.files] == ["three"]
    assert made.take().complete


def test_a_long_difference_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    monkeypatch.setattr(changes, "MAX_DIFF_BYTES", 10)

    found = made.changes().committed

    assert (len(found.diff), found.cut_off) == (10, True)


def test_a_tree_that_is_a_link_is_an_error(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    remove_tree(made.clone.tree)
    made.clone.tree.symlink_to(made.project)

    with pytest.raises(ClaudeProxyError, match="files cannot be read"):
        made.changes()


@pytest.mark.parametrize(
    "name", ["git~1", "a\\b", "aux", ".gitmodules ", "x\u200c.git", "-x", "a\nb"]
)
def test_every_name_is_shown(tmp_path: Path, name: str) -> None:
    made = cloned(tmp_path)
    made.write(name)

    found = made.changes()

    assert [file.path for file in found.uncommitted.files] == [name]
    assert not found.work.unread


def test_what_cannot_be_compared_is_an_error_and_not_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    monkeypatch.setattr(changes, "_DIFF", ("no-such-command",))

    with pytest.raises(ClaudeProxyError, match="cannot be compared"):
        made.changes()


def test_a_clone_is_read_by_several_at_once(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    made.commit("two")

    with ThreadPoolExecutor() as pool:
        found = [pool.submit(made.changes) for _ in range(4)]

    assert [one.result().commit_count for one in found] == [1] * 4


def test_of_very_many_branches_each_is_named_and_none_counts_as_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "_MAX_JUDGED", 1)
    made = cloned(tmp_path)
    for name in ("a", "b"):
        made.inside("checkout", "-q", "-b", name)
        made.commit(name)
    made.inside("branch", "same-as-b")

    found = {branch.name: branch.problem for branch in made.changes().branches}

    assert len(found) == 3
    assert any(found.values())
    assert made.changes().untaken
