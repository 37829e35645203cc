"""Profiles and project files are found, checked for their owner, and read."""

import os
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox import profiles
from claude_proxy.sandbox.plan.agent_home import home_of
from claude_proxy.sandbox.plan.model import CredentialIsolation
from claude_proxy.sandbox.profiles import load, of_command, read_restrictions


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A directory for profiles of the user's."""
    directory = tmp_path / "profiles"
    directory.mkdir()
    return directory


def refused(name: str, own: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(name, own)
    assert caught.value.where
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("name", profiles.SHIPPED)
def test_every_shipped_profile_can_be_read(name: str, own: Path) -> None:
    profile = load(name, own)

    assert profile.name == name
    assert profile.description
    assert ".gitconfig" in profile.home_read


@pytest.mark.parametrize("name", profiles.SHIPPED)
def test_every_command_of_a_shipped_profile_finds_it_by_its_text(name: str, own: Path) -> None:
    assert {of_command(command, own) for command in load(name, own).commands} <= {name}


def test_a_users_profile_of_a_shipped_name_is_found_by_its_own_commands(own: Path) -> None:
    (own / "gemini.yaml").write_text("extends: gemini\ncommands: [no-such-tool]\n")

    assert of_command("/usr/bin/no-such-tool", own) == "gemini"
    assert of_command("gemini", own) == profiles.DEFAULT


@pytest.mark.parametrize("name", profiles.SHIPPED)
def test_no_shipped_profile_opens_the_users_own_files(name: str, own: Path) -> None:
    assert load(name, own).home_write == ()


@pytest.mark.parametrize("name", profiles.SHIPPED)
def test_a_shipped_profile_copies_only_into_what_it_keeps(name: str, own: Path) -> None:
    profile = load(name, own)
    found = home_of(
        profile,
        CredentialIsolation(),
        home=Path("/home/ann"),
        environ={},
        statedir=Path("/state"),
        project=Path("/p"),
    )

    assert (found is None) == (not profile.home_state)


def test_claude_keeps_its_own_files(own: Path) -> None:
    profile = load("claude", own)

    assert profile.home_state == (".claude/", ".claude.json")
    assert ".claude/settings.json" in profile.home_protect
    assert profile.callback_ports == (54545,)
    assert profile.unattended == ("--dangerously-skip-permissions",)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("claude", "claude"),
        ("/usr/local/bin/claude", "claude"),
        ("gemini", "gemini"),
        ("codex", "codex"),
        ("bash", "shell"),
        ("claude2", "shell"),
    ],
)
def test_a_command_has_the_profile_of_its_name(command: str, name: str, own: Path) -> None:
    assert of_command(command, own) == name


def test_a_users_profile_is_chosen_for_its_commands(own: Path) -> None:
    (own / "aider.yaml").write_text("description: x\ncommands: [aider, claude]\n")

    assert of_command("aider", own) == "aider"
    assert of_command("claude", own) == "aider"


def test_a_profile_adds_to_the_one_it_extends(own: Path) -> None:
    (own / "more.yaml").write_text(
        "extends: claude\nhome_read: [~/.config/tool]\nset_env: {IS_SANDBOX: '2', B: 'no'}\n"
    )

    found = load("more", own)

    assert found.name == "more"
    assert found.home_state == load("claude", own).home_state
    assert found.home_read == (*load("claude", own).home_read, ".config/tool")
    assert dict(found.set_env)["IS_SANDBOX"] == "2"
    assert dict(found.set_env)["B"] == "no"
    assert found.commands == frozenset()


def test_a_profile_may_extend_the_shipped_one_of_its_own_name(own: Path) -> None:
    (own / "claude.yaml").write_text("extends: claude\ncommands: [claude]\npass_env: [GH_TOKEN]\n")

    found = load("claude", own)

    assert "GH_TOKEN" in found.pass_env
    assert found.home_state == (".claude/", ".claude.json")
    assert of_command("claude", own) == "claude"


def test_profiles_that_extend_each_other_in_a_cycle_are_refused(own: Path) -> None:
    (own / "a.yaml").write_text("extends: b\n")
    (own / "b.yaml").write_text("extends: a\n")

    assert "a -> b -> a" in refused("a", own).what


def test_profiles_that_extend_too_deeply_are_refused(own: Path) -> None:
    for number in range(12):
        (own / f"p{number}.yaml").write_text(f"extends: p{number + 1}\n")

    assert "nested more than" in refused("p0", own).what


@pytest.mark.parametrize("name", ["none", "../claude", "", "A", "a/b", "x" * 80])
def test_an_unknown_profile_is_an_error(name: str, own: Path) -> None:
    refused(name, own)


def test_extending_an_unknown_profile_is_reported_with_its_place(own: Path) -> None:
    (own / "a.yaml").write_text("extends: none\n")

    assert "a.yaml" in (refused("a", own).where or "")


def test_a_mistake_in_a_profile_is_reported_with_its_file(own: Path) -> None:
    (own / "own.yaml").write_text("home_wirte: []")

    error = refused("own", own)

    assert "unknown key" in error.what
    assert f"{own}/own.yaml:1:" in (error.where or "")


def test_a_profile_that_others_may_write_is_refused(own: Path) -> None:
    path = own / "own.yaml"
    path.write_text("description: x\n")
    path.chmod(0o666)

    assert "changed by other users" in refused("own", own).what


def test_a_profile_in_a_directory_that_others_may_write_is_refused(own: Path) -> None:
    (own / "own.yaml").write_text("description: x\n")
    own.chmod(0o777)

    assert "what a run may see" in refused("own", own).what


def test_a_profile_that_cannot_be_read_is_an_error(own: Path) -> None:
    (own / "own.yaml").mkdir()

    assert "cannot be read" in refused("own", own).what


def test_a_profile_that_is_huge_is_an_error(own: Path) -> None:
    (own / "own.yaml").write_text("#" * 300_000)

    assert "larger" in refused("own", own).what


# The project's file


def test_the_nearest_file_above_counts(tmp_path: Path) -> None:
    below = tmp_path / "a/b/c"
    below.mkdir(parents=True)
    (tmp_path / ".claude-proxy.yaml").touch()
    (tmp_path / "a/.claude-proxy.yaml").touch()

    assert profiles.find_project_file(below) == tmp_path / "a/.claude-proxy.yaml"


def test_a_link_in_the_place_of_the_projects_file_is_found_and_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("password: hunter2\n")
    (tmp_path / ".claude-proxy.yaml").symlink_to(secret)

    found = profiles.find_project_file(tmp_path)
    assert found is not None
    with pytest.raises(ConfigError) as caught:
        read_restrictions(found)

    assert "not a plain file" in caught.value.what
    assert "hunter2" not in "\n".join(caught.value.lines())


def test_a_dangling_link_in_the_place_of_the_projects_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".claude-proxy.yaml").symlink_to(tmp_path / "none")

    found = profiles.find_project_file(tmp_path)

    assert found is not None
    with pytest.raises(ConfigError):
        read_restrictions(found)


def test_a_pipe_in_the_place_of_the_projects_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / ".claude-proxy.yaml"
    os.mkfifo(path)

    with pytest.raises(ConfigError, match="not a plain file"):
        read_restrictions(path)


def test_a_directory_in_the_place_of_the_projects_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ".claude-proxy.yaml"
    path.mkdir()

    with pytest.raises(ConfigError, match="not a plain file"):
        read_restrictions(path)
