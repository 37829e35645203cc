"""The options of grants are read exactly, and refused with a fix."""

import click
import pytest
from click.testing import CliRunner

from claude_proxy.cli import grant_options
from claude_proxy.cli.grant_options import Duration, parse_duration
from claude_proxy.errors import ConfigError

SECOND_NS = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("2d", 172_800), ("1W", 604_800)],
)
def test_a_duration_is_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds * SECOND_NS


@pytest.mark.parametrize("text", ["", "10", "h", "-1h", "1.5h", "1 h", "1h x", "0s", "31d", "1y"])
def test_what_is_no_duration_for_a_grant_is_refused_with_a_fix(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_duration(text)
    assert (error.value.where or "").startswith("--for")
    assert error.value.fix


def test_a_value_that_was_read_stays_as_it_is() -> None:
    assert Duration().convert(5, None, None) == 5


@click.command()
@grant_options.reason_option()
def _command(reason: str) -> None:
    click.echo(repr(reason))


def test_a_reason_is_one_short_line() -> None:
    run = CliRunner().invoke

    assert run(_command, []).output == "''\n"
    assert run(_command, ["--reason", " docs "]).output == "'docs'\n"


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("x" * 201, "at most 200 characters, and this one has 201"),
        ("a\x1b[2Jb", "a control character (U+001B)"),
        ("a\u202eb", "the character right-to-left override (U+202E)"),
        ("a\nb", "a line break (U+000A)"),
        ("a\xa0b", "the character no-break space (U+00A0)"),
        ("a\udcffb", "a byte that is not UTF-8 (0xff)"),
    ],
    ids=ascii,
)
def test_it_is_said_what_is_wrong_with_a_reason(reason: str, says: str) -> None:
    error = CliRunner().invoke(_command, ["--reason", reason]).exception

    assert isinstance(error, ConfigError)
    assert says in error.what
    assert ("character 2" in (error.where or "")) is (len(reason) < 200)


def test_runs_are_completed_without_failing() -> None:
    context = click.Context(_command)

    assert grant_options.runs(context, _command.params[0], "no-such-run-is-there") == []
