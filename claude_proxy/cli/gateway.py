"""The command `gateway`: an endpoint of the Anthropic API that holds the key, and no other proxy.

Fail closed: what is not clear stops the start. The key is never an argument, as every user of the
machine can read the arguments of a process.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click

from claude_proxy.cli import gateway_settings, options, proxy_settings, service_manager
from claude_proxy.config.config_yaml import ConfigFile
from claude_proxy.config.option_table import Subcommand, defaults
from claude_proxy.config.settings import (
    Gateway,
    GatewayMode,
    InheritedListen,
    Listen,
    Settings,
    TcpListen,
    UnixListen,
)
from claude_proxy.errors import ConfigError
from claude_proxy.policy.credentials.binding import Form
from claude_proxy.policy.credentials.sources import SecretSource

EPILOG = """\b
Examples:
  ANTHROPIC_API_KEY=... claude-proxy gateway --provider anthropic
  claude-proxy gateway --upstream https://llm.corp.example --key-file ~/.config/llm.key
  claude-proxy gateway --provider anthropic --key-systemd anthropic --uds /run/llm/gateway.sock
  claude-proxy gateway --provider anthropic --new-token
  claude-proxy gateway --mode strict --model claude-haiku-4-5

\b
The variables PROXY_UPSTREAM_BASE, PROXY_API_KEY, PROXY_PROVIDER, PROXY_DEFAULT_MODEL, PROXY_TIMEOUT
(whole seconds), PROXY_HOST and PROXY_PORT are read too, from the environment and from .env in the
working directory. Precedence: option, CLAUDE_PROXY_GATEWAY_* variable, PROXY_* variable, .env,
config.yaml in --confdir, default. All of these are read only at the start.

\b
Point a client at it with:
  export ANTHROPIC_BASE_URL=http://127.0.0.1:9000 ANTHROPIC_AUTH_TOKEN=none
"""

_FLAGS = ("new_token", "keep_retry_after")


@click.command(cls=options.TopicalCommand, epilog=EPILOG)
@options.options_of(Subcommand.GATEWAY)
@click.pass_context
def command(context: click.Context, /, **given: Any) -> int:
    """Run an endpoint of the Anthropic API that holds the key."""
    config = options.config_of(context)
    values = options.in_force(context, given)
    values |= options.nearest(context, values, ("upstream", "provider"))
    values |= options.nearest(context, values, gateway_settings.KEY_OPTIONS)
    values |= _nearest_place(context, values)
    values |= {name: values[name] if options.is_given(context, name) else None for name in _FLAGS}
    variables = gateway_settings.Variables(os.environ, gateway_settings.read_dotenv(Path.cwd()))
    settings, warnings = settings_of(values, variables, config)
    for warning in warnings:
        click.echo(f"claude-proxy: warning: {warning}", err=True)
    if settings.gateway is not None and _wants_new_token(values, config):
        _print_variables(settings.gateway)
    start: Callable[[Settings], int] = context.obj
    return start(settings)


def _nearest_place(context: click.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a port or a socket, whichever was typed; both from the same place are a clash."""
    near = options.nearest(context, values, ("uds", "host", "port"))
    if near["uds"] is None:  # a typed --port does not undo a host of the environment
        return {"uds": None}
    return near


def settings_of(
    values: Mapping[str, Any], variables: gateway_settings.Variables, config: ConfigFile
) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings that the options make together, and what to warn about."""
    # `serve` has options of these names too, about itself.
    shared = {name: value for name, value in values.items() if name not in {"host", "port"}}
    settings = proxy_settings.settings_of({**defaults(Subcommand.SERVE), **shared}, config)
    passed = service_manager.take_sockets()
    listen = _listeners(values, variables, config, passed.sockets)
    new_token = _wants_new_token(values, config)
    if new_token:
        _refuse_useless_token(listen)
    given = _options_of(values, new_token=new_token)
    result = gateway_settings.gateway_of(given, listen, variables, config)
    settings = replace(
        settings, listen=(), credentials=None, notify=passed.notify, gateway=result.gateway
    )
    return settings, result.warnings


def _wants_new_token(values: Mapping[str, Any], config: ConfigFile) -> bool:
    given: bool | None = values["new_token"]
    if given is None and values["token_file"] is None:
        given = config.value("gateway.new_token")
    return bool(given)


def _options_of(values: Mapping[str, Any], *, new_token: bool) -> gateway_settings.GatewayOptions:
    return gateway_settings.GatewayOptions(
        upstream=values["upstream"],
        provider=values["provider"],
        mode=None if values["mode"] is None else GatewayMode(values["mode"]),
        models=values["model"],
        timeout_s=values["timeout"],
        source=_source(values),
        form=None if values["form"] is None else Form(values["form"]),
        token_file=values["token_file"],
        new_token=new_token,
        requests_per_minute=values["max_requests_per_minute"],
        tokens_per_day=values["max_tokens_per_day"],
        request_bytes=values["max_body"],
        allow_remote=values["allow_remote"],
        keeps_retry_after=values["keep_retry_after"],
    )


def _listeners(
    values: Mapping[str, Any],
    variables: gateway_settings.Variables,
    config: ConfigFile,
    passed: tuple[InheritedListen, ...],
) -> tuple[Listen, ...]:
    """Return where to listen; sockets that were passed replace all but options."""
    uds, host, port = values["uds"], values["host"], values["port"]
    if uds is not None:
        if host is not None or port is not None:
            _refuse("a Unix socket and a port exclude each other", "--uds, --host, --port")
        return (*passed, UnixListen(proxy_settings.absolute(uds)))
    if host is None and port is None:
        if passed:
            return passed
        written = _socket_in(config, variables)
        if written is not None:
            return (written,)
    return (*passed, gateway_settings.address_of(variables, config, host, port))


def _socket_in(config: ConfigFile, variables: gateway_settings.Variables) -> UnixListen | None:
    """Return the Unix socket that config.yaml names, unless a variable names an address."""
    names = (gateway_settings.HOST_VARIABLE, gateway_settings.PORT_VARIABLE)
    uds: Path | None = config.value("gateway.uds")
    if uds is None or any(variables.find(name) is not None for name in names):
        return None
    keys = [key for key in ("gateway.host", "gateway.port") if key in config.entries]
    if keys:
        where = ", ".join(map(config.where, ("gateway.uds", *keys)))
        _refuse("a Unix socket and a port exclude each other", where)
    return UnixListen(uds)


def _refuse_useless_token(listen: tuple[Listen, ...]) -> None:
    ports = [one.port for one in listen if isinstance(one, TcpListen)]
    if not ports:
        _refuse(
            "callers of a Unix socket are known by their user, and need no token", "--new-token"
        )
    if 0 in ports:
        fix = "name a port with --port"
        _refuse("the variables cannot be printed, as the port is not known yet", "--new-token", fix)


def _source(values: Mapping[str, Any]) -> SecretSource | None:
    names = [name for name in gateway_settings.KEY_OPTIONS if values[name]]
    if len(names) > 1:
        _refuse("the key is given twice", ", ".join(_option(name) for name in names))
    if not names:
        return None
    name = names[0]
    value = values[name]
    if isinstance(value, Path):
        value = proxy_settings.absolute(value)
    return gateway_settings.key_source(name, value, _option(name))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _print_variables(gateway: Gateway) -> None:
    for listen in gateway.listen:
        if isinstance(listen, TcpListen):
            click.echo(f"export ANTHROPIC_BASE_URL=http://{listen}")
    click.echo(f"export ANTHROPIC_AUTH_TOKEN={gateway.token}")


def _refuse(what: str, where: str, fix: str = "drop one of them") -> NoReturn:
    raise ConfigError(what, where=where, fix=fix)
