"""Command `allow`: adds entries to the owner's list, or removes them; a running proxy reloads it.

Laws kept: an entry allows what was named and no more. The file is written only if the new text
loads, whole or not at all, and by one command at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from claude_proxy.cli import (
    completers,
    edit_report,
    entry_warnings,
    grant_options,
    list_edit,
    options,
    paths,
)
from claude_proxy.cli.shared_options import (
    allowlist_option,
    confdir_as_given,
    confdir_option,
    policy_option,
)
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.edit import AllowEntry, Entry, PresetEntry
from claude_proxy.config.strict_yaml.fields import nearest
from claude_proxy.config.strict_yaml.nodes import harmless, quoted
from claude_proxy.errors import ConfigError
from claude_proxy.policy.methods import METHODS
from claude_proxy.policy.patterns import PathGlob, PatternError

EPILOG = """\b
Examples:
  claude-proxy allow docs.python.org
  claude-proxy allow '*.example.com' git.corp.example:8443 http://mirror.example
  claude-proxy allow https://api.example.com/v1/items --method GET
  claude-proxy allow api.github.com --method POST --path /graphql
  claude-proxy allow git.corp.example --address 10.1.2.3
  claude-proxy allow tcp://db.corp.example:5432
  claude-proxy allow --preset npm
  claude-proxy allow --remove docs.python.org
  claude-proxy allow --dry-run docs.python.org
  claude-proxy allow docs.python.org --for 1h
  claude-proxy allow https://api.example.com/v1/items --uses 5 --run claude-x7k2
  claude-proxy allow '*.example.com' --for 2h --project . --reason 'the new API'
"""


@click.command(epilog=EPILOG)
@click.argument("hosts", nargs=-1, metavar="HOST|URL...")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="METHOD",
    shell_complete=completers.methods,
    help="Allow this method only; may be repeated.  [default: every method]",
)
@click.option(
    "--path",
    "globs",
    multiple=True,
    metavar="PATH",
    help="Allow this path only; * is one segment, /** at the end the rest; may be repeated.",
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="ADDRESS",
    help="Allow HOST to lead to this address or network, which is not public; may be repeated.",
)
@click.option(
    "--preset",
    "presets",
    multiple=True,
    metavar="NAME",
    shell_complete=completers.presets,
    help="Allow what a preset allows; may be repeated.",
)
@click.option("--remove", is_flag=True, help="Remove such entries instead of adding them.")
@click.option("--dry-run", is_flag=True, help="Print the change and write nothing.")
@grant_options.for_option("Allow it for this long, such as 10m, 1h or 2d, on what runs.")
@click.option(
    "--uses",
    type=click.IntRange(min=1, max=grant_options.MOST_USES),
    metavar="COUNT",
    help="Allow this many requests, on what runs.",
)
@grant_options.run_option("Allow it to this run or container alone, at most until it ends.")
@grant_options.project_option("Allow it to the runs in this directory; with --for or --uses.")
@grant_options.reason_option()
@grant_options.statedir_option()
@allowlist_option("The file to write.  [default: allowlist.yaml in --confdir]")
@policy_option("Write this policy of yours instead of the allowlist.")
@confdir_option("the allowlist")
@click.pass_context
def command(
    context: click.Context,
    /,
    hosts: tuple[str, ...],
    *,
    methods: tuple[str, ...],
    globs: tuple[str, ...],
    addresses: tuple[str, ...],
    presets: tuple[str, ...],
    remove: bool,
    dry_run: bool,
    lasts_ns: int | None,
    uses: int | None,
    run_name: str | None,
    project: Path | None,
    reason: str,
    statedir: Path | None,
    confdir: Path | None,
    **named: Any,
) -> int:
    """Add hosts to the allowlist, or remove them.

    HOST is written as in the file, with a port or a scheme where they are not 443 and https. Of a
    URL with a path, only that path is allowed; tcp://HOST:PORT allows bytes of any protocol. If you
    have no list of your own yet, it starts as a copy of the shipped one.

    With --for, --uses, --run or --project no list is edited: the hosts are granted to what runs,
    until the end that was given. See `grants` and `revoke`.
    """
    if not hosts and not presets:
        verb = "remove" if remove else "allow"
        raise click.UsageError(f"nothing to {verb}: add HOST, or --preset NAME")
    given = options.in_force(context, named)
    edited = list_edit.list_of(given, confdir or paths.default_confdir())
    edited = replace(edited, option=(*edited.option, *confdir_as_given(context)))
    entries = _entries_of(hosts, methods, globs, addresses)
    asked = (lasts_ns, uses, run_name, project)
    if reason or any(each is not None for each in asked):
        from claude_proxy.cli import allow_for_a_while  # noqa: PLC0415 - not for an edit

        allow_for_a_while.refuse_file_options(context, remove=remove)
        added: list[Entry] = [*entries, *_presets_of(presets, edited.library)]
        return allow_for_a_while.grant(
            added,
            edited,
            lasts_ns=lasts_ns,
            uses=uses,
            run_name=run_name,
            project=project,
            reason=reason,
            statedir=statedir,
            dry_run=dry_run,
        )
    wanted: list[Entry] = [*entries, *_presets_of(presets, edited.library)]
    if dry_run:
        before = edited.text()
        after = list_edit.edited_text(before, wanted, edited, remove=remove)
        if after == before:
            edit_report.report_no_change(wanted, edited, after, remove=remove)
            return 0
        edit_report.print_change(before, after, edited)
        edit_report.report(wanted, before, after, edited, remove=remove)
        return 0
    before, after = list_edit.write(wanted, edited, remove=remove)
    if after == before:
        edit_report.report_no_change(wanted, edited, after, remove=remove)
        return 0
    shown = ", ".join([*hosts, *(f"preset {name}" for name in presets)])
    verb = "Removed from" if remove else "Allowed in"
    click.echo(f"{verb} {edited.path}: {harmless(shown)}")
    edit_report.report(wanted, before, after, edited, remove=remove)
    if (other := _policy_of_runs_here(context)) not in {None, given["policy_name"]}:
        click.echo(
            f"note: runs in this directory use the policy {other}: --policy {other}", err=True
        )
    if edited.begun is not None:
        click.echo("This list is new: it replaces the shipped one, in a running proxy too.")
    return 0


def _policy_of_runs_here(context: click.Context) -> str | None:
    """Return the policy that config.yaml binds to the nearest directory above this one."""
    here = entry_warnings.current_directory()
    projects = {} if here is None else options.config_of(context).projects
    bound = [path for path in projects if here and here.is_relative_to(path.resolve())]
    return projects[max(bound, key=lambda path: len(path.parts))] if bound else None


# --- what is asked for


def _entries_of(
    hosts: Sequence[str],
    methods: Sequence[str],
    globs: Sequence[str],
    addresses: Sequence[str],
) -> list[AllowEntry]:
    """Return an entry for each host; ConfigError for the first that is wrong."""
    if not hosts and (methods or globs or addresses):
        raise ConfigError(
            "a preset has methods, paths and addresses of its own",
            where="--method, --path, --address",
            fix="name the host that they are for",
        )
    named = tuple(map(_method, _split(methods)))
    listed = tuple(_checked("--path", text, _glob) for text in globs)
    networks = tuple(_checked("--address", text, list_edit.spelled) for text in addresses)
    entries = []
    for host in hosts:
        entry: AllowEntry = _checked(None, host, AllowEntry.parse)
        only = tuple(dict.fromkeys((*entry.paths, *listed)))
        entries.append(replace(entry, methods=named, paths=only, addresses=networks))
    return entries


def _split(values: Iterable[str]) -> Iterator[str]:
    """Yield words, also those of a list with commas."""
    for value in values:
        yield from filter(None, (word.strip() for word in value.split(",")))


def _method(text: str) -> str:
    method = text.upper()
    if method not in METHODS:
        fix = nearest(method, METHODS) or "name a method, such as GET"
        raise ConfigError(f"{quoted(text)} is not a method", where="--method", fix=fix)
    return method


def _glob(text: str) -> str:
    return PathGlob.parse(text).text


def _checked[T](option: str | None, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except PatternError as error:
        # Not what is before an @: it may be a password.
        where = text.rpartition("@")[2] if option is None else f"{option} {text}"
        raise ConfigError(error.what, where=harmless(where), fix=error.fix) from error


def _presets_of(names: Iterable[str], library: loader.Library) -> Iterator[PresetEntry]:
    for name in names:
        try:
            library.preset(name)
        except KeyError:
            raise loader.unknown_preset(name, where="--preset", library=library) from None
        yield PresetEntry(name)
