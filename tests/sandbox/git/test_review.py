"""What is shown of a clone is what its objects contain, wherever the sandbox put others."""

import shutil
import zlib
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.git import review
from claude_proxy.sandbox.git.clones import remove_tree
from tests.sandbox.git.cloned import cloned, environ
from tests.sandbox.git.repositories import git


def test_new_commits_are_copied_and_nothing_else(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    at = made.commit("two")

    seen = review.read(made.clone, environ())

    assert (seen.head, [ref.object for ref in seen.changed]) == (at, [at])
    copied = [path.name for path in (made.clone.path / "incoming/objects").rglob("*.pack")]
    assert not set(copied) & {f"{name}.pack" for name in made.clone.record.packs}


def test_a_false_object_is_not_shown_under_a_name_of_another(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    made.write("one", "evil\n")
    made.inside("commit", "-qam", "evil")
    at = made.inside("rev-parse", "HEAD:one")
    # Harmless text under the name of the evil file: whoever reads without a check shows it.
    loose = made.clone.git / "objects" / at[:2] / at[2:]
    loose.chmod(0o644)
    loose.write_bytes(zlib.compress(b"blob 5\0good\n"))

    seen = review.read(made.clone, environ())

    assert seen.head == ""
    assert [ref.failed for ref in seen.changed] == [True]


def test_an_object_that_was_damaged_before_is_read_again(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    at = made.inside("rev-parse", "HEAD:two")
    loose = made.clone.git / "objects" / at[:2] / at[2:]
    whole = loose.read_bytes()
    loose.chmod(0o644)
    loose.write_bytes(b"damaged")
    assert review.read(made.clone, environ()).head == ""

    loose.write_bytes(whole)

    assert review.read(made.clone, environ()).head


def test_attributes_settings_and_hooks_of_the_clone_are_not_in_it(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    made.inside("config", "core.fsmonitor", "/bin/false")
    made.commit("two")
    (made.clone.git / "info/attributes").write_text("* -diff\n")

    place = review.read(made.clone, environ()).git.directory

    assert "fsmonitor" not in (place / "config").read_text()
    assert not (place / "info/attributes").exists()
    assert not (place / "hooks").exists()


def test_a_project_that_is_gone_is_not_needed(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    at = made.commit("two")
    remove_tree(made.project)

    assert review.read(made.clone, environ()).head == at


def test_commits_that_the_project_dropped_are_read_from_the_clone(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    at = made.commit("two")
    shutil.rmtree(made.project / ".git/objects")
    git("init", "-q", at=made.project)

    assert review.read(made.clone, environ()).head == at


def test_a_git_directory_that_is_none_is_an_error(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    remove_tree(made.clone.git)
    made.clone.git.symlink_to(made.project / ".git")

    with pytest.raises(ClaudeProxyError, match="the clone cannot be read"):
        review.read(made.clone, environ())


def test_no_branch_of_the_clone_becomes_one_of_the_review(tmp_path: Path) -> None:
    made = cloned(tmp_path)
    made.commit("two")
    made.inside("branch", "nothing")

    seen = review.read(made.clone, environ())

    assert seen.git.run("for-each-ref", "refs/heads").out == b""
