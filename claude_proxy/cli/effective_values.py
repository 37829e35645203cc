"""Values in force: each option's value, and whether an option, variable or file set it.

Secrets stay outside: a password, a token or a key is never part of a value that is shown.
"""

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from claude_proxy.cli import gateway_settings, options
from claude_proxy.cli.gateway_settings import Variables
from claude_proxy.config.config_yaml import ConfigFile
from claude_proxy.config.option_kinds import Flag, ParsedText
from claude_proxy.config.option_table import AUTH_VARIABLE, OptionField, Subcommand
from claude_proxy.config.settings import UpstreamProxy
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.proxy.gateway.banner import KEY_VARIABLE

_UNITS = ((1024**3, "G"), (1024**2, "M"), (1024, "K"))
DEFAULT_ORIGIN = "default"


@dataclass(frozen=True, slots=True)
class EffectiveValue:
    """One setting as it is shown."""

    key: str
    value: str
    origin: str  # an option, a variable, PATH:LINE, or "default"


@dataclass(frozen=True, slots=True)
class Effective:
    """All settings of a command, and the files that they were read from."""

    config: ConfigFile
    values: tuple[EffectiveValue, ...]


def effective_of(command: Subcommand, words: Sequence[str]) -> Effective:
    """Return the values in force for a command with these arguments."""
    target: click.Command = import_module(f"claude_proxy.cli.{command}").command
    context = target.make_context(str(command), list(words))
    config = options.config_of(context)
    values = options.in_force(context, context.params)
    dotenv = command is Subcommand.GATEWAY
    file = gateway_settings.read_dotenv(Path.cwd()) if dotenv else None
    variables = Variables(os.environ, file)
    rows = [
        _value_of(context, param, values[str(param.name)], config, variables)
        for param in target.params
        if isinstance(param, options.TableOption) and param.field.in_file
    ]
    confdir = context.params["confdir"]
    source = context.get_parameter_source("confdir")
    origin = _origin_of(source, "--confdir", "CLAUDE_PROXY_CONFDIR")
    rows.insert(0, EffectiveValue("confdir", str(confdir or config.path.parent), origin))
    return Effective(config, (*rows, *_secret_variables(command, variables)))


def _value_of(
    context: click.Context,
    param: options.TableOption,
    value: Any,
    config: ConfigFile,
    variables: Variables,
) -> EffectiveValue:
    field = param.field
    source = context.get_parameter_source(str(param.name))
    if value != context.params[str(param.name)]:  # an option that excludes it is given
        source = ParameterSource.DEFAULT
    if source in {ParameterSource.DEFAULT, None} and field.section == Subcommand.GATEWAY:
        return _gateway_value(field, value, config, variables)
    if source is ParameterSource.DEFAULT_MAP:
        return EffectiveValue(field.key, text_of(field, value), _line(config, field.key))
    origin = _origin_of(source, param.opts[-1], str(param.envvar))
    return EffectiveValue(field.key, text_of(field, value), origin)


def _gateway_value(
    field: OptionField, value: Any, config: ConfigFile, variables: Variables
) -> EffectiveValue:
    """Return what the gateway's older variables say, else config.yaml, else the default."""
    if field.older_variable is not None:
        found = variables.find(field.older_variable)
        if found is not None:
            return EffectiveValue(field.key, found.text, found.where)
    if field.key in config.entries:
        text = text_of(field, config.value(field.key))
        return EffectiveValue(field.key, text, _line(config, field.key))
    return EffectiveValue(field.key, text_of(field, value), DEFAULT_ORIGIN)


def _origin_of(source: ParameterSource | None, option: str, variable: str) -> str:
    if source is ParameterSource.COMMANDLINE:
        return option
    return variable if source is ParameterSource.ENVIRONMENT else DEFAULT_ORIGIN


def _line(config: ConfigFile, key: str) -> str:
    """Return PATH:LINE of a key."""
    return config.where(key).partition(", ")[0].rpartition(":")[0]


def _secret_variables(command: Subcommand, variables: Variables) -> list[EffectiveValue]:
    """Return which variables with secrets are set; never what they hold."""
    names = {
        Subcommand.SERVE: (AUTH_VARIABLE,),
        Subcommand.GATEWAY: (KEY_VARIABLE, gateway_settings.ANTHROPIC_VARIABLE),
        Subcommand.RUN: (),
    }[command]
    found = [(name, variables.find(name)) for name in names]
    return [EffectiveValue(name, "set", one.where) for name, one in found if one is not None]


def text_of(field: OptionField, value: Any) -> str:
    """Return a value as an option or config.yaml would write it; a password is left out."""
    if value is None or value == ():
        return field.default_in_words or "-"
    if isinstance(value, tuple) and (field.repeatable or _is_list(field)):
        return ", ".join(_single(field, one) for one in value)
    return _single(field, value)


def _is_list(field: OptionField) -> bool:
    return isinstance(field.kind, ParsedText) and field.kind.is_list


def _single(field: OptionField, value: Any) -> str:
    if isinstance(field.kind, Flag):
        return "true" if value else "false"
    if isinstance(value, UpstreamProxy):
        return f"http://{value.authority}" + (" (with a password)" if value.credentials else "")
    if isinstance(field.kind, ParsedText):
        return _parsed(field.kind, value)
    if field.name == "key_command":
        return f"{value.split()[0]} ..." if len(value.split()) > 1 else value
    return str(value)


def _parsed(kind: ParsedText, value: Any) -> str:
    if kind.name == "size":
        factor, unit = next((one for one in _UNITS if value % one[0] == 0), (1, ""))
        return f"{value // factor}{unit}"
    if kind.name == "duration":
        return f"{value:g}s"
    if kind.name == "model":
        asked, given = value
        return given if asked == "*" else f"{asked}={given}"
    if isinstance(value, tuple):
        return ":".join(map(str, value))
    return str(value)
