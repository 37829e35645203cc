"""Git judges what is ignored by the rules that are noted, and by nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.sandbox.git import host_git, ignore_rules
from claude_proxy.sandbox.git.ignore_rules import IgnoreRules
from tests.sandbox.git.repositories import git


@pytest.fixture
def rules(tmp_path: Path) -> Iterator[IgnoreRules]:
    """Rules of a repository without any."""
    git("init", "-q", "--bare", str(tmp_path / "repository"), at=tmp_path)
    (tmp_path / "rules").mkdir()
    words = [host_git.find_git() or "git", *host_git.options_for(tmp_path / "repository")]
    with IgnoreRules(words, tmp_path / "rules", host_git.environment()) as found:
        yield found


def test_the_rules_of_each_directory_count_below_it(rules: IgnoreRules) -> None:
    rules.note(b"", b"build/\n*.log\n!keep.log\n")
    rules.note(b"sub/", b"/only\n")

    asked = {
        b"build": True,
        b"a/build": True,
        b"x.log": False,
        b"keep.log": False,
        b"only": False,
        b"sub/only": False,
        b"plain": False,
    }
    ignored = {path for path, is_directory in asked.items() if rules.ignores(path, is_directory)}

    assert ignored == {b"build", b"a/build", b"x.log", b"sub/only"}


@pytest.mark.parametrize("name", [b":x", b":(top)x", b"-x", b"a\nb", b"\xff", b" x ", b"!x"])
def test_any_name_is_only_a_name(rules: IgnoreRules, name: bytes) -> None:
    rules.note(b"", b"ignored\n")

    assert not rules.ignores(name, False)
    assert rules.ignores(b"ignored", False)


def test_without_an_answer_nothing_is_ignored(tmp_path: Path) -> None:
    with IgnoreRules(["/nonexistent/git"], tmp_path, {}) as none:
        assert not none.ignores(b"x", False)
    with IgnoreRules(["/bin/true"], tmp_path, {}) as silent:
        silent.note(b"", b"x\n")
        assert not silent.ignores(b"x", False)
        assert not silent.ignores(b"y", True)


def test_a_rule_that_takes_git_too_long_ignores_nothing(
    rules: IgnoreRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ignore_rules, "_PATIENCE_S", 0.0)
    with IgnoreRules(["/bin/cat", "-"], Path("/nonexistent"), {}) as slow:
        assert not slow.ignores(b"x", False)
    assert not rules.ignores(b"x", False)
