"""The group of the containers' commands."""

import importlib

import pytest

from claude_proxy.cli import container
from claude_proxy.cli.main import main


def test_the_descriptions_are_those_of_the_commands() -> None:
    said = {
        name: importlib.import_module(container.module_of(name)).command.get_short_help_str(200)
        for name in container.COMMANDS
    }

    assert said == container.COMMANDS


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["container", "--help"]) == 0

    out = capsys.readouterr().out
    assert [name for name in container.COMMANDS if name not in out] == []
