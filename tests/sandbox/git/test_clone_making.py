"""A clone has what the project's repository has, no path of it, and none of its secrets."""

from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox.git import clone_making, clones
from claude_proxy.sandbox.git.clone_making import NotCarried, continue_clone
from tests.sandbox.boxes import executable
from tests.sandbox.git.cloned import Cloned, cloned, environ
from tests.sandbox.git.repositories import commit, git, repository


def not_carried(project: Path, statedir: Path) -> NotCarried:
    return clone_making.make(statedir, "refactor", project, None, environ())[1]


def test_a_clone_has_the_files_the_branches_and_the_tags(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    git("tag", "v1", at=project)
    git("branch", "other", at=project)
    git("update-ref", "refs/remotes/origin/main", "HEAD", at=project)

    made = cloned(tmp_path)

    assert (made.clone.tree / "one").read_text() == "one\n"
    assert made.inside("status", "--porcelain") == ""
    assert made.inside("symbolic-ref", "HEAD") == "refs/heads/main"
    assert made.inside("for-each-ref", "--format=%(refname)").split() == [
        "refs/heads/main",
        "refs/heads/other",
        "refs/remotes/origin/main",
        "refs/tags/v1",
    ]
    assert made.clone.record.base == made.outside("rev-parse", "HEAD")


def test_a_clone_shares_no_file_with_the_project(tmp_path: Path) -> None:
    made = cloned(tmp_path)

    files = [path for path in made.clone.git.rglob("*") if path.is_file()]
    assert {path.stat().st_nlink for path in files} == {1}
    assert not (made.clone.git / "objects/info/alternates").exists()
    assert str(made.project) not in (made.clone.git / "config").read_text()


def test_a_clone_has_a_place_for_hooks_and_no_hooks_of_the_project(tmp_path: Path) -> None:
    hook = repository(tmp_path / "project") / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.touch()

    made = cloned(tmp_path)

    assert list((made.clone.git / "hooks").iterdir()) == []


def test_uncommitted_work_stays_and_is_counted(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    (project / "one").write_text("changed")
    (project / "new").touch()

    missing = not_carried(project, tmp_path / "state")

    assert missing == NotCarried(uncommitted=2)
    assert [line.partition(" of")[0] for line in missing.lines()] == ["2 files"]
    assert (project / "one").read_text() == "changed"


def test_a_stash_and_other_private_refs_are_not_copied(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    (project / "one").write_text("secret")
    git("stash", at=project)
    stash = git("rev-parse", "stash", at=project)

    made = cloned(tmp_path)

    assert stash not in made.inside("cat-file", "--batch-all-objects", "--batch-check")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("http.extraHeader", "Authorization: Bearer s3cret"),
        ("http.https://host.test/.extraheader", "s3cret"),
        ("credential.helper", "!echo password=s3cret"),
        ("remote.origin.url", "https://ann:s3cret@host.test/x.git"),
        ("remote.origin.pushurl", "https://s3cret@host.test/x.git"),
        ("url.https://s3cret@host.test/.insteadOf", "https://host.test/"),
        ("core.sshCommand", "ssh -i s3cret"),
        ("filter.x.smudge", "s3cret"),
        ("alias.x", "!s3cret"),
    ],
)
def test_passwords_and_programs_of_the_configuration_stay_outside(
    tmp_path: Path, key: str, value: str
) -> None:
    git("config", key, value, at=repository(tmp_path / "project"))

    assert "s3cret" not in (cloned(tmp_path).clone.git / "config").read_text()


def test_remotes_and_the_identity_come_along(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    git("remote", "add", "origin", "ssh://git@host.test/x.git", at=project)
    git("config", "user.email", "ann@host.test", at=project)

    made = cloned(tmp_path)

    assert made.inside("remote", "get-url", "origin") == "ssh://git@host.test/x.git"
    assert made.inside("config", "--local", "user.email") == "ann@host.test"


def test_a_branch_is_created_from_what_is_checked_out(tmp_path: Path) -> None:
    made = cloned(tmp_path, "agent/refactor")

    assert made.inside("symbolic-ref", "HEAD") == "refs/heads/agent/refactor"
    assert made.clone.record.branch == "agent/refactor"


@pytest.mark.parametrize("ref", ["refs/heads/other", "refs/remotes/origin/other"])
def test_a_branch_that_exists_is_checked_out(tmp_path: Path, ref: str) -> None:
    project = repository(tmp_path / "project")
    git("update-ref", ref, "HEAD", at=project)
    first = git("rev-parse", "HEAD", at=project)
    commit(project, "two")

    made = cloned(tmp_path, "other")

    assert made.inside("rev-parse", "HEAD") == first


@pytest.mark.parametrize("name", ["-x", "a..b", "HEAD", "a b", "x.lock", "/a"])
def test_a_name_that_git_refuses_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a branch"):
        cloned(tmp_path, name)


def test_a_detached_head_becomes_a_branch_of_the_name_of_the_clone(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    git("checkout", "-q", "--detach", at=project)
    at = commit(project, "two")

    made = cloned(tmp_path)

    assert made.inside("symbolic-ref", "HEAD") == "refs/heads/refactor"
    assert made.inside("rev-parse", "HEAD") == at


def test_a_repository_without_a_commit_has_a_clone_without_one(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    git("init", "-q", at=project)

    made = cloned(tmp_path)

    assert made.clone.record.base is None
    assert made.inside("symbolic-ref", "HEAD") == "refs/heads/main"


def test_a_worktree_and_a_bare_repository_are_cloned(tmp_path: Path) -> None:
    main = repository(tmp_path / "main")
    git("worktree", "add", "-q", str(tmp_path / "linked"), "-b", "linked", at=main)
    git("clone", "-q", "--bare", str(main), str(tmp_path / "bare.git"), at=tmp_path)

    for name, branch in (("linked", "linked"), ("bare.git", "main")):
        made = Cloned(tmp_path / name, tmp_path / "state", name)
        clone_making.make(made.statedir, name, made.project, None, environ())

        assert made.inside("symbolic-ref", "--short", "HEAD") == branch
        assert (made.clone.tree / "one").exists()


def test_a_directory_without_a_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()

    with pytest.raises(ConfigError, match="needs a Git repository"):
        clone_making.make(tmp_path / "state", "refactor", tmp_path / "project", None, environ())

    assert clones.all_in(tmp_path / "state") == []


@pytest.mark.parametrize("part", ["sub", ".git", ".git/hooks"])
def test_a_part_of_a_repository_is_refused(tmp_path: Path, part: str) -> None:
    project = repository(tmp_path / "project")
    (project / part).mkdir(exist_ok=True)

    with pytest.raises(ConfigError, match="the project is"):
        clone_making.make(tmp_path / "state", "refactor", project / part, None, environ())


def test_no_filter_of_the_user_runs_and_its_files_are_counted(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    ran = tmp_path / "ran"
    trap = executable(tmp_path / "trap", f"#!/bin/sh\ntouch {ran}\ncat\n")
    (project / ".gitattributes").write_text("one filter=x\n")
    git("add", ".gitattributes", at=project)
    git("commit", "-qm", "attributes", at=project)
    git("config", "filter.x.smudge", str(trap), at=project)
    (project / ".git/info/attributes").write_text("")

    assert not_carried(project, tmp_path / "state").filtered == 1
    assert not ran.exists()


def test_submodules_are_counted_and_empty(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    repository(tmp_path / "part")
    git("submodule", "add", "-q", str(tmp_path / "part"), "part", at=project)
    git("commit", "-qm", "submodule", at=project)

    assert not_carried(project, tmp_path / "state").submodules == 1


def test_objects_that_the_project_borrows_are_copied(tmp_path: Path) -> None:
    main = repository(tmp_path / "main")
    git("clone", "-q", "--shared", str(main), str(tmp_path / "project"), at=tmp_path)

    assert cloned(tmp_path).inside("fsck") == ""


def test_a_clone_of_another_project_or_branch_is_not_continued(tmp_path: Path) -> None:
    made = cloned(tmp_path)

    assert continue_clone(made.clone, made.project, None) == made.clone
    assert continue_clone(made.clone, made.project, "main") == made.clone
    with pytest.raises(ConfigError, match="is one of"):
        continue_clone(made.clone, tmp_path, None)
    with pytest.raises(ConfigError, match="was made for the branch"):
        continue_clone(made.clone, made.project, "other")


def test_an_incomplete_clone_is_not_continued(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    clones.remove_tree(made.clone.tree)

    with pytest.raises(ClaudeProxyError, match="incomplete"):
        continue_clone(made.clone, made.project, None)


@pytest.mark.parametrize("option", ["--depth=1", "--filter=blob:none"])
def test_a_repository_with_a_part_of_the_history_is_cloned(tmp_path: Path, option: str) -> None:
    main = repository(tmp_path / "main")
    commit(main, "two")
    git("config", "uploadpack.allowFilter", "true", at=main)
    git("clone", "-q", option, f"file://{main}", str(tmp_path / "project"), at=tmp_path)

    made = cloned(tmp_path)
    made.commit("three")

    assert made.take().complete


def test_a_repository_that_has_not_what_is_checked_out_is_an_error(tmp_path: Path) -> None:
    main = repository(tmp_path / "main")
    git("config", "uploadpack.allowFilter", "true", at=main)
    words = ("--filter=tree:0", f"file://{main}", str(tmp_path / "project"))
    git("clone", "-q", "--bare", *words, at=tmp_path)

    with pytest.raises(ClaudeProxyError, match="partial clone") as error:
        cloned(tmp_path)

    assert "--refetch" in str(error.value.fix)


@pytest.mark.parametrize("driver", ["x", "a=b", "with space"])
def test_counting_uncommitted_work_runs_no_filter_of_the_project(
    tmp_path: Path, driver: str
) -> None:
    project = repository(tmp_path / "project")
    ran = tmp_path / "ran"
    trap = executable(tmp_path / "trap", f"#!/bin/sh\ntouch {ran}\ncat\n")
    for key in ("clean", "process"):
        git("config", f"filter.{driver}.{key}", str(trap), at=project)
    git("config", f"filter.{driver}.required", "true", at=project)
    (project / ".git/info/attributes").write_text(f"* filter={driver}\n")
    (project / "one").write_text("two\n")

    assert not_carried(project, tmp_path / "state").uncommitted == 1
    assert not ran.exists()
