"""What a shell completes beside options: policies, profiles, and the words of COMMAND."""

import socket
from pathlib import Path

import click
import pytest

from claude_proxy.cli import completers, main, paths
from claude_proxy.sandbox.git import clones
from claude_proxy.sandbox.git.clones import CloneRecord

# Line as typed, and what is offered for its last word.
OFFERED = [
    ("claude-proxy run --policy ", {"lockdown", "claude"}),
    ("claude-proxy --policy lo", {"lockdown"}),
    ("claude-proxy policies cl", {"claude"}),
    ("claude-proxy presets git", {"github", "gitlab"}),
    ("claude-proxy run --profile c", {"claude", "codex", "crafted"}),
    ("claude-proxy run --publish a", {"auto"}),
    ("claude-proxy run -- one-of-our", {"one-of-our-tools"}),
    ("claude-proxy run one-of-our", {"one-of-our-tools"}),
]


def completed(line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("_CLAUDE_PROXY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    assert main.main([]) == 0
    return capfd.readouterr().out


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a profile, and one program on the path."""
    own = tmp_path / ".config" / "claude-proxy" / "profiles"
    own.mkdir(parents=True)
    (own / "crafted.yaml").write_text("extends: shell\n", encoding="utf-8")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "one-of-our-tools").touch(mode=0o755)
    (programs / "one-of-our-notes").touch(mode=0o644)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("PATH", str(programs))
    return tmp_path


@pytest.mark.parametrize(("line", "offered"), OFFERED, ids=[line for line, _ in OFFERED])
def test_names_are_completed(
    line: str,
    offered: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    said = completed(line, monkeypatch, capfd).split()

    assert {f"plain,{name}" for name in offered} <= set(said)
    assert "plain,one-of-our-notes" not in said


@pytest.mark.parametrize(
    "line",
    ["claude-proxy run -- git --no", "claude-proxy run -- ./no", "claude-proxy run -- git no"],
)
def test_what_only_command_knows_is_left_to_the_shell(
    line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert completed(line, monkeypatch, capfd).strip() == f"file,{line.rpartition(' ')[2]}"


def test_a_broken_policy_is_completed_without_a_word_about_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    policies = home / ".config" / "claude-proxy" / "policies"
    policies.mkdir()
    (policies / "broken.yaml").write_text("what?", encoding="utf-8")

    said = completed("claude-proxy run --policy bro", monkeypatch, capfd)

    assert said.strip() == "plain,broken"


def test_services_of_this_machine_are_offered_as_forwards(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:
        port = service.getsockname()[1]
        said = completed(f"claude-proxy run --forward {port}", monkeypatch, capfd)

    assert f"{port}=host:{port}" in said


def test_options_of_the_named_command_are_completed() -> None:
    command = click.Command("show", params=[click.Argument(["words"])])
    context = click.Context(command)

    def offered(subcommand: str | None, begun: str) -> set[str]:
        context.params["subcommand"] = subcommand
        found = completers.options_of_subcommand(context, command.params[0], begun)
        return {item.value for item in found}

    assert "--port" in offered(None, "--po")
    assert offered("run", "--no-net") == {"--no-network"}
    assert "--uds" in offered("gateway", "--u")


@pytest.mark.parametrize("command", ["changes", "take", "clones --remove"])
def test_the_clones_are_offered(
    home: Path, command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with clones.new_directory(paths.default_statedir(), "fix-login") as path:
        clones.write_record(path, CloneRecord(str(home), "main", None, 1.0))

    assert "fix-login" in completed(f"claude-proxy {command} fix", monkeypatch, capfd)
