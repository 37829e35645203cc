"""The command `container run`: a container whose only network is the proxy, and CMD in it.

Fail closed: what is not available as it was asked for is an error, and nothing is run.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from claude_proxy.cli import container_presets, options, paths, run
from claude_proxy.cli.container_options import CommandAfterDashes, command_after_dashes
from claude_proxy.cli.run_choices import RunOptions, run_spec_of
from claude_proxy.config import policy_files
from claude_proxy.config.option_table import Subcommand
from claude_proxy.deferred.data_classes import field_names, replace
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container import container_names, launcher, store
from claude_proxy.sandbox.container.engine import Engine, ImageQuestion
from claude_proxy.sandbox.container.plan.model import ContainerSpec, EngineKind, Way
from claude_proxy.sandbox.run_spec import RunSpec

EPILOG = """\b
Examples:
  claude-proxy container run --preset claude      Claude Code; see `container build`
  claude-proxy container run --image node:22 -- npm test
  claude-proxy container run ~/src/project --image agents --name web -- claude
  claude-proxy container run --image agents --detach -- sleep 1d
  claude-proxy container run --image agents --rm -- sh -c 'curl https://mozilla.org'
  claude-proxy container run --image agents --clone --name web -- claude     then `changes web`
  claude-proxy container run --image agents --dry-run -- claude

Inside there is only loopback; 127.0.0.1:3128 and :1080 lead to the proxy. DIR is at /workspace, the
root read-only, the home a volume of the container's own. It stays until `container rm`.
Precedence: option, CLAUDE_PROXY_* variable, config.yaml in --confdir, default.
"""

# Options of `run` about what a container has in another way, or does not have.
_NOT_HERE = (
    *("proxy", "proxy_auth_file", "shell", "show_home", "share_agent_home"),
    *("no_network", "without_seccomp", "unix_sockets", "verify", "skip_permissions"),
    "profile",
)
# What the table says in words that are true of `run` alone.
_TEXTS = {
    "name": "The name of the container, and of its run in the audit log.  [default: after IMAGE]",
    "dry_run": "Print the plan of the container: its way, its mounts, how the engine would be "
    "called; make nothing.",
    "verbose": "Print the plan of the container before it is made.",
    "max_processes": "How many processes and threads there may be in the container at a time.",
    "max_memory": "How much memory all processes of the container may use together; if they use "
    "more, the largest is killed.  [default: three quarters of the machine's]",
    "tmpfs_size": "How large each file system in memory may grow: /tmp, /var/tmp, /run and "
    "/dev/shm. The home is a volume, which it does not limit.  "
    "[default: a quarter of the machine's memory]",
}


class RunCommand(CommandAfterDashes, options.TopicalCommand):
    """`container run`, whose help lists the options below headings."""


@click.command(
    name="run",
    cls=RunCommand,
    epilog=EPILOG,
    options_metavar="[DIR] [OPTIONS] [-- CMD [ARGS]...]",
)
@click.argument("directory", required=False, metavar="", type=click.Path(path_type=Path))
@click.option(
    "--image", metavar="IMAGE", help="The image, by name or id; it must be on this machine."
)
@click.option(
    "--engine",
    type=click.Choice([kind.value for kind in EngineKind]),
    help="The program that makes containers.  [default: the first that is installed]",
)
@click.option(
    "--way",
    type=click.Choice([way.value for way in Way]),
    help="How the proxy's sockets come into its network.  [default: the first that can be used]",
)
@container_presets.preset_options
@click.option("--detach", "-d", is_flag=True, help="Run it in the background.")
@click.option("--rm", "remove", is_flag=True, help="Remove it, with its home, when CMD has ended.")
@click.option(
    "--tty/--no-tty",
    "terminal",
    default=None,
    help="Give CMD a terminal.  [default: if this command has one]",
)
@click.option(
    "--cpus",
    type=click.FloatRange(min=0, min_open=True),
    metavar="NUMBER",
    help="How many processors it may use.  [default: all]",
)
@options.options_of(Subcommand.RUN, but=_NOT_HERE, texts=_TEXTS)
@click.pass_context
def command(context: click.Context, /, **given: Any) -> int:
    """Make a container and run a command in it."""
    if not given["dry_run"]:
        container_presets.build_first(context, given)
    engine, asked = begin(given)
    try:
        with container_presets.naming_the_build(given):
            return _run(context, given, engine, asked)
    finally:
        asked.drop()


def _run(
    context: click.Context, given: dict[str, Any], engine: Engine, asked: ImageQuestion
) -> int:
    spec = spec_of(context, given)
    if given["dry_run"]:
        prepared = launcher.prepare(spec, engine, asked)
        plan, _ = launcher.plan_of(prepared, dry=True)
        plan, _ = launcher.way_of(prepared, plan, dry=True)
        click.echo("\n".join(plan.lines()))
        return 0
    run.settle(spec.run)
    return launcher.run(spec, say=run.say, engine=engine, asked=asked)


def begin(given: Mapping[str, Any]) -> tuple[Engine, ImageQuestion]:
    """Find the engine, and ask it for the image, while the options are read."""
    image = container_presets.image_of(given)
    kind = given["engine"]
    engine = Engine.find(None if kind is None else EngineKind(kind), os.environ)
    statedir = given["statedir"] or paths.default_statedir()
    return engine, engine.begin_image(image, store.cache_in(statedir))


def spec_of(context: click.Context, given: Mapping[str, Any]) -> ContainerSpec:
    """Return what the options ask for."""
    context.with_resource(policy_files.readings_kept())
    config = options.config_of(context)
    values = options.in_force(context, given)
    sources = run.policy_sources(context, values)
    command = command_after_dashes(context)
    own = {name: values.pop(name) for name in _OWN}
    image = container_presets.image_of(own)
    _refuse_command_as_directory(own["directory"], command)
    if own["directory"] is not None and options.is_typed(context, "dir"):
        raise click.UsageError("DIR is named twice: drop --dir")
    chosen = {name: values.pop(name) for name in field_names(RunOptions) if name in values}
    chosen["dir"] = own["directory"] or chosen["dir"]
    run_options = RunOptions(**{**chosen, "command": command})
    if run_options.branch is not None and not run_options.clone:
        raise click.UsageError("--branch names the branch of a clone: add --clone")
    run_options = container_presets.chosen(own, run_options)
    gateway = run.gateway_options(context, values, run_options)
    settings = run.settings_of(values, config, gateway=gateway)
    name = chosen["name"] or container_names.fresh(image, settings.statedir)
    run_spec = run_spec_of(replace(run_options, name=name), settings, sources)
    run_spec = container_presets.settled(own, run_spec)
    if run_spec.sandbox.unfiltered:
        raise ConfigError(
            "a container has no network but the proxy",
            where="--policy",
            fix="choose a policy whose network is the proxy; or use `claude-proxy run`",
        )
    terminal = own["terminal"]
    if terminal is None:
        terminal = not own["detach"] and sys.stdin.isatty() and sys.stdout.isatty()
    return ContainerSpec(
        run_spec,
        image=image,
        yolo=own["yolo"],
        name=name,
        detach=own["detach"],
        remove=own["remove"],
        terminal=terminal,
        engine=None if own["engine"] is None else EngineKind(own["engine"]),
        way=None if own["way"] is None else Way(own["way"]),
        cpus=own["cpus"],
        words=words_again(context, run_spec, name, command),
    )


_NOT_AGAIN = frozenset({"clone", "dir", "dry_run", "help", "name"})
_OWN = (
    *container_presets.NAMES,
    "directory",
    "image",
    "engine",
    "way",
    "detach",
    "remove",
    "terminal",
    "cpus",
)


def words_again(
    context: click.Context, run_spec: RunSpec, name: str, command: Sequence[str]
) -> tuple[str, ...]:
    """Return the options that were typed, by which `start` reads policy and settings again.

    Whether it works in a clone is not read again.
    """
    words = [str(run_spec.sandbox.project), "--name", name]
    words.append("--clone" if run_spec.clone else "--no-clone")
    for param in context.command.params:
        key = str(param.name)
        if not isinstance(param, click.Option) or key in _NOT_AGAIN:
            continue
        if not options.is_typed(context, key):
            continue
        value = context.params[key]
        if param.is_flag:
            names = param.opts if value else param.secondary_opts
            words.append(max(names, key=len))
            continue
        for one in value if param.multiple else (value,):
            text = str(one.expanduser().absolute()) if isinstance(one, Path) else str(one)
            words.append(f"{max(param.opts, key=len)}={text}")
    return (*words, "--", *command)


def _refuse_command_as_directory(directory: Path | None, command: Sequence[str]) -> None:
    if directory is None or directory.expanduser().is_dir():
        return
    if command:
        raise ConfigError(
            "the project is not a directory"
            if directory.expanduser().exists()
            else "there is no such directory",
            where=str(directory),
            fix="name the directory of the project",
        )
    raise click.UsageError(
        f'"{directory}" is not a directory; to run it in the container, write -- before it'
    )
