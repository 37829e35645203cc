"""Options of commands, made from the table of options, and the values that config.yaml adds.

Precedence: option, CLAUDE_PROXY_* variable, config.yaml, default. A config.yaml that cannot be
read or understood stops the command.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, override

import click
from click.core import ParameterSource

from claude_proxy.cli import completers, paths
from claude_proxy.cli.param_types import click_type
from claude_proxy.config import config_file
from claude_proxy.config.config_yaml import ConfigFile
from claude_proxy.config.option_kinds import Flag
from claude_proxy.config.option_table import (
    FIELDS,
    OptionField,
    Subcommand,
    Topic,
    default_of,
    fields_of,
)
from claude_proxy.errors import ConfigError

type Decorator = Callable[[Any], Any]

_CONFIG = "claude_proxy.config"  # in `Context.meta`
_BY_KEY = {field.key: field for field in FIELDS}
# What click itself reads from the command line or a variable, as opposed to config.yaml.
_GIVEN = frozenset({ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT})

# Options that exclude each other: what is given by an option or variable makes config.yaml's
# choice between them void.
_RIVALS: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (frozenset({"policy"}), frozenset({"allowlist"})),
    (frozenset({"allowlist"}), frozenset({"policy"})),
    (frozenset({"quiet"}), frozenset({"verbose"})),
    (frozenset({"verbose"}), frozenset({"quiet"})),
    (frozenset({"learn"}), frozenset({"learn_deny"})),
    (frozenset({"learn_deny"}), frozenset({"learn"})),
    (
        frozenset({"serve.listen"}),
        frozenset({"serve.host", "serve.port", "serve.unlink_socket"}),
    ),
    (
        frozenset({"serve.host", "serve.port"}),
        frozenset({"serve.listen", "serve.unlink_socket"}),
    ),
    (frozenset({"gateway.uds"}), frozenset({"gateway.host", "gateway.port"})),
    (frozenset({"gateway.host", "gateway.port"}), frozenset({"gateway.uds"})),
)


_NO_TEXTS: Mapping[str, str] = {}


class TableOption(click.Option):
    """An option that a row of the table of options describes."""

    def __init__(self, *args: Any, field: OptionField, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.field = field


def options_of(
    command: Subcommand, *, but: Iterable[str] = (), texts: Mapping[str, str] = _NO_TEXTS
) -> Decorator:
    """Return a decorator that adds a command's options, except those of the named parameters.

    `texts` are help texts of its own, by parameter.
    """
    left_out = frozenset(but)

    def decorate(function: Any) -> Any:
        for field in reversed([*fields_of(command)]):
            if (name := field.parameter(command)) not in left_out:
                function = option(field.key, command, text=texts.get(name))(function)
        return function

    return decorate


def option(
    key: str,
    command: Subcommand,
    *,
    parameter: str | None = None,
    text: str | None = None,
    hidden: bool = False,
) -> Decorator:
    """Return a decorator that adds the option of a key; `text` is a help text of its own."""
    field = _BY_KEY[key]
    settings: dict[str, Any] = {
        "cls": TableOption,
        "field": field,
        "help": _help_of(field, command) if text is None else text,
        "hidden": hidden,
        "envvar": field.variable,
        "show_envvar": field.variable is not None,
        "metavar": field.metavar,
        "multiple": field.repeatable,
    }
    if isinstance(field.kind, Flag):
        settings |= {"is_flag": True, "default": field.default is True}
    else:
        settings |= {"type": click_type(field.kind)}
        if field.default is not None:
            settings |= {"default": field.default, "show_default": field.default != ()}
    if field.completes is not None:
        settings["shell_complete"] = completers.BY_SUBJECT[field.completes]
    if key == "confdir":
        settings |= {"is_eager": True, "callback": load_config}
    names = _spellings(field, command)
    return click.option(*names, parameter or field.parameter(command), **settings)


def _spellings(field: OptionField, command: Subcommand) -> list[str]:
    """Return the names of an option; what config.yaml can turn on, one more can turn off."""
    name = field.option(command)
    if isinstance(field.kind, Flag) and field.in_file:
        name = f"{name}/{field.kind.off or f'--no-{name.removeprefix("--")}'}"
    short = [spelling for spelling in field.more_spellings if not spelling.startswith("--")]
    long = [spelling for spelling in field.more_spellings if spelling.startswith("--")]
    return [*short, name, *long]


def _help_of(field: OptionField, command: Subcommand) -> str:
    text = field.help_in(command)
    return f"{text}  [default: {field.default_in_words}]" if field.default_in_words else text


class TopicalCommand(click.Command):
    """A command whose help lists the options below headings."""

    @override
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings: dict[str, list[tuple[str, str]]] = {topic.value: [] for topic in Topic}
        headings["Options"] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                topic = param.field.topic.value if isinstance(param, TableOption) else "Options"
                headings[topic].append(record)
        for heading, records in headings.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


# --- config.yaml


def load_config(context: click.Context, _param: click.Parameter, given: Path | None) -> Path | None:
    """Read config.yaml and make its values the defaults of this command's options."""
    if context.resilient_parsing:
        return given
    config = config_file.read(given or paths.default_confdir())
    context.meta[_CONFIG] = config
    context.default_map = {**(context.default_map or {}), **_defaults_in(context, config)}
    return given


def _defaults_in(context: click.Context, config: ConfigFile) -> Mapping[str, Any]:
    """Return config.yaml's values by parameter; those about the gateway are looked at later.

    Between them and the options are the variables that only the gateway has, and .env.
    """
    return {
        str(param.name): _checked(context, config, param)
        for param in _table_options(context)
        if param.field.key in config.entries and param.field.section != Subcommand.GATEWAY
    }


def _table_options(context: click.Context) -> list[TableOption]:
    return [param for param in context.command.params if isinstance(param, TableOption)]


def _checked(context: click.Context, config: ConfigFile, param: TableOption) -> Any:
    """Return a value as its option takes it; an error names the line of the file."""
    value = config.value(param.field.key)
    if param.is_flag:
        return value
    try:
        return param.type_cast_value(context, value)
    except click.BadParameter as error:
        raise ConfigError(
            error.message[:1].lower() + error.message[1:].removesuffix("."),
            where=config.where(param.field.key),
            fix="change it, or delete the line",
        ) from error


def config_of(context: click.Context) -> ConfigFile:
    """Return the config.yaml that the options of a command were read with."""
    config: ConfigFile = context.meta[_CONFIG]
    return config


def in_force(context: click.Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without those of config.yaml that an option or variable makes void."""
    values = dict(given)
    params = _table_options(context)
    given_keys = {param.field.key for param in params if is_given(context, str(param.name))}
    voided = voided_keys(given_keys)
    for param in params:
        name = str(param.name)
        from_file = _source(context, name) is ParameterSource.DEFAULT_MAP
        if from_file and param.field.key in voided:
            values[name] = default_of(param.field)
    return values


def voided_keys(given: AbstractSet[str]) -> frozenset[str]:
    """Return the keys that config.yaml no longer decides where options of these keys are given."""
    return frozenset().union(*(voided for givers, voided in _RIVALS if givers & given))


def without_config(
    context: click.Context, values: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """Return the values, with those of the named options that are config.yaml's left out."""
    ours = {param.name: default_of(param.field) for param in _table_options(context)}
    from_file = [name for name in names if _source(context, name) is ParameterSource.DEFAULT_MAP]
    return {**values, **{name: ours[name] for name in from_file}}


def _source(context: click.Context, name: str) -> ParameterSource | None:
    return context.get_parameter_source(name)


def is_given(context: click.Context, name: str) -> bool:
    """Tell whether an option or its variable is set."""
    return _source(context, name) in _GIVEN


def is_typed(context: click.Context, name: str) -> bool:
    """Tell whether an option is on the command line."""
    return _source(context, name) is ParameterSource.COMMANDLINE


def nearest(
    context: click.Context, given: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """Return the values of options that exclude each other; None for those that are outranked.

    What is on the command line outranks what the environment says.
    """
    set_ones = {name: given[name] for name in names if given[name] is not None}
    typed = {name for name in set_ones if is_typed(context, name)}
    return {name: set_ones.get(name) if name in typed or not typed else None for name in names}


# Of the options about a gateway beside a proxy, those that exclude each other.
_GATEWAY_DESTINATIONS = ("gateway_upstream", "gateway_provider")
_GATEWAY_KEYS = ("gateway_key_file", "gateway_key_env", "gateway_key_systemd")


def nearest_of_gateway(context: click.Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the upstream and the key of a gateway beside a proxy that are set the nearest."""
    return nearest(context, given, _GATEWAY_DESTINATIONS) | nearest(context, given, _GATEWAY_KEYS)


def refuse_options_of_gateway(context: click.Context, *, fix: str) -> None:
    """Refuse options for a gateway that is not there; a variable may be meant for another start."""
    for param in context.command.params:
        name = str(param.name)
        if name.startswith("gateway_") and is_typed(context, name):
            raise ConfigError("no gateway is started", where=param.opts[0], fix=fix)
