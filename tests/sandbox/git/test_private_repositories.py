"""Git works in a run in every layout, and nothing of the host's Git directories is writable."""

import shutil
import threading
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.git import discovery, private_directory
from claude_proxy.sandbox.git.nested import git_entries_below
from claude_proxy.sandbox.git.private_repositories import found_in, recover
from tests.sandbox.git.repositories import commit, git, repository
from tests.sandbox.git.runs import GitBox
from tests.support.waiting import until

# What an agent would write so that git outside runs a command.
ATTACKS = (
    "git config core.fsmonitor evil; echo evil > .git/config; echo evil > .git/hooks/pre-commit; "
    "mkdir -p .git/hooks; echo evil > .git/commondir; echo evil > .git/config.worktree; "
    "echo evil > .git/info/attributes; mv .git gone; "
)


def evil_in(directory: Path) -> list[Path]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [path for path in files if b"evil" in path.read_bytes()]


def test_commits_come_over_and_settings_do_not(git_box: GitBox) -> None:
    done = git_box.sh(f"echo x > x; git add x; git commit -qm two; git log --format=%s; {ATTACKS}")

    assert done.out == "two\none\n", done.err
    assert not evil_in(git_box.tree / ".git")
    assert git_box.outside("fsck", "--full") == ""


def test_a_run_that_commits_leaves_the_branch_the_index_and_no_private_directory(
    git_box: GitBox,
) -> None:
    git_box.sh("echo x > x; git add x; git commit -qm two")

    assert git_box.outside("log", "--format=%s") == "two\none"
    assert git_box.outside("status", "--porcelain") == ""
    assert not list((git_box.statedir / "repositories").iterdir())
    new = git_box.outside("rev-parse", "HEAD")[:10]
    assert git_box.said == [f"note: brought over into {git_box.tree}: main ({new})"]


def test_a_run_that_commits_nothing_leaves_nothing_and_says_nothing(git_box: GitBox) -> None:
    before = git_box.outside("for-each-ref")

    git_box.sh("git status; git config a.b c; git gc -q")

    assert (git_box.outside("for-each-ref"), git_box.said) == (before, [])


def test_hooks_of_the_host_run_inside(git_box: GitBox) -> None:
    hook = git_box.tree / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho hooked\n")
    hook.chmod(0o755)

    done = git_box.sh("git commit -q --allow-empty -m two 2>&1")

    assert done.out == "hooked\n"


def test_a_linked_worktree_works_and_its_repository_is_not_writable(
    git_box: GitBox, tmp_path: Path
) -> None:
    main = repository(tmp_path / "main")
    shutil.rmtree(git_box.tree)
    git("worktree", "add", "-q", git_box.tree, "-b", "side", at=main)

    done = git_box.sh(
        f"echo x > x; git add x; git commit -qm two; echo evil > .git; {ATTACKS}"
        f"echo evil > {main}/.git/config; echo evil > {main}/.git/worktrees/project/commondir"
    )

    assert git_box.outside("log", "--format=%s", "side") == "two\none", done.err
    assert git_box.outside("status", "--porcelain") == ""
    assert not evil_in(main / ".git")
    assert "evil" not in (git_box.tree / ".git").read_text()


def test_a_worktree_within_the_project_comes_over_with_its_own_index(git_box: GitBox) -> None:
    git_box.outside("worktree", "add", "-q", "in", "-b", "side")

    git_box.sh("cd in; echo x > x; git add x; git commit -qm two; echo evil > .git")

    assert git("log", "--format=%s", at=git_box.tree / "in") == "two\none"
    assert git("status", "--porcelain", at=git_box.tree / "in") == ""
    assert "evil" not in (git_box.tree / "in/.git").read_text()


def test_a_worktree_of_a_bare_repository_in_the_project_keeps_its_index(git_box: GitBox) -> None:
    git("clone", "-q", "--bare", git_box.tree, git_box.box.home / "bare", at=git_box.tree)
    shutil.rmtree(git_box.tree)
    git_box.tree.mkdir()
    (git_box.box.home / "bare").rename(git_box.tree / ".bare")
    (git_box.tree / ".git").write_text("gitdir: ./.bare\n")
    git_box.outside("worktree", "add", "-q", "w", "main")

    git_box.sh("cd w; echo x > x; git add x; git commit -qm two; echo evil > .git ../.git")

    assert git("log", "--format=%s", at=git_box.tree / "w") == "two\none"
    assert git("status", "--porcelain", at=git_box.tree / "w") == ""


def test_a_submodule_works_and_neither_its_file_nor_its_directory_is_writable(
    git_box: GitBox, tmp_path: Path
) -> None:
    git_box.outside("submodule", "add", "-q", repository(tmp_path / "other"), "sub")
    git_box.outside("commit", "-q", "-m", "sub")

    git_box.sh(
        f"cd sub; git checkout -q -b new; echo x > x; git add x; git commit -qm two; {ATTACKS}"
        "echo evil > .git; cd ..; echo evil > .git/modules/sub/config; mv sub gone;"
        "git add sub; git commit -qm both"
    )

    assert git_box.outside("log", "-1", "--format=%s") == "both"
    assert git("log", "-1", "--format=%s %D", at=git_box.tree / "sub").startswith("two HEAD -> new")
    assert git_box.outside("status", "--porcelain") == ""
    assert not evil_in(git_box.tree / ".git")
    assert "evil" not in (git_box.tree / "sub/.git").read_text()


def test_a_repository_within_the_project_is_not_writable(git_box: GitBox) -> None:
    nested = repository(git_box.tree / "vendor/nested")

    git_box.sh(f"cd vendor/nested; echo x > x; git add x; git commit -qm two; {ATTACKS}")

    assert git("log", "--format=%s", at=nested) == "two\none"
    assert not evil_in(nested / ".git")


def test_a_bare_repository_is_a_project_that_is_a_copy(git_box: GitBox, tmp_path: Path) -> None:
    git("clone", "-q", "--bare", git_box.tree, tmp_path / "bare", at=tmp_path)
    shutil.rmtree(git_box.tree)
    (tmp_path / "bare").rename(git_box.tree)

    done = git_box.sh(
        "git branch new; echo evil > config; echo evil > hooks/update; git log --format=%s new"
    )

    assert git_box.outside("branch", "--list", "new"), done.err
    assert not evil_in(git_box.tree)


def test_objects_that_the_host_borrows_are_shown(git_box: GitBox, tmp_path: Path) -> None:
    main = repository(tmp_path / "main")
    shutil.rmtree(git_box.tree)
    git("clone", "-q", "--shared", main, git_box.tree, at=tmp_path)

    done = git_box.sh("git log --format=%s; git commit -q --allow-empty -m two; git fsck")

    assert (done.out, done.err) == ("one\n", "")
    assert git_box.outside("log", "--format=%s") == "two\none"


def test_a_project_without_a_repository_gets_none(git_box: GitBox) -> None:
    shutil.rmtree(git_box.tree)
    git_box.tree.mkdir()

    done = git_box.sh("git status")

    assert "not a git repository" in done.err
    assert not list(git_box.tree.iterdir())


def test_what_the_host_does_meanwhile_opens_nothing(git_box: GitBox) -> None:
    waits = "touch begun; until test -e done; do sleep 0.02; done; rm begun done; "

    def host() -> None:
        until((git_box.tree / "begun").exists)
        git_box.outside("config", "a.b", "c")
        git_box.outside("checkout", "-q", "-b", "other")
        git_box.outside("checkout", "-q", "main")
        git_box.outside("worktree", "add", "-q", "../other-tree", "other")
        git_box.outside("gc", "-q", "--prune=now")
        commit(git_box.tree, "host")
        git_box.outside("rebase", "-q", "other")
        (git_box.tree / "done").touch()

    thread = threading.Thread(target=host)
    thread.start()
    done = git_box.sh(f"{waits} echo x > x; git add x; git commit -qm two; git log -1; {ATTACKS}")
    thread.join()

    assert not evil_in(git_box.tree / ".git"), done.err
    assert git_box.outside("log", "-1", "--format=%s", "main") == "host"
    assert git_box.outside("log", "-1", "--format=%s", "refs/claude-proxy/r/main") == "two"
    assert "git" in git_box.said[0]


def test_the_advice_for_a_branch_that_diverged_loses_nothing(git_box: GitBox) -> None:
    with git_box.prepared() as found:
        private = found.directories[0].private
        (private / "objects/info/alternates").write_text(f"{git_box.tree}/.git/objects\n")
        commit(git_box.tree, "theirs", directory=private)
        commit(git_box.tree, "ours")

    advice = git_box.said[0].partition("to merge them: ")[2]
    for command in advice.split(" && "):
        git_box.outside("-c", "merge.stat=false", *command.split()[3:])

    assert (git_box.tree / "ours").exists()
    assert (git_box.tree / "theirs").exists()
    assert git_box.outside("log", "--format=%s", "--no-merges").split() == [
        *sorted(("ours", "theirs"), key=git_box.outside("log", "--format=%s", "--no-merges").find),
        "one",
    ]


def test_what_a_killed_launcher_left_comes_over_at_the_next_start(git_box: GitBox) -> None:
    with git_box.prepared() as found:
        private = found.directories[0].private
        (private / "objects/info/alternates").write_text(f"{git_box.tree}/.git/objects\n")
        commit(git_box.tree, "two", directory=private)
        recover(git_box.statedir, git_box.said.append)
        assert git_box.said == []  # it is alive
        # Another record has no lock, as that of a launcher that was killed.
        place = private.parent
        shutil.copy(place / "record", place / "copy")
        (place / "copy").replace(place / "record")

        recover(git_box.statedir, git_box.said.append)

        assert git_box.outside("log", "--format=%s") == "two\none"
        assert git_box.said[0].startswith("note: from run ")
        assert "which was killed: brought over into" in git_box.said[0]
        assert not place.exists()


def test_what_cannot_be_brought_over_is_kept(git_box: GitBox, tmp_path: Path) -> None:
    with git_box.prepared() as found:
        private = found.directories[0].private
        (private / "objects/info/alternates").write_text(f"{git_box.tree}/.git/objects\n")
        commit(git_box.tree, "two", directory=private)
        (git_box.tree / ".git").rename(tmp_path / "moved")

    assert private.exists()
    assert str(private) in git_box.said[-1]
    (tmp_path / "moved").rename(git_box.tree / ".git")
    recover(git_box.statedir, git_box.said.append)
    assert git_box.outside("log", "--format=%s") == "two\none"
    assert not private.exists()


def test_a_private_directory_that_cannot_be_removed_at_once_is_removed(git_box: GitBox) -> None:
    with git_box.prepared() as found:
        private = found.directories[0].private
        (private / "a/b").mkdir(parents=True)
        (private / "a/b/c").touch()
        (private / "a/b").chmod(0o500)
        (private / "a").chmod(0)

    assert not private.parent.exists()


def test_a_repository_that_cannot_be_copied_is_an_error(
    git_box: GitBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(private_directory, "make", full)

    with pytest.raises(ConfigError, match="no space left"), git_box.prepared():
        pass


def test_a_project_that_is_too_large_to_be_looked_through_is_said(
    git_box: GitBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    (git_box.tree / "a/b").mkdir(parents=True)
    monkeypatch.setattr(discovery, "git_entries_below", lambda at: git_entries_below(at, limit=1))

    with git_box.prepared() as found:
        assert not found.complete

    assert "too large" in git_box.said[0]


def test_a_dry_run_creates_nothing(git_box: GitBox) -> None:
    found = found_in(git_box.box.spec("/bin/true"), git_box.statedir, "r")

    assert found.directories[0].host == git_box.tree / ".git"
    assert not (git_box.statedir / "repositories").exists()
