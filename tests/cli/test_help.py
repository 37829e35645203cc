"""Laws of `help`: it shows what --help shows."""

from collections.abc import Iterator

import click
import pytest
from click.shell_completion import ShellComplete

from claude_proxy.cli.main import cli, main


@pytest.mark.parametrize(
    ("words", "same"),
    [([], ["--help"]), (["run"], ["run", "--help"]), (["ca", "rotate"], ["ca", "rotate", "-h"])],
)
def test_help_is_what_the_option_shows(
    words: list[str], same: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["help", *words]) == 0
    shown = capsys.readouterr().out

    assert main(same) == 0
    assert shown == capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chek"], "did you mean check?"),
        (["ca", "rotat"], "did you mean rotate?"),
        (["run", "claude"], "has no commands of its own"),
    ],
)
def test_a_command_that_is_none_is_an_error(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["help", *words]) == 2
    assert said in capsys.readouterr().err


def completed(words: list[str], begun: str) -> Iterator[str]:
    complete = ShellComplete(cli, {}, "claude-proxy", "_CLAUDE_PROXY_COMPLETE")
    return (item.value for item in complete.get_completions(words, begun))


def test_commands_are_completed_level_by_level() -> None:
    assert isinstance(cli, click.Group)
    assert list(completed(["help"], "rela")) == ["relay"]
    assert list(completed(["help", "ca"], "ro")) == ["rotate"]
    assert list(completed(["help", "run"], "")) == []
