"""Runs a command in a sandbox whose only network is the proxy.

Fail closed: what cannot be had as it was asked for is an error, and COMMAND is not run.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from claude_proxy.cli import completers, options, policies, proxy_settings
from claude_proxy.config import policy_files
from claude_proxy.config.allowlist.model import NetworkMode, PolicyFile
from claude_proxy.config.config_yaml import ConfigFile
from claude_proxy.config.option_table import Subcommand, defaults
from claude_proxy.config.policy_listing import lines_of_policies
from claude_proxy.config.settings import Settings, UnixListen
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import profiles, runner
from claude_proxy.sandbox.plan.model import SandboxSpec
from claude_proxy.sandbox.plan.profile_parser import ProjectRestrictions
from claude_proxy.sandbox.run_spec import RunSpec

EPILOG = """\b
Examples:
  claude-proxy run -- claude                      Claude Code, in the current directory
  claude-proxy run -- claude -p "fix the tests"
  claude-proxy run --allowlist my.yaml --dir ~/src/project -- codex
  claude-proxy run --shell                        a shell, to look around inside
  claude-proxy run --proxy 127.0.0.1:9051 -- npm test
  claude-proxy run --gateway --gateway-provider anthropic -- claude
  claude-proxy run --dry-run -- claude            how bwrap would be started

Inside there is loopback alone; 127.0.0.1:3128 and :1080 lead to the proxy. The project directory is
writable, the rest of the system read-only, the home empty but for what the profile names.
"""

# Options of the run's own proxy that hold for a proxy that is joined too, or for the launcher.
_FOR_ANY_RUN = frozenset(
    {"audit_days", "audit_failure", "audit_size", "confdir", "policy", "statedir"}
)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `run` about COMMAND and its sandbox."""

    command: tuple[str, ...]
    proxy: str | None
    gateway: bool
    name: str | None
    profile: str | None
    dir: Path | None
    allow_ro: tuple[Path, ...]
    allow_rw: tuple[Path, ...]
    pass_env: tuple[str, ...]
    shell: bool
    dry_run: bool
    keep_home: bool
    no_network: bool
    without_seccomp: bool
    verify: bool
    skip_permissions: bool
    verbose: bool


def _listed(given: dict[str, Any]) -> str:
    """Return what `claude-proxy policies` prints."""
    return "\n".join(lines_of_policies(policies.all_policies(given["confdir"])))


@click.command(
    cls=options.TopicalCommand,
    epilog=EPILOG,
    # What follows COMMAND is COMMAND's.
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
)
@click.argument(
    "command",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="COMMAND [ARGS]...",
    shell_complete=completers.command_words,
)
@options.options_of(Subcommand.RUN)
@click.option("--filter-network", is_flag=True, hidden=True, expose_value=False)
@click.option("--unshare-net", is_flag=True, hidden=True, expose_value=False)
@click.option(
    "--list-policies", is_flag=True, help="List the policies that --policy takes, and end."
)
@click.pass_context
def command(context: click.Context, /, **given: Any) -> int:
    """Run a command in a sandbox whose only network is the proxy."""
    if given.pop("list_policies"):
        click.echo(_listed(given))
        return 0
    config = options.config_of(context)
    values = options.in_force(context, given)
    asked = RunOptions(**{field.name: values.pop(field.name) for field in fields(RunOptions)})
    _refuse_clashes(asked)
    if asked.proxy is not None:
        _refuse_for_a_running_proxy(context)
        _tell_of_variables(context, asked.proxy)
    listed = values["allowlist"] is not None
    settings = settings_of(values, config, gateway=_gateway(context, values, asked))
    order = order_of(asked, settings, listed=listed)
    if order.sandbox.unfiltered:
        _say(
            "warning: nothing is filtered and nothing recorded: the policy gives COMMAND this "
            "machine's own network"
        )
    if asked.dry_run:
        click.echo("\n".join(runner.planned_for(order, dry=True).lines()))
        return 0
    return runner.run(order, say=_say)


def _refuse_clashes(asked: RunOptions) -> None:
    if not asked.command and not asked.shell:
        raise click.UsageError("what is to be run? Add COMMAND, or --shell")
    if asked.command and asked.shell:
        raise click.UsageError("--shell runs a shell and COMMAND something else: drop one of them")
    if asked.no_network and asked.proxy is not None:
        raise click.UsageError("--no-network and --proxy ask for opposites: drop one of them")
    if asked.gateway and (asked.no_network or asked.proxy is not None):
        option = "--no-network" if asked.no_network else "--proxy"
        raise click.UsageError(
            f"--gateway is one of the run's own proxy, which there is none of with {option}: drop "
            "one of them"
        )
    if asked.no_network and asked.verify:
        raise click.UsageError("--verify looks at the way out, which --no-network takes away")


def _own_proxy_options(context: click.Context) -> list[options.TableOption]:
    """Return the options that only a proxy of the run's own can obey."""
    return [
        param
        for param in context.command.params
        if isinstance(param, options.TableOption)
        and param.field.section != Subcommand.RUN
        and param.name not in _FOR_ANY_RUN
    ]


def _refuse_for_a_running_proxy(context: click.Context) -> None:
    """Refuse options that only a proxy of the run's own could obey."""
    for param in _own_proxy_options(context):
        if options.is_typed(context, str(param.name)):
            raise ConfigError(
                "the proxy that is joined runs already, and has its own",
                where=f"{param.opts[0]}, --proxy",
                fix=f"drop {param.opts[0]}, or leave --proxy out: the run then has its own proxy",
            )


def _tell_of_variables(context: click.Context, proxy: str) -> None:
    """Say which variables have no effect: they may be meant for `serve`, so they are no error."""
    found = sorted(
        str(param.envvar)
        for param in _own_proxy_options(context)
        if context.get_parameter_source(str(param.name)) is ParameterSource.ENVIRONMENT
    )
    if found:
        names = ", ".join(found)
        _say(f"note: the proxy at {proxy} goes by settings of its own, and not by {names}")


# Replaced by the socket that the runner makes, as options make no gateway that listens nowhere.
_PLACE = UnixListen(Path("/run/claude-proxy/gateway"))


def _gateway(
    context: click.Context, values: Mapping[str, Any], asked: RunOptions
) -> dict[str, Any]:
    """Return the options of `serve` for the run's gateway; refuse those that are for none."""
    if asked.gateway:
        return {"gateway": (_PLACE,), **options.nearest_of_gateway(context, values)}
    options.refuse_options_of_gateway(context, fix="add --gateway")
    return {"gateway": ()}


def settings_of(
    values: Mapping[str, Any], config: ConfigFile, *, gateway: Mapping[str, Any]
) -> Settings:
    """Return the settings of the run's own proxy.

    Where a proxy listens, whom it serves and what it prints is settled: on a socket that nobody
    else can reach, and nothing. The variables and keys about that are for `serve`.
    """
    whole = {**defaults(Subcommand.SERVE), **values, **gateway}
    settings = proxy_settings.settings_of(whole, config)
    settings = replace(settings, credentials=None)
    if settings.gateway is not None:
        settings = replace(settings, gateway=replace(settings.gateway, listen=()))
    if settings.jsonl == Path("-"):
        raise ConfigError(
            "standard output is COMMAND's", where="--jsonl -", fix="name a file with --jsonl"
        )
    # The proxy of a run works in a directory of its own.
    absolute = {
        field.name: getattr(settings, field.name).absolute()
        for field in fields(settings)
        if isinstance(getattr(settings, field.name), Path)
    }
    if settings.learn is not None:
        absolute["learn"] = (settings.learn[0], settings.learn[1].absolute())
    return replace(settings, **absolute)


def order_of(asked: RunOptions, settings: Settings, *, listed: bool = False) -> RunSpec:
    """Return what is to be run, and how; `listed` if an allowlist was asked for by name."""
    project = _project(asked.dir)
    own_profiles = settings.confdir / profiles.DIRECTORY
    name = asked.profile or (
        profiles.of_command(asked.command[0], own_profiles) if asked.command else "shell"
    )
    settings, file, name = _chosen(asked, settings, name, listed=listed, project=project)
    filtered = file is None or file.network is NetworkMode.PROXY
    _refuse_for_no_proxy(asked, settings, filtered=filtered)
    profile = profiles.load(name, own_profiles)
    words = asked.command
    if asked.skip_permissions and words:
        if not profile.unattended:
            raise ConfigError(
                f"the profile {name!r} does not know how COMMAND is told not to ask",
                where="--skip-permissions",
                fix="leave it out, or add `unattended` to a profile of your own",
            )
        words = (words[0], *profile.unattended, *words[1:])
    path = profiles.find_project_file(project)
    restrictions = profiles.read_restrictions(path) if path else ProjectRestrictions()
    has_network = restrictions.network and not asked.no_network
    unfiltered = has_network and file is not None and file.network is NetworkMode.OPEN
    if restrictions.denies and (unfiltered or (has_network and asked.proxy is not None)):
        raise ConfigError(
            "only a proxy of the run's own can deny what the project's file denies",
            where=f"{path}, deny",
            fix="drop --proxy or --policy, or take `deny` out of the file",
        )
    if unfiltered and asked.without_seccomp:
        raise ConfigError(
            "on this machine's own network its abstract Unix sockets would be in reach, those of "
            "agents and of the session bus too",
            where="--policy, --without-seccomp",
            fix="drop --without-seccomp, or choose another policy",
        )
    wish = SandboxSpec(
        command=words,
        project=project,
        profile=profile,
        allow_ro=_absolute(asked.allow_ro),
        allow_rw=_absolute(asked.allow_rw),
        pass_env=asked.pass_env,
        shell=asked.shell,
        keep_home=asked.keep_home,
        network=has_network and filtered,
        unfiltered=unfiltered,
        seccomp=not asked.without_seccomp,
        hide=restrictions.hide,
        read_only=restrictions.read_only,
    )
    return RunSpec(
        wish,
        replace(settings, narrowing=path),
        name=asked.name,
        join=asked.proxy,
        verify=asked.verify,
        show_plan=asked.verbose,
    )


def _chosen(
    asked: RunOptions, settings: Settings, profile: str, *, listed: bool, project: Path
) -> tuple[Settings, PolicyFile | None, str]:
    """Return the settings with the run's policy, its file, and the profile; no file: --proxy."""
    if asked.proxy is not None:
        if settings.policy is not None:
            raise ConfigError(
                "the proxy that is joined has a policy of its own",
                where="--policy, --proxy",
                fix="drop one of them",
            )
        return settings, None, profile
    policy_files.refuse_groups_file(settings.confdir)
    own_profiles = settings.confdir / profiles.DIRECTORY
    choice = policy_files.choose(
        option=settings.policy,
        has_allowlist_option=listed,
        projects={},
        project=Path(os.path.realpath(project)),
        profile=(profile, profiles.load(profile, own_profiles).policy),
    )
    settings = replace(settings, policy=choice.policy)
    file = policy_files.policy_file_for(settings)
    if file.network is not NetworkMode.PROXY:  # the allowlist's credentials stay outside then, too
        settings = replace(settings, policy=None)
    if asked.profile is None and file.profile is not None and not choice.by_profile:
        profile = file.profile
    return settings, file, profile


def _refuse_for_no_proxy(asked: RunOptions, settings: Settings, *, filtered: bool) -> None:
    """Refuse what only a proxy can do where the policy has none."""
    if filtered:
        return
    given = {
        "--verify": asked.verify,
        "--learn": settings.learn is not None,
        "--gateway": asked.gateway,
    }
    option = next((option for option, is_given in given.items() if is_given), None)
    if option is not None:
        raise ConfigError(
            "the policy has COMMAND run without a proxy",
            where=f"--policy, {option}",
            fix=f"drop {option}, or choose another policy",
        )


def _project(given: Path | None) -> Path:
    try:
        path = Path.cwd() if given is None else Path(os.path.abspath(given))  # noqa: PTH100 - no links
        if not path.is_dir():
            raise ClaudeProxyError(
                "the project is not a directory" if path.exists() else "there is no such directory",
                where=f"--dir {given}",
                fix="name the directory of the project",
            )
        os.listdir(path)  # noqa: PTH208 - only whether it can be
    except OSError as error:
        raise ClaudeProxyError(
            f"the project directory cannot be used: {(error.strerror or '').lower()}",
            where="--dir" if given is None else f"--dir {given}",
            fix="name a directory that you may enter",
        ) from error
    return path


def _absolute(paths: Iterable[Path]) -> tuple[Path, ...]:
    # Without following links: what they lead to is for the plan to judge.
    expanded = (path.expanduser() for path in paths)
    return tuple(Path(os.path.abspath(path)) for path in expanded)  # noqa: PTH100


def _say(line: str) -> None:
    """Print a line that is no output of COMMAND's."""
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
    try:
        sys.stderr.write(f"claude-proxy: {text}\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody reads it: no reason to stop
