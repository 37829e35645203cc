"""Declares options: the kinds of values they take, and the environment variable of each.

Law 11 at the edge: a value that cannot be understood is an error that names the option and its
variable, since the user may have set either.
"""

import pwd
from collections.abc import Callable, Mapping, Sequence
from typing import Any, override

import click
from click.core import ParameterSource

from claude_proxy.config import option_values
from claude_proxy.config.settings import GatewayMode
from claude_proxy.errors import ConfigError

type Decorate = Callable[[Any], Any]

_HIGHEST_UID = 0xFFFF_FFFE  # the one above it means "none" to the kernel


class Parsed[T](click.ParamType[T]):
    """An option whose text one of the functions in `options.py` turns into a value."""

    def __init__(self, name: str, parse: Callable[[str], T], fix: str) -> None:
        self.name = name
        self._parse = parse
        self._fix = fix

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> T | Any:
        if not isinstance(value, str):
            return value  # a default that is a value already
        try:
            return self._parse(value)
        except ValueError as error:
            raise ConfigError(str(error), where=spelling(param), fix=self._fix) from error


def spelling(param: click.Parameter | None) -> str | None:
    """Return both names of an option, as the user may have set either."""
    if param is None:
        return None
    option = param.opts[-1]
    return f"{option} or {param.envvar}" if param.envvar else option


def option(name: str, text: str, *, prefix: str = "", **settings: Any) -> Decorate:
    """Declare one option with the environment variable of its name, which `prefix` begins."""
    variable = f"CLAUDE_PROXY_{prefix}" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(
        name, envvar=variable, show_envvar=True, help=text, **{"metavar": None} | settings
    )


def count(minimum: int) -> click.IntRange:
    """Return the kind of a whole number that is not below `minimum`."""
    return click.IntRange(min=minimum)


def duration(*, zero: bool = False) -> Parsed[float]:
    """Return the kind of a duration, which may be nothing where `zero` says so."""
    parse = option_values.parse_duration if zero else option_values.parse_timeout
    return Parsed("duration", parse, "write it like 30s, 500ms, 15m or 1h")


HOST = Parsed("address", option_values.parse_listen_host, "give the address of an interface")
LISTEN = Parsed(
    "listener",
    option_values.parse_listen,
    "write it like 127.0.0.1:9051, [::1]:9051 or unix:/path.sock",
)
NETWORK = Parsed("cidr", option_values.parse_network, "write it like 10.0.0.0/8 or fd00::/8")
RESOLVE = Parsed(
    "host:port:address",
    option_values.parse_resolve,
    "write it like git.corp.example:443:10.1.2.3 or [2001:db8::1]:443:[fd00::1]",
)
BASE = Parsed("url", option_values.parse_base, "write it like https://api.example.com/anthropic")
MODEL = Parsed("model", option_values.parse_model, "write the name of a model, or ASKED=GIVEN")
GATEWAY_MODE = click.Choice([mode.value for mode in GatewayMode])
SIZE = Parsed("size", option_values.parse_size, "write it like 65536, 64K, 256M or 1G")
PROXY = Parsed(
    "url", option_values.parse_upstream_proxy, "write it like http://USER:PASSWORD@HOST:PORT"
)
EXCEPTIONS = Parsed(
    "hosts", option_values.parse_exceptions, "write it like .corp.example,10.0.0.0/8,localhost"
)


def _uid_of(text: str) -> int:
    """Return the number of a user, who may be given by name."""
    if text.isascii() and text.isdecimal():
        uid = int(text)
        if uid <= _HIGHEST_UID:
            return uid
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise ValueError(f'"{text}" is no user of this machine') from None


UID = Parsed("user", _uid_of, "give the number or the name of a user; `id NAME` shows both")


def nearest(
    context: click.Context, given: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """Return the values of options that exclude each other; None for those that are outdone.

    What stands on the command line outdoes what the environment says.
    """
    asked = {name: given[name] for name in names if given[name] is not None}
    typed = {
        name for name in asked if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    return {name: asked.get(name) if name in typed or not typed else None for name in names}


# Of the options about a gateway beside a proxy, those that exclude each other.
_GATEWAY_WAYS = ("gateway_upstream", "gateway_provider")
_GATEWAY_KEYS = ("gateway_key_file", "gateway_key_env", "gateway_key_systemd")


def nearest_of_gateway(context: click.Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the upstream and the key that a gateway beside a proxy was given the nearest."""
    return nearest(context, given, _GATEWAY_WAYS) | nearest(context, given, _GATEWAY_KEYS)


def refuse_options_of_gateway(context: click.Context, *, fix: str) -> None:
    """Refuse options for a gateway that is not there; a variable may be meant for another start."""
    for param in context.command.params:
        name = str(param.name)
        typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if name.startswith("gateway_") and typed:
            raise ConfigError(
                "there is no gateway that this could be about", where=param.opts[0], fix=fix
            )
