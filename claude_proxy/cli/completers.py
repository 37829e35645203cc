"""Shell completion of values: policies, profiles, providers, pinned credentials, COMMAND.

It never prints, fails or starts anything; where nothing can be found it offers nothing.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from claude_proxy.cli import paths
from claude_proxy.errors import ClaudeProxyError

_RUNS_OFFERED = 100


def policies(context: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the policies, built-in and own."""
    from claude_proxy.config import policy_files  # noqa: PLC0415 - only completion needs it
    from claude_proxy.config.owner_files import OwnerFiles  # noqa: PLC0415 - as above

    files = OwnerFiles(_confdir(context))
    found = []
    for name in policy_files.policy_names(files):
        if name.startswith(begun):
            help_ = None
            with suppress(ClaudeProxyError, OSError):
                help_ = policy_files.read_named(files, name).description
            found.append(CompletionItem(name, help=help_))
    return found


def policies_and_files(
    context: click.Context, param: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Return the policies, the words for the lists, and what tells the shell to add files."""
    if os.sep in begun:
        return [CompletionItem(begun, type="file")]
    words = [word for word in ("allowlist", "shipped", "running") if word.startswith(begun)]
    found = [*policies(context, param, begun), *map(CompletionItem, words)]
    return found or [CompletionItem(begun, type="file")]


def presets(context: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the presets, shipped and own."""
    from claude_proxy.config.owner_files import OwnerFiles  # noqa: PLC0415 - as above

    known = OwnerFiles(_confdir(context)).preset_names()
    return [CompletionItem(name) for name in known if name.startswith(begun)]


def methods(_context: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the methods that a rule can name."""
    from claude_proxy.policy.methods import METHODS  # noqa: PLC0415 - only completion needs it

    return [CompletionItem(name) for name in METHODS if name.startswith(begun.upper())]


def providers(context: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the providers that a gateway can have."""
    from claude_proxy.config import config_file  # noqa: PLC0415 - only completion needs it
    from claude_proxy.config.providers import BUILT_IN  # noqa: PLC0415 - only completion needs it

    with suppress(ClaudeProxyError, OSError):
        known = {**BUILT_IN, **config_file.read(_confdir(context)).providers}
        return [
            CompletionItem(name, help=str(entry.endpoint))
            for name, entry in sorted(known.items())
            if name.startswith(begun)
        ]
    return []


def pinned(context: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the credentials that are pinned to a login."""
    from claude_proxy.vault.pins import PinStore  # noqa: PLC0415 - only completion needs it

    statedir: Path | None = context.params.get("statedir")
    with suppress(ClaudeProxyError, OSError):
        known = PinStore(statedir or paths.default_statedir()).read().by_name
        return [
            CompletionItem(name, help=f"since {pin.since}")
            for name, pin in sorted(known.items())
            if name.startswith(begun)
        ]
    return []


def clone_names(
    context: click.Context, _param: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Return the clones that runs have worked in."""
    from claude_proxy.sandbox.git import clones  # noqa: PLC0415 - only completion needs it

    statedir: Path | None = context.params.get("statedir")
    with suppress(ClaudeProxyError, OSError):
        return [
            CompletionItem(clone.name, help=f"{clone.record.branch}, {clone.record.project}")
            for clone in clones.all_in(statedir or paths.statedir_in_force())
            if clone.name.startswith(begun)
        ]
    return []


def recorded_runs(
    context: click.Context, _param: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Return the newest runs of the audit log."""
    from claude_proxy.audit.database import database_in  # noqa: PLC0415 - only completion needs it
    from claude_proxy.audit.queries import AuditReader  # noqa: PLC0415 - as above

    statedir: Path | None = context.params.get("statedir")
    with suppress(ClaudeProxyError, OSError):
        with AuditReader(database_in(statedir or paths.statedir_in_force())) as reader:
            names = ["last", *reader.run_names(_RUNS_OFFERED)]
        return [CompletionItem(name) for name in names if name.startswith(begun)]
    return []


def profile_names(
    context: click.Context, _param: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Return the profiles, the user's own among them."""
    from claude_proxy.sandbox import profiles  # noqa: PLC0415 - only completion needs it

    found = profiles.names(_confdir(context) / profiles.DIRECTORY)
    return [CompletionItem(name) for name in found if name.startswith(begun)]


def command_words(
    context: click.Context, param: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Return programs for the first word of a COMMAND; for the others the shell completes files."""
    files = [CompletionItem(begun, type="file")]
    if context.params.get(str(param.name)) or "/" in begun:
        return files
    return [CompletionItem(name) for name in sorted(set(_programs(begun)))] or files


def options_of_subcommand(
    context: click.Context, _param: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Return the options of the command that an argument of this one names."""
    from importlib import import_module  # noqa: PLC0415 - only completion needs it

    name = context.params.get("subcommand") or "serve"
    command: click.Command = import_module(f"claude_proxy.cli.{name}").command
    return [
        CompletionItem(spelling, help=param.help)
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden
        for spelling in param.opts
        if spelling.startswith(begun)
    ]


type Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def forwards(_context: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the services that listen on this machine's loopback now, for --forward."""
    from claude_proxy.system import listening_ports  # noqa: PLC0415 - only completion needs it

    texts = (f"{port}=host:{port}" for port in sorted(listening_ports.of_this_machine()))
    return [CompletionItem(text) for text in texts if text.startswith(begun)]


def publishes(_context: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return what --publish usually names."""
    usual = ("auto", "0:3000", "3000:3000", "5173:5173", "8000:8000", "8080:8080")
    return [CompletionItem(text) for text in usual if text.startswith(begun)]


# By the word in the table of options.
BY_SUBJECT: Mapping[str, Completer] = {
    "forwards": forwards,
    "publishes": publishes,
    "policies": policies,
    "profiles": profile_names,
    "providers": providers,
}


def _confdir(context: click.Context) -> Path:
    given: Path | None = context.params.get("confdir")
    return given or paths.default_confdir()


def _programs(begun: str) -> Iterator[str]:
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        with suppress(OSError), os.scandir(directory or ".") as entries:
            for entry in entries:
                if entry.name.startswith(begun) and os.access(entry.path, os.X_OK):
                    yield entry.name


def living_runs(begun: str) -> list[CompletionItem]:
    """Return the runs and containers that are alive."""
    from claude_proxy.system.runs import bases_of  # noqa: PLC0415 - only completion needs it
    from claude_proxy.system.runs import living_runs as living  # noqa: PLC0415 - as above

    with suppress(OSError):
        return [
            CompletionItem(run.name, help=run.project or None)
            for base in bases_of(os.environ)
            for run in living(base)
            if run.name.startswith(begun)
        ]
    return []
