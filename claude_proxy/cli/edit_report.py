"""Report of a list edit: what is permitted now, what became wider, and what will not work."""

import difflib
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import click

from claude_proxy.cli import difference_lines, entry_warnings
from claude_proxy.cli.list_edit import EditedList, is_about, network_text, rule_of
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.edit import AllowEntry, Entry, PresetEntry
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.policy import coverage
from claude_proxy.policy.difference import Difference, difference
from claude_proxy.policy.methods import METHODS
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.rules import RawScheme, Rule

_SHOWN = 3  # rules that an entry widens
_SHOWN_OPENINGS = 20


def print_change(before: str, after: str, edited: EditedList) -> None:
    """Print the change of a text as a unified diff."""
    name = harmless(str(edited.path))
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), name, name, n=2, lineterm=""
    )
    for line in lines:
        click.echo(harmless(line))


def report(
    wanted: Sequence[Entry], before: str, after: str, edited: EditedList, *, remove: bool
) -> None:
    """Say in one line each what is permitted now, what became wider, and what will not work."""
    old, new = edited.load(before), edited.load(after)
    if remove:
        _report_removed(wanted, old, new)
        return
    added = [rule for rule in new.allow if coverage.first_covering(old.allow, rule) is None]
    for entry in wanted:
        if isinstance(entry, PresetEntry):
            count = len(loader.preset_policy(entry.name, edited.library).allow)
            rules = "1 rule" if count == 1 else f"{count} rules"
            click.echo(
                f"  permits: the {rules} of the preset {entry.name} "
                f"(claude-proxy presets {entry.name})"
            )
    said = set()
    for rule in added:
        if rule.source.preset is None:
            said.add(permitted(rule))
            click.echo(f"  permits: {permitted(rule)}")
        for narrower in list(coverage.widened(old.allow, rule))[:_SHOWN]:
            place = harmless(str(narrower.source))
            click.echo(f"  wider than before: until now {narrower} ({place})")
    _report_opened(difference(old, new), said)
    for entry in wanted:
        if isinstance(entry, AllowEntry) and entry.paths and _is_pasted_path(entry):
            _report_only_path(entry, new, edited)
    for warning in _warnings(wanted, new, edited):
        click.echo(f"warning: {warning}", err=True)


def _report_opened(change: Difference, said: Collection[str]) -> None:
    """Say exactly what is opened, as far as the entries themselves do not."""
    if not change.opens and not change.asks:
        click.echo(f"  {difference_lines.NOTHING}")
    for word, found in (("opens", change.opens), ("asks about", change.asks)):
        lines = [text for each in found if (text := harmless(str(each))) not in said]
        for line in lines[:_SHOWN_OPENINGS]:
            click.echo(f"  {word}: {line}")
        if (more := len(lines) - _SHOWN_OPENINGS) > 0:
            click.echo(f"  {word} {more} more")


def _report_only_path(entry: AllowEntry, policy: Policy, edited: EditedList) -> None:
    """Name the command for the whole host, unless that is allowed already."""
    whole = rule_of(replace(entry, paths=()))
    if coverage.first_covering(policy.allow, whole) is None:
        (place,) = entry_warnings.places(whole)
        command = shlex.join(
            ("claude-proxy", "allow", place.removeprefix("https://"), *edited.option)
        )
        click.echo(f"  only this path: for the whole host, {command}")


def _is_pasted_path(entry: AllowEntry) -> bool:
    return not entry.methods and not entry.addresses and "*" not in "".join(entry.paths)


def _report_removed(wanted: Sequence[Entry], old: Policy, new: Policy) -> None:
    for rule in old.allow:
        if rule not in new.allow and coverage.first_covering(new.allow, rule) is None:
            click.echo(f"  no longer permitted: {permitted(rule)}")
    _report_still_allowed(wanted, new)


def _report_still_allowed(wanted: Sequence[Entry], policy: Policy) -> None:
    for entry in wanted:
        if isinstance(entry, AllowEntry):
            rule = _allowing(policy, entry)
            if rule is not None:
                place = harmless(str(rule.source))
                click.echo(f"  still permitted: {permitted(rule)} ({place})")


def _allowing(policy: Policy, entry: AllowEntry) -> Rule | None:
    """Return a rule that allows what an entry would; of a whole host, even a part of it."""
    wanted = rule_of(entry)
    rule = coverage.first_covering(policy.allow, wanted)
    if rule is not None or wanted.limited or wanted.addresses:
        return rule
    return next((each for each in policy.allow if is_about(each, wanted)), None)


def report_no_change(
    wanted: Sequence[Entry], edited: EditedList, text: str, *, remove: bool
) -> None:
    """Say why the text stays as it is; ClaudeProxyError if what was to be removed is elsewhere."""
    policy = edited.load(text)
    if not remove:
        click.echo(f"Nothing to add: {edited.path} says so already.")
        for warning in _warnings(wanted, policy, edited):
            click.echo(f"warning: {warning}", err=True)
        return
    for entry in wanted:
        rule = None
        if isinstance(entry, AllowEntry):
            rule = _allowing(policy, entry)
        if rule is not None:
            raise ClaudeProxyError(
                f"no entry of this file is just that; what allows it is {rule}",
                where=harmless(str(rule.source)),
                fix="remove that entry or preset, or add the host to deny: a denial always wins",
            )
    click.echo(f"Nothing to remove: {edited.path} has no such entry.")


def _warnings(wanted: Sequence[Entry], policy: Policy, edited: EditedList) -> Iterator[str]:
    project, problem = entry_warnings.project_denials(entry_warnings.current_directory())
    if problem is not None:
        yield problem
    rules = [rule_of(entry) for entry in wanted if isinstance(entry, AllowEntry)]
    for rule in rules:
        yield from entry_warnings.of_denials(rule, policy.deny, project)
        yield from entry_warnings.of_addresses(
            rule, policy.allow, in_dns=True, options=edited.option
        )
    signed = [rule.name for rule in rules if entry_warnings.is_signed(rule)]
    yield from entry_warnings.of_authority(dict.fromkeys(signed), edited.confdir)


def permitted(rule: Rule) -> str:
    """Return what a rule permits, for a person: "POST /graphql on https://api.github.com"."""
    where = f" at {', '.join(map(network_text, rule.addresses))}" if rule.addresses else ""
    return f"{_requests(rule)} {', '.join(entry_warnings.places(rule))}{where}"


def _requests(rule: Rule) -> str:
    if rule.scheme is RawScheme.TCP:
        return "bytes of any protocol but HTTP to"
    if not rule.limited:
        return "every request to"
    paths = "" if rule.paths is None else ", ".join(glob.text for glob in rule.paths)
    if rule.methods is None:
        return f"every method of {paths} on"
    methods = ", ".join(method for method in METHODS if method in rule.methods)
    return f"{methods} {paths} on" if paths else f"{methods} of every path on"
