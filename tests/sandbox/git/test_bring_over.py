"""What a run committed comes over as data, and nothing is lost on either side."""

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from claude_proxy.sandbox.git.bring_over import BroughtOver, bring_over, known_of
from claude_proxy.sandbox.git.ref_moves import Known, Move
from tests.sandbox.git.repositories import commit, git, private_of, repository


@dataclass
class Run:
    """A run's Git directory, the host's, and the work tree that they share."""

    tree: Path
    private: Path
    known: Known = field(init=False)

    def __post_init__(self) -> None:
        private_of(self.host, self.private)
        self.known = known_of(self.private)

    @property
    def host(self) -> Path:
        return self.tree / ".git"

    def inside(self, *words: str) -> str:
        return git(*words, at=self.tree, directory=self.private)

    def commit(self, name: str) -> str:
        return commit(self.tree, name, directory=self.private)

    def outside(self, *words: str) -> str:
        return git(*words, at=self.tree)

    def bring(self, *, ended: bool = True) -> BroughtOver:
        done = bring_over(
            self.private, self.host, "r", known=self.known, shares_tree=True, ended=ended
        )
        self.known = done.known
        return done

    def host_has(self, name: str) -> str:
        return self.outside("for-each-ref", "--format=%(objectname)", name)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(repository(tmp_path / "tree"), tmp_path / "private")


def moves(done: BroughtOver) -> dict[str, Move]:
    return {ref.name: ref.move for ref in done.refs}


def test_a_commit_forwards_the_branch_and_refreshes_the_index(run: Run) -> None:
    new = run.commit("two")

    done = run.bring()

    assert moves(done) == {"refs/heads/main": Move.FORWARD}
    assert done.complete
    assert run.host_has("refs/heads/main") == run.host_has("refs/claude-proxy/r/main") == new
    assert not run.outside("status", "--porcelain")
    assert run.outside("fsck", "--strict") == ""


def test_nothing_happens_if_nothing_was_committed(run: Run) -> None:
    before = run.outside("for-each-ref")

    done = run.bring()

    assert (done.refs, done.complete) == ((), True)
    assert run.outside("for-each-ref") == before


def test_commits_of_both_sides_are_kept_and_nothing_moves(run: Run) -> None:
    ours = run.commit("two")
    theirs = commit(run.tree, "three")

    done = run.bring()

    assert moves(done) == {"refs/heads/main": Move.DIVERGED}
    assert run.host_has("refs/heads/main") == theirs
    assert run.host_has("refs/claude-proxy/r/main") == ours
    assert [ref.kept_as for ref in done.diverged] == ["refs/claude-proxy/r/main"]


def test_what_is_staged_outside_stays_staged(run: Run) -> None:
    run.commit("two")
    (run.tree / "mine").write_text("mine\n")
    run.outside("add", "mine")

    done = run.bring()

    assert moves(done) == {"refs/heads/main": Move.FORWARD}
    assert run.outside("status", "--porcelain") == "A  mine"


def test_the_branch_stays_if_something_else_is_staged_in_the_same_file(run: Run) -> None:
    (run.tree / "two").write_text("staged\n")
    run.outside("add", "two")
    base = run.outside("rev-parse", "HEAD")
    new = run.commit("two")

    done = run.bring()

    assert done.refs[0].problem
    assert done.diverged
    assert run.host_has("refs/heads/main") == base
    assert run.host_has("refs/claude-proxy/r/main") == new


def test_a_merge_that_the_run_has_finished_is_finished_outside(run: Run) -> None:
    run.outside("checkout", "-q", "-b", "other")
    (run.tree / "one").write_text("theirs\n")
    run.outside("commit", "-q", "-a", "-m", "theirs")
    run.outside("checkout", "-q", "main")
    (run.tree / "one").write_text("ours\n")
    run.outside("commit", "-q", "-a", "-m", "ours")
    with pytest.raises(subprocess.CalledProcessError):
        run.outside("merge", "-q", "other")
    shutil.rmtree(run.private)
    run = Run(run.tree, run.private)
    (run.tree / "one").write_text("both\n")
    run.inside("add", "one")
    run.inside("commit", "-q", "-m", "merged")

    done = run.bring()

    assert not done.diverged
    assert run.outside("status", "--porcelain") == ""
    assert run.outside("log", "-1", "--format=%s") == "merged"
    assert not (run.host / "MERGE_HEAD").exists()


def test_the_branch_stays_while_a_git_command_has_the_index_locked(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claude_proxy.sandbox.git.host_head._LOCK_PATIENCE_S", 0)
    lock = run.host / "index.lock"
    lock.touch()
    run.commit("two")

    done = run.bring(ended=False)

    assert done.refs[0].problem
    assert lock.exists()
    lock.unlink()
    assert not run.bring().diverged


def test_head_follows_to_a_new_branch(run: Run) -> None:
    run.inside("checkout", "-q", "-b", "feature")
    new = run.commit("two")

    done = run.bring()

    assert done.head == "refs/heads/feature"
    assert run.outside("symbolic-ref", "HEAD") == "refs/heads/feature"
    assert run.host_has("refs/heads/feature") == new
    assert not run.outside("status", "--porcelain")


def test_head_does_not_follow_if_the_host_has_checked_out_another_branch(run: Run) -> None:
    run.outside("checkout", "-q", "-b", "other")
    run.inside("checkout", "-q", "-b", "feature")

    done = run.bring()

    assert done.head_problem
    assert run.outside("symbolic-ref", "HEAD") == "refs/heads/other"
    assert run.host_has("refs/heads/feature")


def test_a_branch_of_another_worktree_is_not_moved(run: Run, tmp_path: Path) -> None:
    run.outside("branch", "side")
    shutil.rmtree(run.private)
    run = Run(run.tree, run.private)
    run.outside("worktree", "add", "-q", str(tmp_path / "side"), "side")
    new = run.commit("two")
    run.inside("update-ref", "refs/heads/side", new)

    done = run.bring()

    side = next(ref for ref in done.refs if ref.name == "refs/heads/side")
    assert "checked out" in side.problem
    assert run.host_has("refs/heads/side") != new


def test_an_amended_commit_of_the_run_replaces_the_one_that_was_brought_over(run: Run) -> None:
    run.commit("two")
    run.bring(ended=False)
    run.inside("commit", "-q", "--amend", "-m", "better")

    done = run.bring()

    assert moves(done) == {"refs/heads/main": Move.REPLACE}
    assert run.outside("log", "--format=%s") == "better\none"
    assert not run.outside("status", "--porcelain")


def test_an_amended_commit_of_the_host_is_not_replaced(run: Run) -> None:
    base = run.outside("rev-parse", "HEAD")
    run.inside("commit", "-q", "--amend", "-m", "rewritten")

    done = run.bring()

    assert moves(done) == {"refs/heads/main": Move.REWRITTEN}
    assert run.host_has("refs/heads/main") == base
    assert run.host_has("refs/claude-proxy/r/main")


def test_a_deleted_branch_of_the_host_stays_and_one_of_the_run_goes(run: Run) -> None:
    run.outside("branch", "old")
    shutil.rmtree(run.private)
    run = Run(run.tree, run.private)
    run.inside("branch", "temporary")
    run.bring(ended=False)
    assert run.host_has("refs/heads/temporary")
    run.inside("branch", "-q", "-D", "temporary", "old")

    run.commit("two")
    run.bring()

    assert run.host_has("refs/heads/old")
    assert not run.host_has("refs/heads/temporary")


def test_packed_refs_tags_notes_stashes_and_a_detached_head_come_over(run: Run) -> None:
    new = run.commit("two")
    run.inside("tag", "-a", "v1", "-m", "v1")
    run.inside("notes", "add", "-m", "a note")
    for text in ("first", "second"):
        (run.tree / "two").write_text(text)
        run.inside("stash", "-q")
    run.inside("gc", "-q")
    run.inside("checkout", "-q", "--detach")
    last = run.commit("three")

    done = run.bring()

    assert done.complete, done
    assert run.host_has("refs/heads/main") == new
    assert run.outside("cat-file", "-t", "v1") == "tag"
    assert run.outside("rev-parse", "HEAD") == last
    assert run.host_has("refs/claude-proxy/r@HEAD") == last
    assert run.host_has("refs/claude-proxy/r@notes/commits")
    assert run.outside("show", "refs/claude-proxy/r@stash:two") == "second"
    assert run.outside("show", "refs/claude-proxy/r@stash@1:two") == "first"


def test_a_first_commit_comes_over(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    git("init", "-q", at=tree)
    run = Run(tree, tmp_path / "private")
    new = run.commit("one")

    run.bring()

    assert run.outside("rev-parse", "HEAD") == new
    assert not run.outside("status", "--porcelain")


def test_a_rebase_that_is_not_finished_leaves_the_hosts_head(run: Run) -> None:
    run.inside("checkout", "-q", "--detach")
    new = run.commit("two")
    (run.private / "rebase-merge").mkdir()

    during, after = run.bring(ended=False), run.bring()

    assert (during.head, during.head_problem) == ("", "")
    assert "rebase-merge" in after.head_problem
    assert run.outside("symbolic-ref", "HEAD") == "refs/heads/main"
    assert run.host_has("refs/claude-proxy/r@HEAD") == new


# What a hostile run writes into its Git directory


def test_no_setting_hook_monitor_or_filter_of_the_run_is_obeyed(run: Run, tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    script = tmp_path / "trap"
    script.write_text(f"#!/bin/sh\ntouch {trap}\ncat\n")
    script.chmod(0o755)
    new = run.commit("two")
    (run.tree / ".gitattributes").write_text("* filter=x diff=x merge=x\n")
    settings = "\n".join(
        (
            f"[core]\nfsmonitor={script}\nhooksPath={tmp_path}\nsshCommand={script}",
            f"alternateRefsCommand={script}\npager={script}",
            f'[filter "x"]\nclean={script}\nsmudge={script}\nprocess={script}\nrequired',
            f"[alias]\nfetch=!{script}\nrev-parse=!{script}\n[uploadpack]\npackObjectsHook={script}",
            f'[remote "origin"]\nurl=ext::{script}\nuploadpack={script}\n[include]\npath={script}',
        )
    )
    (run.private / "config").write_text(settings)
    for hook in ("reference-transaction", "post-checkout", "post-index-change", "post-merge"):
        path = run.private / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        shutil.copy(script, path)

    done = run.bring()

    assert done.complete
    assert run.host_has("refs/heads/main") == new
    assert not trap.exists()


def test_a_repository_that_an_earlier_run_has_made_runs_nothing_either(
    run: Run, tmp_path: Path
) -> None:
    # A nested one: its settings are those of an agent, and its host's side is where git works.
    trap = tmp_path / "trapped"
    script = tmp_path / "trap"
    script.write_text(f"#!/bin/sh\ntouch {trap}\n")
    script.chmod(0o755)
    other = repository(tmp_path / "alternate")
    info = run.host / "objects/info"
    (info / "alternates").write_text(f"{other}/.git/objects\n")
    with (run.host / "config").open("a") as config:
        config.write(
            f"[core]\nalternateRefsCommand={script}\nsshCommand={script}\ngitProxy={script}\n"
            f"fsmonitor={script}\nhooksPath={tmp_path}\npager={script}\nrepositoryformatversion=1\n"
            f'[extensions]\npartialClone=far\n[remote "far"]\npromisor=true\n'
            f"url=ext::{script}\n"
            '[protocol "ext"]\nallow=always\n[protocol "file"]\nallow=always\n'
        )
    new = run.commit("two")

    run.bring()

    assert run.host_has("refs/heads/main") == new
    assert not trap.exists()


def test_no_setting_of_a_repository_that_an_earlier_run_has_made_is_obeyed(
    run: Run, tmp_path: Path
) -> None:
    trap = tmp_path / "trapped"
    script = tmp_path / "trap"
    script.write_text(f"#!/bin/sh\ntouch {trap}\nexit 1\n")
    script.chmod(0o755)
    other = repository(tmp_path / "other")
    (run.host / "objects/info/alternates").write_text(f"{other}/.git/objects\n")
    for setting in ("core.alternateRefsCommand", "core.fsmonitor", "core.sshCommand"):
        run.outside("config", setting, str(script))
    run.outside("config", "core.hooksPath", str(tmp_path))
    shutil.copy(script, tmp_path / "reference-transaction")
    new = run.commit("two")

    assert run.bring().complete
    assert run.host_has("refs/claude-proxy/r/main") == new
    run.outside("config", "remote.x.uploadpack", str(script))
    run.commit("three")
    refused = run.bring()

    assert "remote.x.uploadpack" in refused.problems[0]
    assert not trap.exists()


@pytest.mark.parametrize("name", ["objects", "refs", "refs/heads", "packed-refs", "HEAD"])
def test_a_link_is_not_followed(run: Run, tmp_path: Path, name: str) -> None:
    other = Run(repository(tmp_path / "secret"), tmp_path / "other")
    secret = other.commit("two")
    other.inside("pack-refs", "--all")
    run.commit("three")
    path = run.private / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(other.private / name)

    run.bring()

    assert secret not in run.outside("for-each-ref")
    assert not (run.host / "objects" / secret[:2] / secret[2:]).exists()


def test_a_linked_object_or_pack_is_not_read(run: Run, tmp_path: Path) -> None:
    new = run.commit("two")
    path = run.private / "objects" / new[:2] / new[2:]
    moved = tmp_path / "object"
    shutil.move(path, moved)
    path.symlink_to(moved)

    done = run.bring()

    assert not done.complete
    assert not run.host_has("refs/claude-proxy")


def test_alternates_of_the_run_are_not_read(run: Run, tmp_path: Path) -> None:
    other = repository(tmp_path / "secret")
    secret = commit(other, "secret")
    (run.private / "objects/info/alternates").write_text(f"{other}/.git/objects\n")
    (run.private / "refs/heads/main").write_text(f"{secret}\n")

    done = run.bring()

    assert not done.complete
    assert done.refs[0].problem
    assert secret not in run.outside("for-each-ref")


def test_a_damaged_object_holds_nothing_else_back(run: Run) -> None:
    run.inside("branch", "bad")
    bad = run.commit("bad")
    run.inside("update-ref", "refs/heads/bad", bad)
    run.inside("reset", "-q", "--hard", "HEAD~1")
    good = run.commit("good")
    path = run.private / "objects" / bad[:2] / bad[2:]
    path.chmod(0o644)
    path.write_bytes(b"damaged")

    done = run.bring()

    assert not done.complete
    assert run.host_has("refs/heads/main") == good
    assert not run.host_has("refs/heads/bad")
    assert [ref.name for ref in done.refs if ref.failed] == ["refs/heads/bad"]


def test_an_object_that_is_missing_below_a_commit_is_noticed(run: Run) -> None:
    run.commit("two")
    blob = run.inside("rev-parse", "HEAD:two")
    (run.private / "objects" / blob[:2] / blob[2:]).unlink()

    done = run.bring()

    assert not done.complete
    assert not run.host_has("refs/claude-proxy")


def test_a_tree_with_a_git_directory_in_it_is_refused(run: Run) -> None:
    blob = run.inside("rev-parse", "HEAD:one")
    entry = f"100644 blob {blob}\t.git\n"
    tree = git("mktree", at=run.tree, directory=run.private, text=entry)
    new = run.inside("commit-tree", tree, "-p", "HEAD", "-m", "x")
    run.inside("update-ref", "refs/heads/main", new)

    done = run.bring()

    assert not done.complete
    assert not run.host_has("refs/claude-proxy")


@pytest.mark.parametrize(
    "name", ["x..y", ".x", "x.lock", "x~1", "@{u}", "-x", "origin/main", "HEAD", "FETCH_HEAD"]
)
def test_a_bad_or_misleading_name_creates_nothing(run: Run, name: str) -> None:
    base = run.outside("rev-parse", "HEAD")
    run.outside("update-ref", "refs/remotes/origin/main", base)
    new = run.commit("two")
    for kind in ("heads", "tags"):
        path = run.private / "refs" / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{new}\n")

    run.bring()

    listed = run.outside("for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags")
    assert listed == "refs/heads/main"
    assert run.host_has("refs/heads/main") == new


def test_a_packed_name_cannot_leave_its_place(run: Run) -> None:
    new = run.commit("two")
    names = ("refs/heads/../../../x", "refs/heads/../x", "../x", "refs/heads//x", "/x", "HEAD")
    (run.private / "packed-refs").write_text("".join(f"{new} {name}\n" for name in names))

    run.bring()

    listed = run.outside("for-each-ref", "--format=%(refname)").split("\n")
    assert listed == ["refs/claude-proxy/r/main", "refs/heads/main"]


def test_a_branch_whose_place_is_taken_is_kept_apart(run: Run) -> None:
    run.inside("branch", "a")
    new = run.commit("two")
    run.inside("update-ref", "refs/heads/a", new)
    run.bring(ended=False)
    run.inside("branch", "-q", "-D", "a")
    run.inside("branch", "a/b")
    last = run.commit("three")
    run.inside("update-ref", "refs/heads/a/b", last)

    done = run.bring()

    assert done.complete, done
    assert last in run.outside("for-each-ref")
    assert new in run.outside("for-each-ref")


@pytest.mark.parametrize("size", [3000])
def test_many_refs_come_over(run: Run, size: int) -> None:
    new = run.commit("two")
    lines = "".join(f"{new} refs/heads/b{number}\n" for number in range(size))
    (run.private / "packed-refs").write_text(lines)

    run.bring()

    names = run.outside("for-each-ref", "--format=%(refname)", "refs/heads").split("\n")
    assert len(names) == size + 1


def test_refs_that_are_replaced_during_reading_do_no_harm(run: Run, tmp_path: Path) -> None:
    """Links and directories change places while refs are read again and again."""
    secret = tmp_path / "secret"
    (secret / "heads").mkdir(parents=True)
    (secret / "heads/stolen").write_text(f"{'a' * 40}\n")
    script = f"""
while :; do mv -T refs kept 2>/dev/null; ln -sfn {secret} refs; rm -f refs; mv -T kept refs; done
"""
    with subprocess.Popen(
        ["sh", "-c", script], cwd=run.private, stderr=subprocess.DEVNULL
    ) as flips:
        try:
            found = [known_of(run.private) for _ in range(300)]
        finally:
            flips.kill()

    assert not any("refs/heads/stolen" in known.start for known in found)


def test_a_directory_that_is_none_is_a_problem_and_no_error(run: Run, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(run.private)

    for private in (tmp_path / "missing", link):
        assert bring_over(private, run.host, "r").problems
    run.commit("two")
    assert bring_over(run.private, tmp_path, "r").problems


def test_the_branch_that_a_clone_moved_is_not_moved_where_it_is_checked_out(run: Run) -> None:
    base = run.outside("rev-parse", "HEAD")
    new = run.commit("two")

    done = bring_over(run.private, run.host, "r", known=run.known)

    assert done.refs[0].problem == "it is checked out"
    assert run.host_has("refs/heads/main") == base
    assert run.host_has("refs/claude-proxy/r/main") == new
