"""Runs an endpoint of the Anthropic API that holds the key, and no other proxy beside it.

Laws kept: what cannot be had as it was asked for stops the start (11), and the key is never an
argument, as every user can read the arguments of a process (9).
"""

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click

from claude_proxy.cli import completers, gateway_settings, param_types, paths, serve
from claude_proxy.cli.param_types import Decorate
from claude_proxy.config.gateway import FORMS, body_size
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
from claude_proxy.policy.credentials.decision import (
    CommandSource,
    EnvironmentSource,
    FileSource,
    Form,
    KeyringSource,
    SecretSource,
    SystemdSource,
)

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
working directory. An option outdoes them, and the environment outdoes .env. Providers of your own
are in gateway.yaml in --confdir. All of these are read at the start alone.

\b
A client is led here by:
  export ANTHROPIC_BASE_URL=http://127.0.0.1:9000 ANTHROPIC_AUTH_TOKEN=none
"""

# Of `serve`: what is about its own listeners, and what only a proxy that judges hosts can do.
_NOT_HERE = frozenset(
    {"host", "learn", "learn_deny", "listen", "port", "proxy_auth_file", "unlink_socket", "workers"}
)
SHARED = tuple(
    param
    for param in serve.command.params
    if param.name not in _NOT_HERE and not str(param.name).startswith("gateway")
)
_SHARED_NAMES = frozenset(str(param.name) for param in SHARED)
_KEYS = ("key_file", "key_env", "key_command", "key_keyring", "key_systemd")
_PREFIX = "GATEWAY_"

_FORM = click.Choice([form.value for form in FORMS])
_BODY = param_types.Parsed("size", body_size, "write it like 65536, 64K or 32M; 1K at least")


def _option(name: str, text: str, **settings: Any) -> Decorate:
    return param_types.option(name, text, prefix=_PREFIX, **settings)


def _with_options_of_serve(function: Callable[..., Any]) -> Callable[..., Any]:
    command: Any = function
    command.__click_params__ = [*reversed(SHARED), *getattr(function, "__click_params__", ())]
    return function


@click.command(epilog=EPILOG)
@_option(
    "--host",
    "The address to listen on; PROXY_HOST too.  [default: 127.0.0.1]",
    type=param_types.HOST,
)
@_option(
    "--port",
    "The port to listen on, 0 takes a free one; PROXY_PORT too.  "
    f"[default: {gateway_settings.DEFAULT_GATEWAY_PORT}]",
    type=click.IntRange(0, 65535),
)
@_option(
    "--uds",
    "Listen on this Unix socket, and on no port.",
    type=click.Path(path_type=Path),
    metavar="PATH",
)
@_option(
    "--upstream",
    "The URL before /v1/messages to forward to: https, or http on this machine; "
    "PROXY_UPSTREAM_BASE too.",
    type=param_types.BASE,
    metavar="URL",
)
@_option(
    "--provider",
    "The provider to forward to: anthropic, or one of gateway.yaml in --confdir; "
    "PROXY_PROVIDER too.",
    metavar="NAME",
    shell_complete=completers.providers,
)
@_option(
    "--mode",
    "What to take and give back: all that Claude Code needs, unchanged (claude), or one plain call "
    "and no word of the provider's (strict).  [default: claude]",
    type=param_types.GATEWAY_MODE,
)
@_option(
    "--model",
    "Ask the upstream for this model, whichever was asked for; or ASKED=GIVEN, repeatable. "
    "PROXY_DEFAULT_MODEL too.",
    type=param_types.MODEL,
    multiple=True,
    metavar="NAME",
)
@_option(
    "--timeout",
    "How long the upstream may be silent: 1s to 600s, in strict mode to 300s; PROXY_TIMEOUT too.  "
    "[default: 600s, in strict mode 30s]",
    type=param_types.duration(),
    metavar="DURATION",
)
@_option(
    "--key-file",
    "The file that holds the key; it must be yours alone (mode 0600).",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
)
@_option(
    "--key-env",
    "The variable that holds the key.  [default: PROXY_API_KEY; with --provider anthropic "
    "ANTHROPIC_API_KEY too]",
    metavar="NAME",
)
@_option(
    "--key-command",
    "The command that prints the key, split as a shell would and run without one.",
    metavar="COMMAND",
)
@_option(
    "--key-keyring",
    "The entry of the system's keyring that holds the key.",
    metavar="SERVICE:USER",
)
@_option(
    "--key-systemd",
    "The credential of the service manager that holds the key (LoadCredential=).",
    metavar="NAME",
)
@_option(
    "--form",
    "How the key is sent; auto: Anthropic's API keys as x-api-key, all others as bearer.  "
    "[default: the provider's, else auto]",
    type=_FORM,
)
@_option(
    "--token-file",
    "Demand the token in this file of TCP callers; it must be yours alone (mode 0600).",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
)
@_option(
    "--new-token",
    "Make a token for this run, demand it of TCP callers, and print the variables that they need.",
    is_flag=True,
)
@_option(
    "--max-requests-per-minute",
    "How many requests may go through in a minute; more are answered 429.",
    type=param_types.count(1),
    metavar="COUNT",
)
@_option(
    "--max-tokens-per-day",
    "How many tokens, in and out, may be used up in a day (UTC); then 429.",
    type=param_types.count(1),
    metavar="COUNT",
)
@_option(
    "--max-body",
    "How large the body of a request may be; a larger one is answered 413.  [default: 32M]",
    type=_BODY,
    metavar="SIZE",
)
@_option(
    "--keep-retry-after",
    "Pass the upstream's retry-after on in strict mode, which else gives no field of its.",
    is_flag=True,
)
@_with_options_of_serve
@click.pass_context
def command(context: click.Context, /, **given: Any) -> int:
    """Run an endpoint of the Anthropic API that holds the key."""
    given |= param_types.nearest(context, given, ("upstream", "provider"))
    given |= param_types.nearest(context, given, _KEYS)
    given |= _nearest_place(context, given)
    around = gateway_settings.Surroundings(os.environ, gateway_settings.read_dotenv(Path.cwd()))
    settings, warnings = settings_of(given, around)
    for warning in warnings:
        click.echo(f"claude-proxy: warning: {warning}", err=True)
    if settings.gateway is not None and given["new_token"]:
        _print_variables(settings.gateway)
    start: Callable[[Settings], int] = context.obj
    return start(settings)


def _nearest_place(context: click.Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a port or a socket, whichever was typed; both from the same place are a clash."""
    near = param_types.nearest(context, given, ("uds", "host", "port"))
    if near["uds"] is None:  # a typed --port does not undo a host of the environment
        return {"uds": None}
    return near


def settings_of(
    given: Mapping[str, Any], around: gateway_settings.Surroundings
) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings that the options make together, and what to warn of."""
    shared = {name: given[name] for name in _SHARED_NAMES}
    settings = serve.settings_of(serve.Arguments(**shared))
    handed = serve.take_from_service_manager()
    asked = _asked(given)
    listen = _listeners(given, around, handed.sockets)
    _refuse_useless_token(given, listen)
    file = gateway_settings.read_file(given["confdir"] or paths.default_confdir())
    made = gateway_settings.gateway_of(asked, listen, around, file)
    settings = replace(
        settings, listen=(), credentials=None, notify=handed.notify, gateway=made.gateway
    )
    return settings, made.warnings


def _asked(given: Mapping[str, Any]) -> gateway_settings.Asked:
    return gateway_settings.Asked(
        upstream=given["upstream"],
        provider=given["provider"],
        mode=None if given["mode"] is None else GatewayMode(given["mode"]),
        models=given["model"],
        timeout_s=given["timeout"],
        source=_source(given),
        form=None if given["form"] is None else Form(given["form"]),
        token_file=given["token_file"],
        new_token=given["new_token"],
        requests_per_minute=given["max_requests_per_minute"],
        tokens_per_day=given["max_tokens_per_day"],
        request_bytes=given["max_body"],
        allow_remote=given["allow_remote"],
        keeps_retry_after=given["keep_retry_after"],
    )


def _listeners(
    given: Mapping[str, Any],
    around: gateway_settings.Surroundings,
    handed: tuple[InheritedListen, ...],
) -> tuple[Listen, ...]:
    """Return where to listen; what was handed over takes the place of all but options."""
    uds, host, port = given["uds"], given["host"], given["port"]
    if uds is not None:
        if host is not None or port is not None:
            _refuse("a Unix socket and a port are asked for", "--uds, --host, --port")
        return (*handed, UnixListen(serve.whole(uds)))
    if handed and host is None and port is None:
        return handed
    return (*handed, gateway_settings.address_of(around, host, port))


def _refuse_useless_token(given: Mapping[str, Any], listen: tuple[Listen, ...]) -> None:
    if not given["new_token"]:
        return
    ports = [one.port for one in listen if isinstance(one, TcpListen)]
    if not ports:
        _refuse("callers are known by their user here, and need no token", "--new-token")
    if 0 in ports:
        fix = "name a port with --port"
        _refuse("the variables cannot be printed, as the port is not known yet", "--new-token", fix)


def _source(given: Mapping[str, Any]) -> SecretSource | None:
    asked = [name for name in _KEYS if given[name]]
    if len(asked) > 1:
        _refuse("the key is given twice", ", ".join(_spelled(name) for name in asked))
    return _SOURCES[asked[0]](given[asked[0]]) if asked else None


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _of_command(text: str) -> SecretSource:
    try:
        argv = tuple(shlex.split(text))
    except ValueError:
        argv = ()
    if not argv:
        _refuse("it is not a command", "--key-command", "close its quotes, and name a program")
    return CommandSource(argv)


def _of_keyring(text: str) -> SecretSource:
    service, _, user = text.rpartition(":")
    if not (service and user):
        _refuse("it is not SERVICE:USER", "--key-keyring", "write both, with a colon between")
    return KeyringSource(service, user)


_SOURCES: Mapping[str, Callable[[Any], SecretSource]] = {
    "key_file": lambda path: FileSource(serve.whole(path)),
    "key_env": EnvironmentSource,
    "key_command": _of_command,
    "key_keyring": _of_keyring,
    "key_systemd": SystemdSource,
}


def _print_variables(gateway: Gateway) -> None:
    for listen in gateway.listen:
        if isinstance(listen, TcpListen):
            click.echo(f"export ANTHROPIC_BASE_URL=http://{listen}")
    click.echo(f"export ANTHROPIC_AUTH_TOKEN={gateway.token}")


def _refuse(what: str, where: str, fix: str = "drop one of them") -> NoReturn:
    raise ConfigError(what, where=where, fix=fix)
