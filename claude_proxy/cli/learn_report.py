"""Report of what was learned: entries with counts, what is set apart and left out, what it opens.

Law kept: what a client sent is printed escaped; nothing that is proposed is left unsaid.
"""

import difflib
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from claude_proxy.audit.escape import escape_line, escape_text
from claude_proxy.cli.entry_warnings import places
from claude_proxy.cli.list_edit import EditedList, network_text
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.comparison.openings import Opening
from claude_proxy.policy.difference import opened
from claude_proxy.policy.learned_list import Apart, Learned, LearnedEntry, LeftOut
from claude_proxy.policy.learned_presets import PresetUse
from claude_proxy.policy.methods import METHODS
from claude_proxy.policy.path_templates import PathTemplate
from claude_proxy.policy.rules import RawScheme, Tls

_SHOWN: Final = 20  # of what is left out, and of presets
_OPENINGS: Final = 60

_APART: Final = {
    Apart.STORES: "anybody can store data at these hosts, or receive it",
    Apart.ADDRESSES: "these are, or lead to, addresses that are not names of public hosts",
    Apart.DNS: "these resolve any name, past what the policy says of names",
    Apart.TCP: "bytes of any protocol, which nobody judges",
    Apart.HOSTS: "what was asked for there was never seen: the entry is for every request",
    Apart.PATHS: "no entry can name the path that was asked for: the entry is for every path",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What was learned, and what has become of the file."""

    learned: Learned
    edited: EditedList
    before: str
    after: str
    applied: bool
    backup: Path | None

    @property
    def opens(self) -> tuple[Opening, ...]:
        """What the list allows with what was learned, and not without it."""
        if self.before == self.after:
            return ()
        return opened(self.edited.load(self.before), self.edited.load(self.after))


def lines(report: Report) -> Iterator[str]:
    """Yield the report for a person."""
    learned, name = report.learned, harmless(str(report.edited.path))
    asks = f", and asks about {learned.asked:,}" if learned.asked else ""
    covered = f"{name} allows {learned.covered:,} of them already{asks}."
    yield f"{_attempts(learned.total)} recorded; {covered}"
    yield from _entries(learned)
    yield from _set_apart(learned)
    yield from _left_out(learned.left_out)
    yield from _presets(learned.presets)
    yield from _change(report, name)


def _entries(learned: Learned) -> Iterator[str]:
    plain = [entry for entry in learned.entries if entry.apart is None]
    if not plain and not learned.taken:
        return
    yield ""
    yield "To be allowed:"
    for use in learned.taken:
        yield f"  preset {use.name}: {_use_text(use)}"
    yield from _by_place(plain)


def _by_place(entries: Iterable[LearnedEntry]) -> Iterator[str]:
    heading = None
    for entry in entries:
        rule = entry.rule
        place = next(iter(places(rule)))
        if rule.scheme is RawScheme.TCP:
            place = f"tcp://{rule.name}:{min(rule.ports or {0})}"
        about = "" if entry.place is None else f" ({entry.place.kind})"
        if rule.addresses:
            about += f" at {', '.join(map(network_text, rule.addresses))}"
        if rule.tls is Tls.PASSTHROUGH:
            about += ", TLS passed through"
        if heading != place + about:
            heading = place + about
            yield f"  {heading}"
        yield from _paths_of(entry)


def _paths_of(entry: LearnedEntry) -> Iterator[str]:
    methods = ", ".join(_methods_of(entry))
    for template in entry.paths:
        yield f"    {methods} {template.shape}  {_template_text(template)}"
    if not entry.paths:
        what = "every request" if not methods else f"{methods} of every path"
        vouched = "" if entry.vouched is None else f", as the preset {entry.vouched} allows"
        yield f"    {what}{vouched}  {_attempts(entry.count)}"
    if entry.denied:
        yield f"      {_attempts(entry.denied)} of these denied when they were made"
    if entry.granted:
        by = "a grant or an answer, not by the list"
        yield f"      {_attempts(entry.granted)} of these allowed by {by}"


def _template_text(template: PathTemplate) -> str:
    text = _attempts(template.count)
    if template.different > 1:
        text += f", {template.different:,} different, the first {template.first}"
    return text


def _methods_of(entry: LearnedEntry) -> list[str]:
    return [method for method in METHODS if method in (entry.rule.methods or ())]


def _set_apart(learned: Learned) -> Iterator[str]:
    for apart in Apart:
        here = [entry for entry in learned.entries if entry.apart is apart]
        for is_written in (True, False):
            found = [entry for entry in here if entry.written is is_written]
            if not found:
                continue
            yield ""
            why = "; written, as the policy allowed it or --include names it"
            if not is_written:
                why = f"; not written without --include {apart}"
            yield f"Set apart ({apart}): {_APART[apart]}{why}"
            yield from _by_place(found)


def _left_out(left_out: Sequence[LeftOut]) -> Iterator[str]:
    if not left_out:
        return
    yield ""
    yield "Left out:"
    for each in left_out[:_SHOWN]:
        yield f"  {each.times:,}x {escape_text(each.subject)}: {harmless(each.why)}"
    if len(left_out) > _SHOWN:
        yield f"  and {len(left_out) - _SHOWN:,} more, which --json lists"


def _presets(uses: Sequence[PresetUse]) -> Iterator[str]:
    others = [use for use in uses if not use.taken and use.attempts]
    if not others:
        return
    yield ""
    yield "Presets that would cover some of it, and open more (--preset NAME takes one):"
    for use in others[:_SHOWN]:
        yield f"  {use.name}: {_use_text(use)}"


def _use_text(use: PresetUse) -> str:
    requests = len(use.attempts)
    text = f"{requests:,} different {'request' if requests == 1 else 'requests'}"
    text += f", {use.used} of its {use.rules} {'rule' if use.rules == 1 else 'rules'} used"
    if use.conflict is not None:
        text += f"; it would deny {escape_text(use.conflict)}"
    if use.writes is not None:
        text += f"; lets anything be sent to {use.writes}"
    return text


def _change(report: Report, name: str) -> Iterator[str]:
    yield ""
    if report.before == report.after:
        yield f"{name} stays as it is: nothing is to be added."
        return
    opens = report.opens
    yield (
        f"What {name} opens {'now' if report.applied else 'then'}:"
        if opens
        else "It opens nothing."
    )
    for opening in opens[:_OPENINGS]:
        yield f"  + {harmless(str(opening))}"
    if len(opens) > _OPENINGS:
        yield f"  and {len(opens) - _OPENINGS:,} more, which --json lists"
    yield ""
    diff = difflib.unified_diff(
        report.before.splitlines(), report.after.splitlines(), name, name, n=2, lineterm=""
    )
    yield from map(escape_line, diff)
    yield ""
    if not report.applied:
        yield f"Nothing was written; --apply writes it: {_again(report)}"
        return
    kept = "" if report.backup is None else f"; the old one is {harmless(str(report.backup))}"
    yield f"Written: {name}{kept}"


def _again(report: Report) -> str:
    return shlex.join(("claude-proxy", "learn", "...", *report.edited.option, "--apply"))


def _attempts(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count:,} attempts"


# --- for programs


def json_lines(report: Report) -> Iterator[str]:
    """Yield the report as JSON."""
    learned = report.learned
    facts = {
        "file": str(report.edited.path),
        "attempts": learned.total,
        "covered": learned.covered,
        "asked": learned.asked,
        "entries": [_entry_facts(entry) for entry in learned.entries],
        "presets": [_preset_facts(use) for use in learned.presets],
        "left_out": [each._asdict() for each in learned.left_out],
        "opens": [str(each) for each in report.opens],
        "applied": report.applied,
        "backup": None if report.backup is None else str(report.backup),
    }
    yield json.dumps(facts, indent=2)


def _entry_facts(entry: LearnedEntry) -> dict[str, Any]:
    rule = entry.rule
    return {
        "host": rule.name,
        "scheme": rule.scheme,
        "ports": sorted(rule.ports or ()),
        "methods": _methods_of(entry) or None,
        "paths": [
            {
                "shape": template.shape,
                "globs": list(template.globs),
                "count": template.count,
                "different": template.different,
                "first": template.first,
            }
            for template in entry.paths
        ]
        or None,
        "addresses": list(map(network_text, rule.addresses)),
        "tls": rule.tls,
        "count": entry.count,
        "denied": entry.denied,
        "granted": entry.granted,
        "written": entry.written,
        "apart": entry.apart,
        "place": None if entry.place is None else str(entry.place),
        "vouched": entry.vouched,
    }


def _preset_facts(use: PresetUse) -> dict[str, Any]:
    return {
        "name": use.name,
        "requests": len(use.attempts),
        "used": use.used,
        "rules": use.rules,
        "conflict": use.conflict,
        "writes": use.writes,
        "taken": use.taken,
    }
