"""`claude-proxy learn`: proposes the entries that would have let recorded requests pass.

Laws kept: nothing is written without --apply, and then whole or not at all; an entry never opens
more than what was seen, and says so where it has to.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from claude_proxy.audit.database import database_in
from claude_proxy.audit.queries import AuditReader, RunFilter
from claude_proxy.audit.recorded_attempts import recorded_rows
from claude_proxy.audit.seen import seen_in
from claude_proxy.cli import completers, learn_report, list_edit, options, paths
from claude_proxy.cli.list_edit import EditedList
from claude_proxy.cli.recorded_run import run_filter
from claude_proxy.cli.shared_options import (
    allowlist_option,
    confdir_as_given,
    confdir_option,
    policy_option,
    statedir_option,
)
from claude_proxy.cli.since import Since
from claude_proxy.config import policy_files, preset_files
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.edit import (
    AllowEntry,
    EditError,
    Entry,
    PresetEntry,
    with_entries,
)
from claude_proxy.config.file_states import POLICIES
from claude_proxy.config.owner_files import OwnerFiles
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.policy.learned_list import Apart, Choice, Learned, LearnedEntry, Seen, learn
from claude_proxy.policy.methods import METHODS
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import Rule

EPILOG: Final = """\b
Examples:
  claude-proxy learn --run last                  what the newest run would have needed
  claude-proxy learn --since 1h --allowed
  claude-proxy learn --run last --policy strict  a new policy, if there is none of that name
  claude-proxy learn --run last --include stores --include addresses
  claude-proxy learn --run last --apply          write it; the old file is kept beside it

Ids, versions and hashes in a path become * where at least three different ones were seen; words
stay as they are. Set apart are hosts where anybody can store data (stores), addresses that are not
public (addresses), resolvers of names (dns), tcp, hosts of which no request was seen (hosts) and
paths that no entry can name (paths). They are written only if the policy in force allowed them, or
with --include; dns, hosts and paths only with --include. What a grant or an answer allowed is no
part of the policy: it counts as what was denied does.
"""

_NEW: Final = 'description: "Learned from what was recorded"\n'


@click.command(epilog=EPILOG)
@click.option(
    "--run",
    metavar="NAME",
    shell_complete=completers.recorded_runs,
    help="Learn from one `claude-proxy run`; last means the newest.",
)
@click.option(
    "--since",
    type=Since(),
    metavar="WHEN",
    help="Learn from an age (90s, 30m, 2h, 2d), today, yesterday, or a date and time on.",
)
@click.option("--allowed", is_flag=True, help="Learn only from what was allowed.")
@click.option("--denied", is_flag=True, help="Learn only from what was denied.")
@click.option(
    "--include",
    "included",
    multiple=True,
    type=click.Choice([*map(str, Apart), "all"]),
    help="Write what is set apart for this reason, too; may be repeated.",
)
@click.option(
    "--preset",
    "presets",
    multiple=True,
    metavar="NAME",
    shell_complete=completers.presets,
    help="Take this preset for what it covers; may be repeated.",
)
@click.option("--no-presets", is_flag=True, help="Take no preset, only entries.")
@click.option("--apply", "applies", is_flag=True, help="Write it, and keep the old file beside it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@allowlist_option("The list to compare with and to write.  [default: allowlist.yaml in --confdir]")
@policy_option("Compare with and write this policy of yours; a new name makes a new one.")
@statedir_option("Directory of the audit log.")
@confdir_option("the allowlist")
@click.pass_context
def command(
    context: click.Context,
    /,
    run: str | None,
    since: int | None,
    *,
    allowed: bool,
    denied: bool,
    included: tuple[str, ...],
    presets: tuple[str, ...],
    no_presets: bool,
    applies: bool,
    as_json: bool,
    confdir: Path | None,
    **named: Any,
) -> int:
    """Propose the narrowest entries that would have let recorded requests pass."""
    if allowed and denied:
        what, fix = "--allowed and --denied leave nothing to learn from", "drop one of them"
        raise ConfigError(what, where="--allowed, --denied", fix=fix)
    if presets and no_presets:
        what, fix = "--preset and --no-presets exclude each other", "drop one of them"
        raise ConfigError(what, where="--preset, --no-presets", fix=fix)
    given = options.in_force(context, named)
    edited = _list_of(given, confdir or paths.default_confdir())
    edited = replace(edited, option=(*edited.option, *confdir_as_given(context)))
    shows = _shows(allowed=allowed, denied=denied)
    statedir: Path = given["statedir"] or paths.default_statedir()
    seen = [each for each in _seen(statedir, run, since or 0) if each.allowed in shows]
    choice = Choice(_included(included), frozenset(presets), may_take_presets=not no_presets)
    text = edited.text()
    policy = edited.load(text)
    learned = learn(seen, policy, _presets(edited.library, presets), choice)
    after = _checked_text(text, learned, edited, policy)
    kept = None
    if applies and after != text:
        stamp = time.strftime(".%Y%m%dT%H%M%SZ.bak", time.gmtime())
        text, after, kept = list_edit.rewrite(
            lambda current: _checked_text(current, learned, edited, edited.load(current)),
            edited,
            backup=stamp,
        )
    report = learn_report.Report(
        learned, edited, text, after, applied=applies and after != text, backup=kept
    )
    for line in learn_report.json_lines(report) if as_json else learn_report.lines(report):
        click.echo(line)
    return 0


def _shows(*, allowed: bool, denied: bool) -> frozenset[bool]:
    if allowed:
        return frozenset({True})
    return frozenset({False}) if denied else frozenset({True, False})


def _seen(statedir: Path, run: str | None, since_ns: int) -> Iterator[Seen]:
    path = database_in(statedir)
    of_run: RunFilter | None = None if run is None else run_filter(path, run)
    with AuditReader(path) as reader:
        yield from seen_in(recorded_rows(reader, since_ns=since_ns, run=of_run))


def _included(words: tuple[str, ...]) -> frozenset[Apart]:
    return frozenset(Apart) if "all" in words else frozenset(map(Apart, words))


def _list_of(given: dict[str, Any], confdir: Path) -> EditedList:
    """Return the list to compare with and to write; a new one if what is named does not exist."""
    file: Path | None = given["allowlist_file"]
    policy: str | None = given["policy_name"]
    is_name = policy is not None and preset_files.is_name(policy) is not None
    if is_name and file is None and policy not in policy_files.policy_names(OwnerFiles(confdir)):
        path = (confdir / POLICIES / f"{policy}{preset_files.SUFFIX}").absolute()
        return EditedList(path, confdir, _NEW, ("--policy", str(policy)))
    if file is not None and policy is None and not file.exists():
        return EditedList(file.absolute(), confdir, _NEW, ("--allowlist", str(file)))
    return list_edit.list_of(given, confdir)


def _presets(library: loader.Library, named: tuple[str, ...]) -> dict[str, Policy]:
    """Return every preset; ConfigError if one that is named does not exist."""
    known = sorted(library.names())
    for name in named:
        if name not in known:
            raise loader.unknown_preset(name, where="--preset", library=library)
    found = {name: loader.preset_policy(name, library) for name in known}
    # The smallest first: what vouches for a request is the preset that opens the least.
    return dict(sorted(found.items(), key=lambda item: len(item[1].allow)))


# --- the text


def _checked_text(text: str, learned: Learned, edited: EditedList, policy: Policy) -> str:
    """Return a text with what was learned; an error if it would say anything else."""
    wanted: list[Entry] = [PresetEntry(use.name) for use in learned.taken]
    wanted += [entry_of(entry) for entry in learned.written]
    if not wanted:
        return text
    try:
        after = with_entries(text, wanted)
    except EditError as error:
        where = f"{edited.path}:{error.line}"
        raise ConfigError(str(error), where=where, fix=error.fix) from error
    new = edited.load(after)
    added = {str(rule) for rule in new.allow} - {str(rule) for rule in policy.allow}
    meant = {str(entry.rule) for entry in learned.written} | {
        str(rule)
        for use in learned.taken
        for rule in loader.preset_policy(use.name, edited.library).allow
    }
    same = set(map(str, new.deny)) == set(map(str, policy.deny))
    if not (added <= meant and same and new.credentials == policy.credentials):
        raise ClaudeProxyError(
            "the list would say something else than what was learned",
            where=str(edited.path),
            fix="report this as a bug; nothing was written",
        )
    return after


def entry_of(entry: LearnedEntry) -> AllowEntry:
    """Return a learned entry as a file has it."""
    rule: Rule = entry.rule
    (port,) = rule.ports or (443,)
    methods = rule.methods or ()
    return AllowEntry(
        host=str(rule.pattern),
        scheme=rule.scheme or Scheme.HTTPS,
        port=port,
        methods=tuple(method for method in METHODS if method in methods),
        paths=tuple(glob.text for glob in rule.paths or ()),
        addresses=tuple(map(list_edit.network_text, rule.addresses)),
        tls=rule.tls,
    )
