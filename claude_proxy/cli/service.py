"""Installs, shows and removes a service that keeps the proxy running.

Law 9 at the edge: what is printed and written names the file that holds a key, never the key. What
is installed is what `print` prints, made by the same function.
"""

import os
import pwd
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from importlib import import_module
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from claude_proxy import __version__
from claude_proxy.cli import gateway_settings, paths, service_plan
from claude_proxy.cli.param_types import ParsedType
from claude_proxy.cli.service_plan import Asked, Described
from claude_proxy.config.option_kinds import ParsedText
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.server.service.file_marks import marked
from claude_proxy.server.service.installer import (
    FileState,
    Installation,
    InstalledFile,
    Installer,
    InstallRoot,
    Systemd,
    installed_files,
    refuse_other_user,
    state_of,
)
from claude_proxy.server.service.launchd import plist_of
from claude_proxy.server.service.names import names_of
from claude_proxy.server.service.plan import Scope, ServiceKind, ServicePlan, Unit
from claude_proxy.server.service.systemd import files_of

type Decorate = Callable[[Any], Any]

EXIT_STALE = 1
EXIT_STOPPED, EXIT_MISSING = 3, 4  # as `systemctl status` has them

EXAMPLES = """\b
Examples:
  claude-proxy service install                        your own, started when you log in
  sudo claude-proxy service install --nftables        the machine's, and held by its packet filter
  sudo claude-proxy service install --socket-activated -- --listen unix:/run/claude-proxy/p.sock \\
      --socket-uid agent
  sudo claude-proxy service install --kind gateway --key-file /etc/llm.key -- --provider anthropic
  claude-proxy service print --init launchd > ~/Library/LaunchAgents/claude-proxy.plist
  claude-proxy service status

What stands behind -- are options of `serve`, or of `gateway` with --kind gateway.
"""


class Init(StrEnum):
    """The service manager that files are made for."""

    SYSTEMD = "systemd"
    LAUNCHD = "launchd"


def _address(text: str) -> IPv4Address | IPv6Address:
    """Read an address that a rule of the packet filter can hold."""
    found = ip_address(text)
    if isinstance(found, IPv6Address) and found.scope_id is not None:
        raise ValueError(f'"{text}" names an interface, which the rules cannot')
    return found


_ADDRESS = ParsedType(
    ParsedText("address", _address, "write it like 192.0.2.53 or 2001:db8::53", "192.0.2.53")
)


def _options_of_command(
    context: click.Context, _param: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Complete what stands behind --."""
    kind = context.params.get("kind") or ServiceKind.SERVE.value
    command: click.Command = import_module(f"claude_proxy.cli.{kind}").command
    return [
        CompletionItem(name, help=param.help)
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden
        for name in param.opts
        if name.startswith(begun) and str(param.name) not in service_plan.NOT_GIVEN
    ]


def _which(function: Any) -> Any:
    """Declare the options that say which service is meant."""
    function = click.option(
        "--kind",
        type=click.Choice([kind.value for kind in ServiceKind]),
        default=ServiceKind.SERVE.value,
        show_default=True,
        help="The command that the service runs.",
    )(function)
    return click.option(
        "--system/--user",
        "system",
        default=None,
        help="The whole system's service, or your own.  [default: --system for root]",
    )(function)


def _described(function: Any) -> Any:
    """Declare the options that say what the service is like."""
    decorators: tuple[Decorate, ...] = (
        click.option(
            "--socket-activated",
            is_flag=True,
            help="Have systemd listen, and start the service when the first client comes.",
        ),
        click.option(
            "--key-file",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="PATH",
            help="Have systemd hand over the key in this file (LoadCredential=); the service "
            "itself need not be able to read it.",
        ),
        click.option(
            "--nftables",
            is_flag=True,
            help="Rules by which the service's user reaches this machine, name servers and HTTPS "
            "alone; `print` prints them and nothing else.",
        ),
        click.option(
            "--upstream-port",
            type=click.IntRange(1, 65535),
            multiple=True,
            metavar="PORT",
            help="Have --nftables allow this port beside 443; repeatable.",
        ),
        click.option(
            "--dns-server",
            type=_ADDRESS,
            multiple=True,
            metavar="ADDRESS",
            help="Have --nftables allow this name server; repeatable.  [default: any]",
        ),
        click.argument(
            "words",
            nargs=-1,
            type=click.UNPROCESSED,
            metavar="[-- OPTIONS]",
            shell_complete=_options_of_command,
        ),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


_dry_run = click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
_init = click.option(
    "--init",
    type=click.Choice([init.value for init in Init]),
    default=Init.LAUNCHD.value if sys.platform == "darwin" else Init.SYSTEMD.value,
    show_default=True,
    help="The service manager; launchd's file is printed only.",
)


@click.group(name="service", epilog=EXAMPLES)
def command() -> None:
    """Install the proxy as a service of systemd or launchd."""


@command.command(name="print", epilog=EXAMPLES)
@_which
@_described
@_init
def print_(*, init: str, **given: Any) -> None:
    """Print the files of a service; install nothing."""
    asked = _asked(given)
    _warn_of_variables(asked.kind)
    if Init(init) is Init.LAUNCHD:
        if given["system"]:
            raise ConfigError(
                "launchd's file is a user's own, for ~/Library/LaunchAgents",
                where="--system",
                fix="leave it out",
            )
        click.echo(_launchd(asked), nl=False)
        return
    described = _checked(service_plan.describe(asked))
    _warn(described)
    files = _files(described)
    if asked.nftables:
        _warn_of_user(described.plan.names.user)
        click.echo(next(unit.text for unit in files if unit.path.endswith(".nft")), nl=False)
        return
    click.echo("\n".join(f"# {unit.path}\n{unit.text}" for unit in files), nl=False)


@command.command(epilog=EXAMPLES)
@_which
@_described
@_init
@click.option(
    "--force", is_flag=True, help="Overwrite files that claude-proxy did not write, or no longer."
)
@_dry_run
def install(*, init: str, force: bool, dry_run: bool, **given: Any) -> None:
    """Install a service, have it start with the machine, and start it."""
    if Init(init) is Init.LAUNCHD:
        raise ConfigError(
            "launchd's file is printed, not installed",
            where="--init launchd",
            fix="claude-proxy service print --init launchd > "
            "~/Library/LaunchAgents/claude-proxy.plist, and `launchctl load` it",
        )
    asked = _asked(given)
    _warn_of_variables(asked.kind)
    described = _checked(service_plan.describe(asked))
    order = Installation(
        described.plan,
        _words_of(described),
        __version__,
        initial=_laid(described),
        directories=_directories(asked.scope),
    )
    if dry_run:
        _warn(described)
        _show(order, described)
        return
    refuse_other_user(_machine(), asked.scope, "install")
    if described.problems:
        raise ConfigErrors(described.problems)
    if asked.key_file is not None:
        service_plan.check_key_file(asked.key_file, asked.scope)
    Installer(_machine(), asked.scope, click.echo).install(order, force=force)
    _after(described)


@command.command()
@_which
@click.option("--force", is_flag=True, help="Remove files that were changed since, too.")
@_dry_run
def uninstall(*, system: bool | None, kind: str, force: bool, dry_run: bool) -> int:
    """Stop a service and remove what was installed; its state stays."""
    scope, names = _scope(system), names_of(kind)
    if dry_run:
        files = installed_files(_machine(), names, scope)
        for found in files:
            click.echo(f"would remove {found.path}")
        if files:
            return 0
        click.echo(f"{names.service} is not installed (looked for --{scope})")
        return EXIT_MISSING
    if not Installer(_machine(), scope, click.echo).uninstall(names, force=force):
        click.echo(f"{names.service} is not installed (looked for --{scope})")
        return EXIT_MISSING
    for line in _what_stays(scope, kind):
        click.echo(line)
    return 0


@command.command()
@_which
def status(*, system: bool | None, kind: str) -> int:
    """Tell whether a service is installed, up to date and running."""
    scope, names = _scope(system), names_of(kind)
    found = installed_files(_machine(), names, scope)
    if not found:
        click.echo(f"installed:  no ({names.service}; looked for --{scope})")
        return EXIT_MISSING
    wanted = _wanted(found, scope)
    standings = {one.path: state_of(one, wanted) for one in found}
    for path, standing in standings.items():
        click.echo(f"installed:  {path} ({standing})")
    for path in sorted(wanted.keys() - standings.keys()):
        standings[path] = FileState.MISSING
        click.echo(f"installed:  {path} ({FileState.MISSING})")
    current = all(standing is FileState.CURRENT for standing in standings.values())
    if not current:
        click.echo(f"up to date: no (claude-proxy {__version__}); fix: {_again(found)}")
    else:
        click.echo(f"up to date: yes (claude-proxy {__version__})")
    running = _running(scope, found)
    return running or (0 if current else EXIT_STALE)


# --- what was asked


def _scope(system: bool | None) -> Scope:  # noqa: FBT001 - as click hands it over
    if system is None:
        return service_plan.default_scope()
    return Scope.SYSTEM if system else Scope.USER


def _asked(given: Mapping[str, Any]) -> Asked:
    key_file: Path | None = given["key_file"]
    return Asked(
        scope=_scope(given["system"]),
        kind=ServiceKind(given["kind"]),
        socket_activated=given["socket_activated"],
        key_file=None if key_file is None else key_file.expanduser().absolute(),
        nftables=given["nftables"],
        upstream_port=given["upstream_port"],
        dns_server=given["dns_server"],
        words=given["words"],
    )


def _machine() -> InstallRoot:
    # Beside the directory of the configuration, which heeds XDG_CONFIG_HOME as systemd does.
    units = paths.default_confdir().parent / "systemd" / "user"
    return InstallRoot(Path("/"), units, os.geteuid())


def _launchd(asked: Asked) -> str:
    if asked.socket_activated or asked.nftables:
        raise ConfigError(
            "launchd's file has neither sockets nor a packet filter",
            where="--socket-activated, --nftables",
            fix="leave them out",
        )
    described = service_plan.describe(replace(asked, scope=Scope.USER, key_file=None))
    key = () if asked.key_file is None else (service_plan.key_file_word(asked),)
    try:
        return plist_of(described.plan, key, home=str(Path.home()))
    except ValueError as error:
        raise _unspeakable(error) from error


def _unspeakable(error: ValueError) -> ConfigError:
    return ConfigError(
        f"the file cannot be written: {error}",
        where="the options of the service",
        fix="use names and paths of letters, digits and signs that can be printed",
    )


def _checked(described: Described) -> Described:
    """Return what was described; ConfigError if a file could not hold a word of it."""
    try:
        _files(described)
    except ValueError as error:
        raise _unspeakable(error) from error
    return described


def _files(described: Described) -> tuple[Unit, ...]:
    words = _words_of(described)
    return tuple(
        Unit(unit.path, marked(unit.text, __version__, words)) for unit in files_of(described.plan)
    )


def _words_of(described: Described) -> tuple[str, ...]:
    return ("service", "install", *described.spelled)


def _laid(described: Described) -> dict[str, str]:
    if not described.own_allowlist:
        return {}
    return {described.plan.names.allowlist: paths.read_allowlist(paths.shipped_allowlist())}


def _directories(scope: Scope) -> tuple[Path, ...]:
    if scope is Scope.SYSTEM:
        return ()  # systemd makes them
    return paths.default_confdir(), paths.default_statedir()


# --- what is said


def _warn(described: Described) -> None:
    for problem in described.problems:
        click.echo(f"claude-proxy: warning: {problem.what}", err=True)
        click.echo(f"  where: {problem.where}\n  fix:   {problem.fix}", err=True)


def _warn_of_variables(kind: ServiceKind) -> None:
    """Say which variables of this shell are not heard by the service."""
    command: click.Command = import_module(f"claude_proxy.cli.{kind}").command
    known = {str(param.envvar) for param in command.params if param.envvar}
    known |= set(gateway_settings.VARIABLES if kind is ServiceKind.GATEWAY else ())
    if found := sorted(name for name in known if os.environ.get(name)):
        click.echo(
            f"claude-proxy: warning: the service does not hear what is set here: {', '.join(found)}"
            "\n  fix:   say it with options behind --, and a key with --key-file",
            err=True,
        )


def _warn_of_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        click.echo(
            f"claude-proxy: warning: there is no user {name} yet, so nft would not take the rules\n"
            "  fix:   `claude-proxy service install` makes it",
            err=True,
        )


def _show(order: Installation, described: Described) -> None:
    machine, scope = _machine(), described.plan.scope
    for path in order.initial:
        if not machine.path_of(scope, path).exists():
            click.echo(f"would write {machine.path_of(scope, path)} (the shipped allowlist)")
    for unit in order.files:
        click.echo(f"would write {machine.path_of(scope, unit.path)}:")
        click.echo("".join(f"    {line}\n" for line in unit.text.splitlines()))
    manager = Systemd(scope)
    for words in (("daemon-reload",), ("enable", described.plan.unit)):
        click.echo(f"would run {manager.shown(*words)}")
    click.echo(f"would run {manager.shown('restart', described.plan.unit)}")


def _after(described: Described) -> None:
    plan = described.plan
    if described.exposes_key:
        token = "--token-file" if plan.kind is ServiceKind.GATEWAY else "--gateway-token-file"
        click.echo(
            "Every user of this machine can use the key by way of the port; a Unix socket with "
            f"--socket-uid, or {token}, says who may."
        )
    if plan.key_file is not None and plan.kind is ServiceKind.SERVE:
        name = plan.names.credential
        click.echo(f"The allowlist names the key in `credentials`:  from: {{systemd: {name}}}")
    if plan.scope is Scope.SYSTEM and plan.kind is ServiceKind.SERVE:
        state = plan.names.state
        click.echo(f"Clients have to trust {state}/mitmproxy-ca-cert.pem, made at the first start.")
    if plan.scope is Scope.USER and not _lingers():
        click.echo("It runs while you are logged in; `loginctl enable-linger` lets it run on.")


def _lingers() -> bool:
    try:
        return (Path("/var/lib/systemd/linger") / pwd.getpwuid(os.geteuid()).pw_name).exists()
    except KeyError:
        return False


def _what_stays(scope: Scope, kind: str) -> Iterator[str]:
    names = names_of(kind)
    if scope is Scope.USER:
        yield f"Kept: {paths.default_confdir()} and {paths.default_statedir()}"
        return
    held = "CA, audit log" if kind == ServiceKind.SERVE else "the audit log"
    yield f"Kept: {names.state} ({held}) and {names.configuration} (the allowlist)"
    yield f"Kept: the user {names.user}, whom the files in {names.state} belong to"


def _again(found: tuple[InstalledFile, ...]) -> str:
    """Return the command line by which these files are written anew."""
    words = next((one.mark.words for one in found if one.mark is not None), ("service", "install"))
    return shlex.join((paths.PROGRAM, *words))


def _wanted(found: tuple[InstalledFile, ...], scope: Scope) -> dict[Path, str]:
    """Return what the command line in the files' head would write now."""
    words = next((one.mark.words for one in found if one.mark is not None), None)
    if words is None:
        return {}
    try:
        context = install.make_context("install", list(words[2:]))
        plan: ServicePlan = service_plan.describe(_asked(context.params)).plan
        files = files_of(plan)
    except (ConfigError, ValueError, click.ClickException):
        return {}  # options of another version
    machine = _machine()
    return {machine.path_of(scope, unit.path): unit.text for unit in files}


def _running(scope: Scope, found: tuple[InstalledFile, ...]) -> int:
    manager = Systemd(scope)
    if not manager.is_there():
        click.echo("running:    not known; systemd does not run here")
        return EXIT_STOPPED
    units = [one.path.name for one in found if one.path.suffix in {".service", ".socket"}]
    active = {unit: manager.is_active(unit) for unit in units}
    for unit, is_active in active.items():
        click.echo(f"running:    {'yes' if is_active else 'no'} ({unit})")
    return 0 if any(active.values()) else EXIT_STOPPED
