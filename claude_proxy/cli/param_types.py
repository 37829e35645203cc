"""Click types of the kinds of option values.

A value that cannot be understood is an error that names the option and its variable, as the user
may have set either.
"""

from pathlib import Path
from typing import Any, override

import click

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


class ParsedType(click.ParamType[Any]):
    """A click type whose text a function of `option_values` turns into a value."""

    def __init__(self, kind: ParsedText) -> None:
        self.name = kind.name
        self._kind = kind

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value  # a default, or a value of config.yaml, that is parsed already
        try:
            return self._kind.parse(value)
        except ValueError as error:
            raise ConfigError(str(error), where=spelling(param), fix=self._kind.fix) from error


def spelling(param: click.Parameter | None) -> str | None:
    """Return both names of an option, as the user may have set either."""
    if param is None:
        return None
    option = param.opts[-1]
    return f"{option} or {param.envvar}" if param.envvar else option


def click_type(kind: ValueKind) -> click.ParamType[Any]:
    """Return the click type of a kind."""
    match kind:
        case Flag():
            return click.BOOL
        case WholeNumber(least, most):
            return click.IntRange(least, most)
        case Choice(words):
            return click.Choice(words)
        case FreeText():
            return click.STRING
        case PathText():
            return _path_type(kind)
        case ParsedText():
            return ParsedType(kind)


def _path_type(kind: PathText) -> click.ParamType[Any]:
    return click.Path(
        exists=kind.must_exist,
        file_okay=kind.allows_file,
        dir_okay=kind.allows_directory,
        readable=kind.must_be_listable,
        allow_dash=kind.allows_dash,
        path_type=Path,
    )
