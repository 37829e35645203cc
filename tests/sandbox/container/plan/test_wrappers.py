"""A wrapper starts the program behind it in PATH, with the words by which it does not ask."""

import subprocess
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox import profiles
from claude_proxy.sandbox.container.plan.wrappers import (
    DIRECTORY,
    file_of,
    path_with_wrappers,
    wrappers,
)

AGENTS = [name for name in profiles.SHIPPED if name != "shell"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The wrappers of Claude Code, and behind them a program that prints its words."""
    for folder in ("wrappers", "programs"):
        (tmp_path / folder).mkdir()
    found = wrappers(profiles.load("claude", tmp_path))
    files = {f"wrappers/{name}": text for name, text in found.items()}
    files["programs/claude"] = b'#!/bin/sh\nprintf "%s|" "$@"; echo "$PATH"; exit 3\n'
    for name, text in files.items():
        moved = text.replace(str(DIRECTORY).encode(), str(tmp_path / "wrappers").encode())
        (tmp_path / name).write_bytes(moved)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run(place: Path, name: str, *words: str, behind: str = "programs") -> tuple[int, str]:
    path = f"{place}/wrappers:{place}/{behind}"
    done = subprocess.run(
        [place / "wrappers" / name, *words], env={"PATH": path}, capture_output=True, check=False
    )
    return done.returncode, (done.stdout or done.stderr).decode()


def test_the_agent_gets_the_words_by_which_it_does_not_ask(place: Path) -> None:
    code, said = run(place, "claude", "-p", "a  b; $(id)", "")

    assert code == 3
    assert said.startswith("--dangerously-skip-permissions|-p|a  b; $(id)||")


def test_what_the_agent_starts_finds_the_wrapper_again(place: Path) -> None:
    assert run(place, "claude")[1].endswith(f"{place}/wrappers:{place}/programs\n")


def test_the_original_can_be_called(place: Path) -> None:
    code, said = run(place, "claude-original", "-p", "x")

    assert code == 3
    assert said.startswith("-p|x|")


def test_an_agent_that_is_not_there_is_reported(place: Path) -> None:
    code, said = run(place, "claude", behind="none")

    assert code == 127
    assert "claude: not found" in said


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_has_a_wrapper(name: str, tmp_path: Path) -> None:
    assert name in wrappers(profiles.load(name, tmp_path))


def test_a_profile_that_does_not_say_how_has_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="permission prompts"):
        wrappers(profiles.load("shell", tmp_path))


def test_wrappers_come_first_in_path() -> None:
    assert path_with_wrappers({"PATH": "/opt/bin:/bin"}) == f"{DIRECTORY}:/opt/bin:/bin"
    assert path_with_wrappers({}).endswith(":/usr/bin:/sbin:/bin")
    assert file_of("claude") == "program-claude"
