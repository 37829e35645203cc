"""Options about files: their variables, and config.yaml as their default."""

from pathlib import Path

import click
import pytest

from claude_proxy.cli.shared_options import (
    allowlist_option,
    confdir_as_given,
    confdir_option,
    policy_option,
    statedir_option,
)
from claude_proxy.errors import ConfigError


@click.command()
@allowlist_option("The list.")
@confdir_option("the list")
@policy_option("The policy.")
@statedir_option("The state.")
def command(**given: object) -> None:
    del given


@pytest.fixture
def confdir(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def values(*words: str) -> dict[str, object]:
    return command.make_context("command", list(words)).params


def test_nothing_is_set_unless_somebody_sets_it(confdir: Path) -> None:
    found = values("--confdir", str(confdir))

    assert found == {
        "allowlist_file": None,
        "confdir": confdir,
        "policy_name": None,
        "statedir": None,
    }


def test_config_yaml_is_the_default_and_a_variable_wins(
    confdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (confdir / "config.yaml").write_text("policy: acme\nallowlist: a.yaml\nstatedir: s\n")
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(confdir))
    monkeypatch.setenv("CLAUDE_PROXY_POLICY", "other")

    found = values("--statedir", "t")

    assert found["allowlist_file"] == confdir / "a.yaml"
    assert found["policy_name"] == "other"
    assert found["statedir"] == Path("t")


def test_a_bad_config_yaml_is_an_error(confdir: Path) -> None:
    (confdir / "config.yaml").write_text("nonsense\n")

    with pytest.raises(ConfigError):
        values("--confdir", str(confdir))


def test_commands_that_are_advised_name_the_confdir_only_if_the_command_line_did(
    confdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = command.make_context("command", ["--confdir", str(confdir)])
    assert confdir_as_given(given) == ("--confdir", str(confdir))

    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(confdir))
    assert confdir_as_given(command.make_context("command", [])) == ()
