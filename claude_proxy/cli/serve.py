"""The command `serve`: runs the proxy.

Fail closed: a value that cannot be understood stops the start.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import click

from claude_proxy.cli import options, proxy_settings, service_manager
from claude_proxy.config.config_yaml import ConfigFile
from claude_proxy.config.option_table import Subcommand
from claude_proxy.config.settings import Settings

EPILOG = """\b
Examples:
  claude-proxy serve --port 9052 --allowlist my.yaml
  claude-proxy serve --host 10.0.0.1 --allow-remote --client 10.0.0.0/24
  claude-proxy serve --listen 127.0.0.1:9051 --listen unix:~/.cache/claude-proxy/proxy.sock
  claude-proxy serve --gateway 127.0.0.1:9053 --gateway-provider anthropic
  claude-proxy serve --resolve git.corp.example:443:10.1.2.3 --upstream-ca corp.pem

Sizes: 65536, 64K, 256M, 1G. Durations: 30, 30s, 500ms, 15m, 1h.
Precedence: option, CLAUDE_PROXY_* variable, config.yaml in --confdir, default.
"""


_LISTENING = ("listen", "host", "port", "unlink_socket")


@click.command(cls=options.TopicalCommand, epilog=EPILOG)
@options.options_of(Subcommand.SERVE)
@click.pass_context
def command(context: click.Context, /, **given: Any) -> int:
    """Run the proxy (the default command)."""
    config = options.config_of(context)
    values = options.in_force(context, given)
    if not (values["gateway"] or service_manager.passes_gateway_sockets()):
        options.refuse_options_of_gateway(context, fix="add --gateway WHERE")
    values |= options.nearest_of_gateway(context, values)
    settings = _with_service_manager(context, values, config)
    if _password_in_argv(context, settings):
        click.echo(
            "claude-proxy: warning: every user of this machine can read the password in the "
            "arguments of this process; put the URL into CLAUDE_PROXY_UPSTREAM_PROXY",
            err=True,
        )
    start: Callable[[Settings], int] = context.obj
    return start(settings)


def _with_service_manager(
    context: click.Context, values: Mapping[str, Any], config: ConfigFile
) -> Settings:
    """Return the settings, with what a service manager has passed.

    Its sockets replace the default listener and those of config.yaml, which they stand for.
    """
    settings = proxy_settings.settings_of(values, config)
    passed = service_manager.take_sockets()
    listen, gateway = settings.listen, settings.gateway
    if passed.for_proxy:
        asked = options.without_config(context, values, _LISTENING)
        listen = (*passed.for_proxy, *proxy_settings.listeners_of(asked, config))
    if passed.for_gateway:
        asked = options.without_config(context, values, ("gateway",))
        own = proxy_settings.gateway_listeners(asked, config)
        gateway = proxy_settings.gateway_of(values, config, (*passed.for_gateway, *own))
    return replace(settings, notify=passed.notify, listen=listen, gateway=gateway)


def _password_in_argv(context: click.Context, settings: Settings) -> bool:
    proxy = settings.upstream_proxy
    typed = options.is_typed(context, "upstream_proxy")
    return typed and proxy is not None and proxy.credentials is not None
