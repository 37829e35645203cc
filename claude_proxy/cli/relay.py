"""Implements `claude-proxy relay`: one end of the only way out of a place without network.

The relay itself is `claude_proxy.sandbox.relay.relay`, which knows nothing of this; here its
options have names and help, and a command can be started that is led through it.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import override

import click

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.relay import relay
from claude_proxy.sandbox.relay.bridge import DEFAULT_LIMIT
from claude_proxy.trust.client_environment import NO_PROXY

EPILOG = """\b
Examples:
  claude-proxy relay --listen 127.0.0.1:3128 --to unix:/run/proxy.sock
      inside a container, whose clients use http://127.0.0.1:3128
  claude-proxy relay --listen unix:/run/user/1000/proxy.sock --to 127.0.0.1:3128
      on the host, beside a proxy that knows no Unix sockets
  claude-proxy relay --http-port 3128 --socket /run/proxy.sock -- claude
      Claude Code, as long as it runs, through the proxy behind that socket

ADDRESS is an IP address and port, or unix:PATH. While the proxy is gone an HTTP client gets a
502 and a SOCKS5 client a failure; once it is back, new connections reach it.
"""


class Command(relay.ChildProcess):
    """A command of the user's own, started as it was given."""

    def __init__(self, command_line: Sequence[str], variables: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(command_line, env=variables)  # noqa: S603

    @override
    def poll(self) -> int | None:
        return self._process.poll()

    @override
    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)


class NotStartedError(ConfigError):
    """The command cannot be started; the exit code is a shell's for that."""

    def __init__(self, what: str, *, exit_code: int, where: str, fix: str) -> None:
        super().__init__(what, where=where, fix=fix)
        self.exit_code = exit_code


@click.command(epilog=EPILOG)
@click.option(
    "--listen",
    metavar="ADDRESS",
    multiple=True,
    help="Listen there; may be repeated. fd:N takes over an inherited socket.",
)
@click.option("--to", metavar="ADDRESS", help="Where the proxy listens.")
@click.option(
    "--http-port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help="The same as --listen 127.0.0.1:PORT.",
)
@click.option("--socket", metavar="PATH", help="The same as --to unix:PATH.")
@click.option(
    "--max-connections",
    metavar="NUMBER",
    type=click.IntRange(1),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="How many clients are served at once; the others wait.",
)
@click.option("--allow-remote", is_flag=True, help="Allow a --listen that other machines reach.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors alone.")
@click.argument("command_line", metavar="[-- COMMAND [ARGS]...]", nargs=-1, type=click.UNPROCESSED)
def command(
    listen: tuple[str, ...],
    to: str | None,
    http_port: int | None,
    socket: str | None,
    max_connections: int,
    allow_remote: bool,  # noqa: FBT001 - click hands options over by name
    quiet: bool,  # noqa: FBT001
    command_line: tuple[str, ...],
) -> int:
    """Relay connections between TCP and Unix sockets.

    With a COMMAND the relay listens before it starts, and ends with it; the command finds the
    relay in HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, and its exit code is returned.
    """
    orders = relay.RelayOptions()
    orders.listen = [*listen]
    if http_port is not None:
        orders.listen.append(f"127.0.0.1:{http_port}")
    if to is not None and socket is not None:
        raise ConfigError(
            "there is one proxy behind a relay",
            where="--to and --socket",
            fix="leave one of them out",
        )
    orders.to = to or ("" if socket is None else f"unix:{socket}")
    orders.limit = max_connections
    orders.allow_remote = allow_remote
    orders.quiet = quiet
    if not command_line:
        return relay.serve(orders)
    return relay.serve(orders, start=lambda listening: _started(command_line, listening))


def _started(command_line: Sequence[str], listening: Sequence[str]) -> relay.ChildProcess:
    """Start the command, led through the first of the relay's TCP listeners."""
    tcp = next((address for address in listening if not address.startswith("unix:")), None)
    if tcp is None:
        raise ConfigError(
            "a command is led through a TCP listener, and there is none",
            where="--listen",
            fix="add --http-port 3128",
        )
    try:
        return Command(command_line, os.environ | environment(tcp))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise NotStartedError(
            f'cannot start "{command_line[0]}" ({(error.strerror or "").lower()})',
            exit_code=127 if missing else 126,
            where="the command after --",
            fix="give a program that is installed here" if missing else "make it executable",
        ) from error


def environment(address: str) -> dict[str, str]:
    """Return the variables that lead a program through a relay at `address`."""
    host, _, port = address.rpartition(":")
    # A relay that listens on all addresses is reached on this machine by the loopback one.
    reached = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104
    http = f"http://{reached}:{port}"
    found = {"NO_PROXY": NO_PROXY, "no_proxy": NO_PROXY}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        found[name] = http
    # In upper case alone: httpx reads the other, and fails on SOCKS unless it has socksio.
    found["ALL_PROXY"] = f"socks5h://{reached}:{port}"
    return found
