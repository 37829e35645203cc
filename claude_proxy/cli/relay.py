"""`claude-proxy relay`: copy connections between TCP and Unix sockets.

`claude_proxy.sandbox.relay.relay` does the work and does not depend on this module, which adds
options, help, and a command that is started behind the relay.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import override

import click

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.relay import relay
from claude_proxy.sandbox.relay.bridge import DEFAULT_LIMIT
from claude_proxy.trust.client_environment import NO_PROXY
from claude_proxy.trust.client_environment import environment as client_environment
from claude_proxy.wire.authority import Authority

EPILOG = """\b
Examples:
  claude-proxy relay --listen 127.0.0.1:3128 --to unix:/run/proxy.sock
      inside a container, whose clients use http://127.0.0.1:3128
  claude-proxy relay --listen unix:/run/user/1000/proxy.sock --to 127.0.0.1:3128
      on the host, next to a proxy without Unix sockets
  claude-proxy relay --http-port 3128 --socket /run/proxy.sock --bundle /run/bundle.pem -- claude
      run Claude Code through the proxy behind that socket, and let it trust the proxy's CA

ADDRESS is an IP address and port, or unix:PATH. While the proxy is not running, HTTP clients get a
502 and SOCKS5 clients a failure; once it is back, new connections work again.
"""


class Command(relay.ChildProcess):
    """The user's command, started exactly as given."""

    def __init__(self, command_line: Sequence[str], variables: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(command_line, env=variables)  # noqa: S603

    @override
    def poll(self) -> int | None:
        return self._process.poll()

    @override
    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)


class NotStartedError(ConfigError):
    """The command cannot be started; the exit code is the one a shell uses."""

    def __init__(self, what: str, *, exit_code: int, where: str, fix: str) -> None:
        super().__init__(what, where=where, fix=fix)
        self.exit_code = exit_code


@click.command(epilog=EPILOG)
@click.option(
    "--listen",
    metavar="ADDRESS",
    multiple=True,
    help="Listen here; repeatable. fd:N uses an inherited socket.",
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
    "--bundle",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Let the command trust the certificates in FILE, which `claude-proxy ca bundle` writes.",
)
@click.option(
    "--max-connections",
    metavar="NUMBER",
    type=click.IntRange(1),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="How many clients to serve at once; others wait.",
)
@click.option("--allow-remote", is_flag=True, help="Allow a --listen that other machines reach.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
@click.argument("command_line", metavar="[-- COMMAND [ARGS]...]", nargs=-1, type=click.UNPROCESSED)
def command(
    listen: tuple[str, ...],
    to: str | None,
    http_port: int | None,
    socket: str | None,
    bundle: Path | None,
    max_connections: int,
    allow_remote: bool,  # noqa: FBT001 - click hands options over by name
    quiet: bool,  # noqa: FBT001
    command_line: tuple[str, ...],
) -> int:
    """Relay connections between TCP and Unix sockets.

    With a COMMAND, the relay listens before the command starts and exits when it exits, with its
    exit code. HTTP_PROXY, HTTPS_PROXY and ALL_PROXY of the command name the relay; with --bundle,
    the command gets all variables that `claude-proxy env` prints.
    """
    options = relay.RelayOptions()
    options.listen = [*listen]
    if http_port is not None:
        options.listen.append(f"127.0.0.1:{http_port}")
    if to is not None and socket is not None:
        raise ConfigError(
            "a relay has only one destination",
            where="--to and --socket",
            fix="leave one of them out",
        )
    options.to = to or ("" if socket is None else f"unix:{socket}")
    options.limit = max_connections
    options.allow_remote = allow_remote
    options.quiet = quiet
    trusted = None if bundle is None else _readable(bundle)
    if not command_line:
        if trusted is not None:
            raise ConfigError(
                "there is no command whose variables could be set",
                where="--bundle",
                fix="add -- and the command, or leave --bundle out",
            )
        return relay.serve(options)
    return relay.serve(options, start=lambda listening: _started(command_line, listening, trusted))


def _readable(bundle: Path) -> Path:
    """Return where the bundle is for a command with any working directory."""
    try:
        text = bundle.read_text("ascii", "replace")
    except OSError as error:
        raise ConfigError(
            f"the bundle cannot be read ({(error.strerror or '').lower()})",
            where=f"--bundle {bundle}",
            fix="mount the file that `claude-proxy ca bundle` writes, and name it",
        ) from error
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise ConfigError(
            "there is no certificate in the bundle",
            where=f"--bundle {bundle}",
            fix="mount the file that `claude-proxy ca bundle` writes, and name it",
        )
    return bundle.absolute()


def _started(
    command_line: Sequence[str], listening: Sequence[str], bundle: Path | None
) -> relay.ChildProcess:
    """Start the command, with variables that name the relay's first TCP listener."""
    tcp = next((address for address in listening if not address.startswith("unix:")), None)
    if tcp is None:
        raise ConfigError(
            "the command needs a TCP listener, and there is none",
            where="--listen",
            fix="add --http-port 3128",
        )
    try:
        return Command(command_line, os.environ | environment(tcp, bundle))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise NotStartedError(
            f'cannot start "{command_line[0]}" ({(error.strerror or "").lower()})',
            exit_code=127 if missing else 126,
            where="the command after --",
            fix="name a program that is installed here" if missing else "make it executable",
        ) from error


def environment(address: str, bundle: Path | None) -> dict[str, str]:
    """Return the variables that make a program use a relay at `address`, and trust `bundle`."""
    host, _, port = address.rpartition(":")
    # A relay that listens on all addresses can be reached at the loopback address.
    reached = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104
    if bundle is None:
        found = {"NO_PROXY": NO_PROXY, "no_proxy": NO_PROXY}
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            found[name] = f"http://{reached}:{port}"
    else:
        # The bundle is the certificate too: a tool that adds it to its own roots loses nothing.
        proxy = Authority.of(reached.strip("[]"), int(port))
        found = client_environment(proxy, certificate=bundle, bundle=bundle)
    # Upper case only: httpx reads the lower-case one and fails on SOCKS without socksio.
    found["ALL_PROXY"] = f"socks5h://{reached}:{port}"
    return found
