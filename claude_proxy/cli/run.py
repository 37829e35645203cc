"""The command `run`: a command in a sandbox whose only network is the proxy.

Fail closed: what is not available as it was asked for is an error, and COMMAND is not run.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from claude_proxy.cli import (
    completers,
    options,
    project_agreement,
    proxy_settings,
)
from claude_proxy.cli.run_choices import RunOptions, run_spec_of
from claude_proxy.config import policy_files
from claude_proxy.config.config_yaml import ConfigFile
from claude_proxy.config.option_table import Subcommand, defaults
from claude_proxy.config.policy_files import PolicySources
from claude_proxy.config.settings import Settings, UnixListen
from claude_proxy.deferred.data_classes import field_names, replace
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.run_spec import RunSpec

EPILOG = """\b
Examples:
  claude-proxy run -- claude                      Claude Code, in the current directory
  claude-proxy run -- claude -p "fix the tests"
  claude-proxy run --allowlist my.yaml --dir ~/src/project -- codex
  claude-proxy run --shell                        a shell, to look around inside
  claude-proxy run --proxy 127.0.0.1:9051 -- npm test
  claude-proxy run --gateway --gateway-provider anthropic -- claude
  claude-proxy run --clone -- claude              in a clone; see `claude-proxy changes`
  claude-proxy run --dry-run -- claude            how bwrap would be started
  claude-proxy run --show-home .vimrc -- vim      a file of the home too, read-only
  claude-proxy run --reset-home -- claude         without what is kept for this project

Inside there is only loopback; 127.0.0.1:3128 and :1080 lead to the proxy. The project directory is
writable, the rest of the system read-only, the home empty except for what the profile names.
Precedence: option, CLAUDE_PROXY_* variable, config.yaml in --confdir, default.
"""

# Options of the run's own proxy that hold for a proxy that is joined too, or for the launcher.
_FOR_ANY_RUN = frozenset(
    {"audit_days", "audit_failure", "audit_size", "confdir", "policy", "statedir"}
)


def _listed(given: dict[str, Any]) -> str:
    """Return what `claude-proxy policies` prints."""
    from claude_proxy.cli import policies  # noqa: PLC0415 - a list, and no run
    from claude_proxy.config.policy_listing import lines_of_policies  # noqa: PLC0415 - as above

    return "\n".join(lines_of_policies(policies.all_policies(given["confdir"])))


def _refuse_keep_home(_context: click.Context, _param: click.Parameter, given: bool) -> None:  # noqa: FBT001 - click's
    if given:
        raise click.UsageError(
            "the whole home is not shown any more, as what is secret in it cannot be known: name "
            "what is needed with --show-home PATH (repeatable), or COMMAND's own in a profile"
        )


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
    "--keep-home",
    "--full-home-access",
    is_flag=True,
    hidden=True,
    expose_value=False,
    callback=_refuse_keep_home,
)
@click.option(
    "--list-policies", is_flag=True, help="List the policies that --policy takes, and end."
)
@click.option(
    "--list-homes",
    is_flag=True,
    help="List the projects for whose agents a home is kept, and end.",
)
@click.option(
    "--reset-home",
    is_flag=True,
    help="Forget what is kept for the agents of this project; then run COMMAND, if there is one.",
)
@click.pass_context
def command(context: click.Context, /, **given: Any) -> int:
    """Run a command in a sandbox whose only network is the proxy."""
    list_homes, reset_home = given.pop("list_homes"), given.pop("reset_home")
    if given.pop("list_policies"):
        click.echo(_listed(given))
        return 0
    context.with_resource(policy_files.readings_kept())
    config = options.config_of(context)
    values = options.in_force(context, given)
    if list_homes:
        _list_homes(values["statedir"])
        return 0
    if reset_home and not (values["command"] or values["shell"]):
        _reset_home(values["statedir"], values["dir"])
        return 0
    sources = policy_sources(context, values)
    run_options = RunOptions(**{name: values.pop(name) for name in field_names(RunOptions)})
    _refuse_clashes(run_options)
    if run_options.proxy is None and options.is_typed(context, "proxy_auth_file"):
        raise click.UsageError("--proxy-auth-file is for a proxy that is joined: add --proxy")
    if run_options.proxy is not None:
        _refuse_for_a_running_proxy(context)
        _warn_about_ignored(context, run_options.proxy, sources)
    settings = settings_of(values, config, gateway=gateway_options(context, values, run_options))
    spec = run_spec_of(run_options, settings, sources)
    if spec.sandbox.unfiltered:
        say(
            "warning: nothing is filtered and nothing recorded: the policy gives COMMAND this "
            "machine's own network"
        )
    if run_options.dry_run and reset_home:
        raise click.UsageError("--dry-run changes nothing: drop --reset-home")
    from claude_proxy.sandbox import runner  # noqa: PLC0415 - `container` needs the rest of this

    if run_options.dry_run:
        click.echo("\n".join((*_lines_of_ports(spec), *runner.planned_for(spec, dry=True).lines())))
        return 0
    settle(spec)
    if reset_home:
        _reset_home(settings.statedir, spec.sandbox.project)
    return runner.run(spec, say=say)


def _lines_of_ports(spec: RunSpec) -> tuple[str, ...]:
    if not spec.maps_ports:
        return ()
    from claude_proxy.sandbox import run_ports  # noqa: PLC0415 - few runs map ports

    return tuple(run_ports.lines(spec))


def settle(spec: RunSpec) -> None:
    """Have the owner see what has changed in the project's file before it counts."""
    project = spec.sandbox.project
    text = project_agreement.settle(project, spec.settings.statedir, say)
    if text != spec.settings.narrowing_text:
        raise project_agreement.changed_meanwhile(project)


def _reset_home(statedir: Path, directory: Path | None) -> None:
    from claude_proxy.cli import homes  # noqa: PLC0415 - most runs start without it

    say(homes.reset(statedir, directory))


def _list_homes(statedir: Path) -> None:
    from claude_proxy.cli import homes  # noqa: PLC0415 - most runs start without it
    from claude_proxy.sandbox import agent_home  # noqa: PLC0415 - as above

    if found := agent_home.listed(statedir):
        click.echo("\n".join(homes.lines_of(found)))
    else:
        say("no homes are kept")


def _refuse_clashes(given: RunOptions) -> None:
    if not given.command and not given.shell:
        raise click.UsageError("nothing to run: add COMMAND, or --shell")
    if given.command and given.shell:
        raise click.UsageError("--shell runs a shell and COMMAND something else: drop one of them")
    if given.branch is not None and not given.clone:
        raise click.UsageError("--branch names the branch of a clone: add --clone")
    if given.no_network and given.proxy is not None:
        raise click.UsageError("--no-network and --proxy exclude each other: drop one of them")
    if given.gateway and (given.no_network or given.proxy is not None):
        option = "--no-network" if given.no_network else "--proxy"
        raise click.UsageError(
            f"--gateway needs a proxy of the run's own, and {option} leaves none: drop one of them"
        )
    if given.no_network and given.verify:
        raise click.UsageError(
            "--verify checks the way out, which --no-network removes: drop one of them"
        )


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


def _warn_about_ignored(context: click.Context, proxy: str, sources: PolicySources) -> None:
    """Say which variables have no effect: they may be meant for `serve`, so they are no error."""
    found = sorted(
        str(param.envvar)
        for param in _own_proxy_options(context)
        if context.get_parameter_source(str(param.name)) is ParameterSource.ENVIRONMENT
    )
    if sources.configured is not None or sources.configures_allowlist or sources.projects:
        found.append("the policy in config.yaml")
    if found:
        names = ", ".join(found)
        say(f"note: the proxy at {proxy} has its own settings, and ignores {names}")


# Replaced by the socket that the runner makes, as options make no gateway that listens nowhere.
_PLACE = UnixListen(Path("/run/claude-proxy/gateway"))


def gateway_options(
    context: click.Context, values: Mapping[str, Any], given: RunOptions
) -> dict[str, Any]:
    """Return the options of `serve` for the run's gateway; refuse those that are for none."""
    if given.gateway:
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
    if settings.gateway is not None:
        settings = replace(settings, gateway=replace(settings.gateway, listen=()))
    if settings.jsonl == Path("-"):
        raise ConfigError(
            "standard output is COMMAND's", where="--jsonl -", fix="name a file with --jsonl"
        )
    # The proxy of a run works in a directory of its own.
    absolute: dict[str, Any] = {
        name: _absolute(getattr(settings, name))
        for name in field_names(Settings)
        if isinstance(getattr(settings, name), Path)
    }
    if settings.learn is not None:
        absolute["learn"] = (settings.learn[0], _absolute(settings.learn[1]))
    return replace(settings, **absolute)


def _absolute(path: Path) -> Path:
    """Return an absolute path without `..`, which must not count as a part of the project.

    What is before it is resolved, as the system does: it may be a symbolic link.
    """
    path = path.absolute()
    if ".." not in path.parts:
        return path
    last = len(path.parts) - path.parts[::-1].index("..")
    head = os.path.realpath(Path(*path.parts[:last]))
    return Path(head, *path.parts[last:])


def policy_sources(context: click.Context, values: Mapping[str, Any]) -> PolicySources:
    """Return what names the policy: options and variables, and apart from them config.yaml."""
    by_option = {name: options.is_given(context, name) for name in ("policy", "allowlist")}
    policy, allowlist = values["policy"], values["allowlist"]
    return PolicySources(
        option=policy if by_option["policy"] else None,
        has_allowlist_option=allowlist is not None and by_option["allowlist"],
        configured=None if by_option["policy"] else policy,
        configures_allowlist=allowlist is not None and not by_option["allowlist"],
        projects=options.config_of(context).projects,
    )


def say(line: str) -> None:
    """Print a line of our own, beside the output of COMMAND."""
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
    try:
        sys.stderr.write(f"claude-proxy: {text}\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody reads it: no reason to stop
