"""`claude-proxy service`: install, show and remove a service that keeps the proxy running.

Keeps "secrets stay outside": the files name the file that holds a key, never the key. `install`
writes exactly what `print` prints.
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
from claude_proxy.cli.groups import Group
from claude_proxy.cli.param_types import ParsedType
from claude_proxy.cli.service_plan import PlannedService, ServiceOptions
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
EXIT_STOPPED, EXIT_MISSING = 3, 4  # the same as `systemctl status`

EXAMPLES = """\b
Examples:
  claude-proxy service install                        a service of your own, started at login
  sudo claude-proxy service install --nftables        a system service with packet filter rules
  sudo claude-proxy service install --socket-activated -- --listen unix:/run/claude-proxy/p.sock \\
      --socket-uid agent
  sudo claude-proxy service install --kind gateway --key-file /etc/llm.key -- --provider anthropic
  claude-proxy service print --init launchd > ~/Library/LaunchAgents/claude-proxy.plist
  claude-proxy service status

Options after -- are those of `serve`, or of `gateway` with --kind gateway.
"""


class Init(StrEnum):
    """The service manager."""

    SYSTEMD = "systemd"
    LAUNCHD = "launchd"


def _address(text: str) -> IPv4Address | IPv6Address:
    """Parse an address for a packet filter rule."""
    try:
        found = ip_address(text)
    except ValueError:
        raise ValueError(f'"{text}" is not an IP address') from None
    if isinstance(found, IPv6Address) and found.scope_id is not None:
        raise ValueError(f'"{text}" names an interface, which the rules do not support')
    return found


_ADDRESS = ParsedType(
    ParsedText("address", _address, "write it like 192.0.2.53 or 2001:db8::53", "192.0.2.53")
)


def _options_of_command(
    context: click.Context, _param: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Complete the options after --."""
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
    """Add the options that select the service."""
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
        help="A system service, or one of your own.  [default: --system for root]",
    )(function)


def _described(function: Any) -> Any:
    """Add the options that describe the service."""
    decorators: tuple[Decorate, ...] = (
        click.option(
            "--socket-activated",
            is_flag=True,
            help="Let systemd listen, and start the service for the first client.",
        ),
        click.option(
            "--key-file",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="PATH",
            help="Let systemd pass the key in this file to the service (LoadCredential=), which "
            "need not be able to read the file.",
        ),
        click.option(
            "--nftables",
            is_flag=True,
            help="Add packet filter rules: the service's user can reach only this machine, name "
            "servers and HTTPS. `print` prints only the rules.",
        ),
        click.option(
            "--upstream-port",
            type=click.IntRange(1, 65535),
            multiple=True,
            metavar="PORT",
            help="Let --nftables allow this port as well as 443; repeatable.",
        ),
        click.option(
            "--dns-server",
            type=_ADDRESS,
            multiple=True,
            metavar="ADDRESS",
            help="Let --nftables allow only this name server; repeatable.  [default: any]",
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


_dry_run = click.option(
    "--dry-run", is_flag=True, help="Print what would be done, and change nothing."
)
_init = click.option(
    "--init",
    type=click.Choice([init.value for init in Init]),
    default=Init.LAUNCHD.value if sys.platform == "darwin" else Init.SYSTEMD.value,
    show_default=True,
    help="The service manager; files for launchd are only printed.",
)


@click.group(cls=Group, name="service", epilog=EXAMPLES)
def command() -> None:
    """Install the proxy as a service of systemd or launchd."""


@command.command(name="print", epilog=EXAMPLES)
@_which
@_described
@_init
def print_(*, init: str, **given: Any) -> None:
    """Print the files of a service; install nothing."""
    options = _options(given)
    _warn_of_variables(options.kind)
    if Init(init) is Init.LAUNCHD:
        if given["system"]:
            raise ConfigError(
                "only a user service is supported with launchd (~/Library/LaunchAgents)",
                where="--system",
                fix="leave it out",
            )
        click.echo(_launchd(options), nl=False)
        return
    described = _checked(service_plan.describe(options))
    _warn(described)
    files = _files(described)
    if options.nftables:
        _warn_of_user(described.plan.names.user)
        click.echo(next(unit.text for unit in files if unit.path.endswith(".nft")), nl=False)
        return
    click.echo("\n".join(f"# {unit.path}\n{unit.text}" for unit in files), nl=False)


@command.command(epilog=EXAMPLES)
@_which
@_described
@_init
@click.option(
    "--force", is_flag=True, help="Overwrite files that claude-proxy did not write or that changed."
)
@_dry_run
def install(*, init: str, force: bool, dry_run: bool, **given: Any) -> None:
    """Install a service, enable it at boot, and start it."""
    if Init(init) is Init.LAUNCHD:
        raise ConfigError(
            "files for launchd can only be printed",
            where="--init launchd",
            fix="claude-proxy service print --init launchd > "
            "~/Library/LaunchAgents/claude-proxy.plist, and `launchctl load` it",
        )
    options = _options(given)
    _warn_of_variables(options.kind)
    described = _checked(service_plan.describe(options))
    installation = Installation(
        described.plan,
        _words_of(described),
        __version__,
        initial=_laid(described),
        directories=_directories(options.scope),
    )
    if dry_run:
        _warn(described)
        _show(installation, described)
        return
    refuse_other_user(_machine(), options.scope, "install")
    if described.problems:
        raise ConfigErrors(described.problems)
    if options.key_file is not None:
        service_plan.check_key_file(options.key_file, options.scope)
    Installer(_machine(), options.scope, click.echo).install(installation, force=force)
    _after(described)


@command.command()
@_which
@click.option("--force", is_flag=True, help="Also remove files that were changed.")
@_dry_run
def uninstall(*, system: bool | None, kind: str, force: bool, dry_run: bool) -> int:
    """Stop a service and remove its files; its state stays."""
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
    """Show whether a service is installed, up to date and running."""
    scope, names = _scope(system), names_of(kind)
    found = installed_files(_machine(), names, scope)
    if not found:
        click.echo(f"installed:  no ({names.service}; looked for --{scope})")
        return EXIT_MISSING
    wanted = _wanted(found, scope)
    states = {one.path: state_of(one, wanted) for one in found}
    for path, state in states.items():
        click.echo(f"installed:  {path} ({state})")
    for path in sorted(wanted.keys() - states.keys()):
        states[path] = FileState.MISSING
        click.echo(f"installed:  {path} ({FileState.MISSING})")
    current = all(state is FileState.CURRENT for state in states.values())
    if not current:
        click.echo(f"up to date: no (claude-proxy {__version__}); fix: {_again(found)}")
    else:
        click.echo(f"up to date: yes (claude-proxy {__version__})")
    running = _running(scope, found)
    return running or (0 if current else EXIT_STALE)


# --- what was options


def _scope(system: bool | None) -> Scope:  # noqa: FBT001 - as click hands it over
    if system is None:
        return service_plan.default_scope()
    return Scope.SYSTEM if system else Scope.USER


def _options(given: Mapping[str, Any]) -> ServiceOptions:
    key_file: Path | None = given["key_file"]
    return ServiceOptions(
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
    # Next to the configuration directory, which honours XDG_CONFIG_HOME as systemd does.
    units = paths.default_confdir().parent / "systemd" / "user"
    return InstallRoot(Path("/"), units, os.geteuid())


def _launchd(options: ServiceOptions) -> str:
    if options.socket_activated or options.nftables:
        raise ConfigError(
            "socket activation and packet filter rules are not supported with launchd",
            where="--socket-activated, --nftables",
            fix="leave them out",
        )
    described = service_plan.describe(replace(options, scope=Scope.USER, key_file=None))
    key = () if options.key_file is None else (service_plan.key_file_word(options),)
    try:
        return plist_of(described.plan, key, home=str(Path.home()))
    except ValueError as error:
        raise _unwritable(error) from error


def _unwritable(error: ValueError) -> ConfigError:
    return ConfigError(
        f"the file cannot be written: {error}",
        where="the options of the service",
        fix="use names and paths of printable characters",
    )


def _checked(described: PlannedService) -> PlannedService:
    """Return `described`; ConfigError if one of its values cannot be written to a file."""
    try:
        _files(described)
    except ValueError as error:
        raise _unwritable(error) from error
    return described


def _files(described: PlannedService) -> tuple[Unit, ...]:
    words = _words_of(described)
    return tuple(
        Unit(unit.path, marked(unit.text, __version__, words)) for unit in files_of(described.plan)
    )


def _words_of(described: PlannedService) -> tuple[str, ...]:
    return ("service", "install", *described.spelled)


def _laid(described: PlannedService) -> dict[str, str]:
    if not described.own_allowlist:
        return {}
    return {described.plan.names.allowlist: paths.read_allowlist(paths.shipped_allowlist())}


def _directories(scope: Scope) -> tuple[Path, ...]:
    if scope is Scope.SYSTEM:
        return ()  # systemd creates them
    return paths.default_confdir(), paths.default_statedir()


# --- what is said


def _warn(described: PlannedService) -> None:
    for problem in described.problems:
        click.echo(f"claude-proxy: warning: {problem.what}", err=True)
        click.echo(f"  where: {problem.where}\n  fix:   {problem.fix}", err=True)


def _warn_of_variables(kind: ServiceKind) -> None:
    """Warn about variables of this shell that the service will not see."""
    command: click.Command = import_module(f"claude_proxy.cli.{kind}").command
    known = {str(param.envvar) for param in command.params if param.envvar}
    known |= set(gateway_settings.VARIABLES if kind is ServiceKind.GATEWAY else ())
    if found := sorted(name for name in known if os.environ.get(name)):
        click.echo(
            f"claude-proxy: warning: the service will not see these variables: {', '.join(found)}"
            "\n  fix:   use options after --, and --key-file for a key",
            err=True,
        )


def _warn_of_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        click.echo(
            f"claude-proxy: warning: there is no user {name} yet, so nft will reject the rules\n"
            "  fix:   `claude-proxy service install` creates the user",
            err=True,
        )


def _show(installation: Installation, described: PlannedService) -> None:
    machine, scope = _machine(), described.plan.scope
    for path in installation.initial:
        if not machine.path_of(scope, path).exists():
            click.echo(f"would write {machine.path_of(scope, path)} (the shipped allowlist)")
    for unit in installation.files:
        click.echo(f"would write {machine.path_of(scope, unit.path)}:")
        click.echo("".join(f"    {line}\n" for line in unit.text.splitlines()))
    manager = Systemd(scope)
    for words in (("daemon-reload",), ("enable", described.plan.unit)):
        click.echo(f"would run {manager.shown(*words)}")
    click.echo(f"would run {manager.shown('restart', described.plan.unit)}")


def _after(described: PlannedService) -> None:
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
    """Return the command line that writes these files again."""
    words = next((one.mark.words for one in found if one.mark is not None), ("service", "install"))
    return shlex.join((paths.PROGRAM, *words))


def _wanted(found: tuple[InstalledFile, ...], scope: Scope) -> dict[Path, str]:
    """Return what the command line in the files' head would write now."""
    words = next((one.mark.words for one in found if one.mark is not None), None)
    if words is None:
        return {}
    try:
        context = install.make_context("install", list(words[2:]))
        plan: ServicePlan = service_plan.describe(_options(context.params)).plan
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
