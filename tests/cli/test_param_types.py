"""A value that cannot be understood names its option and variable, and says how to write it."""

from pathlib import Path

import click
import pytest

from claude_proxy.cli.param_types import ParsedType, click_type, spelling
from claude_proxy.config.option_kinds import (
    Choice,
    Flag,
    FreeText,
    ParsedText,
    PathText,
    ValueKind,
    WholeNumber,
)
from claude_proxy.errors import ConfigError


def double(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f'"{text}" is no number')
    return 2 * int(text)


KIND = ParsedText("number", double, "write digits", "1")
OPTION = click.Option(["--twice"], envvar="TWICE", type=ParsedType(KIND))


def test_a_text_is_parsed_and_a_value_is_kept() -> None:
    convert = ParsedType(KIND).convert

    assert convert("3", None, None) == 6
    assert convert(3, None, None) == 3


def test_an_error_names_both_spellings_and_the_fix() -> None:
    with pytest.raises(ConfigError) as caught:
        ParsedType(KIND).convert("x", OPTION, None)

    assert caught.value.what == '"x" is no number'
    assert caught.value.where == "--twice or TWICE"
    assert caught.value.fix == "write digits"


def test_an_option_without_a_variable_has_one_spelling() -> None:
    assert spelling(click.Option(["--once"])) == "--once"
    assert spelling(None) is None


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Flag(), "true", True),
        (WholeNumber(1, 9), "9", 9),
        (Choice(("a", "b")), "b", "b"),
        (FreeText(), "x", "x"),
        (PathText(), "x/y", Path("x/y")),
        (KIND, "2", 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_has_a_type(kind: ValueKind, text: str, value: object) -> None:
    assert click_type(kind).convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (WholeNumber(1, 9), "10"),
        (Choice(("a",)), "b"),
        (PathText(must_exist=True), "/nonexistent/file"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_out_of_bounds_is_refused(kind: ValueKind, text: str) -> None:
    with pytest.raises(click.BadParameter):
        click_type(kind).convert(text, None, None)
