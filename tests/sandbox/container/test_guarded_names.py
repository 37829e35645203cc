"""What tools of the host obey in a project is found, and no link is taken for it."""

from pathlib import Path

from claude_proxy.sandbox.container.guarded_names import guarded_in, is_labelled


def test_files_that_are_there_are_found(tmp_path: Path) -> None:
    (tmp_path / ".git/hooks").mkdir(parents=True)
    (tmp_path / ".git/config").touch()
    (tmp_path / ".envrc").touch()
    (tmp_path / ".vscode").mkdir()
    (tmp_path / "main.py").touch()

    assert set(guarded_in(tmp_path)) == {".git/hooks", ".git/config", ".envrc", ".vscode"}


def test_a_link_is_not_mounted(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/config").touch()
    (tmp_path / ".git").symlink_to("elsewhere")
    (tmp_path / ".envrc").symlink_to("elsewhere/config")

    assert guarded_in(tmp_path) == ()


def test_a_worktrees_file_has_nothing_below_it(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /elsewhere\n")

    assert guarded_in(tmp_path) == ()


def test_selinux_is_enforced_or_not() -> None:
    assert is_labelled() in {True, False}
