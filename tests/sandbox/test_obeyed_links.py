"""Links in obeyed files are followed through every link on the way."""

from pathlib import Path

from claude_proxy.sandbox.obeyed_links import links_of_git, links_of_settings


def _linked(at: Path, text: str) -> Path:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(text)
    return at


def _git_targets(project: Path) -> set[Path]:
    return {link.target for link in links_of_git([project / ".git"], (), project / "home")}


def test_each_file_that_git_obeys_may_be_a_link(tmp_path: Path) -> None:
    for name in ("config", "info/attributes", "hooks/pre-commit", "worktrees/w/config.worktree"):
        up = "../" * (name.count("/") + 1)
        _linked(tmp_path / ".git" / name, f"{up}own/{name}")

    assert {path.relative_to(tmp_path / "own") for path in _git_targets(tmp_path)} == {
        Path(name)
        for name in (
            *("config", "info/attributes", "hooks/pre-commit", "worktrees/w/config.worktree"),
        )
    }


def test_hooks_behind_a_linked_directory_are_followed(tmp_path: Path) -> None:
    _linked(tmp_path / "hk/pre-push", "../scripts/push")
    _linked(tmp_path / ".git/hooks", "../hk")

    assert _git_targets(tmp_path) == {tmp_path / "hk", tmp_path / "scripts/push"}


def test_every_link_of_a_chain_is_known(tmp_path: Path) -> None:
    first = _linked(tmp_path / ".git/config", "../a")
    second = _linked(tmp_path / "a", "d/b")
    third = _linked(tmp_path / "d", "e")

    (link,) = links_of_git([tmp_path / ".git"], (), tmp_path / "home")

    assert link.through == (first, second, third)
    assert link.target == tmp_path / "e/b"


def test_a_circle_ends(tmp_path: Path) -> None:
    _linked(tmp_path / ".git/config", "../a")
    _linked(tmp_path / "a", "a")

    assert _git_targets(tmp_path) == {tmp_path / "a"}


def test_the_users_own_settings_may_be_links_into_a_project(tmp_path: Path) -> None:
    _linked(tmp_path / "home/.gitconfig", "../dotfiles/gitconfig")

    assert _git_targets(tmp_path) == {tmp_path / "dotfiles/gitconfig"}


def test_links_anywhere_in_a_protected_directory_are_followed(tmp_path: Path) -> None:
    _linked(tmp_path / ".vscode/a/tasks.json", "../../conf/tasks.json")
    (tmp_path / ".vscode/plain").touch()

    found, notes = links_of_settings([tmp_path / ".vscode", tmp_path / "missing"])

    assert [(link.target, link.of_git) for link in found] == [(tmp_path / "conf/tasks.json", False)]
    assert notes == ()
