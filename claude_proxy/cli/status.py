"""The command `status`: what runs, what each proxy allows, and what is open in it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from claude_proxy.audit.escape import escape_text
from claude_proxy.audit.sinks import encoded, rfc3339
from claude_proxy.cli import running, running_containers
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.cli.container_options import statedir_option
from claude_proxy.cli.running import RunWithoutProxy
from claude_proxy.cli.short_figures import duration_of, size_of
from claude_proxy.control import client, used_up
from claude_proxy.control.client import Proxy
from claude_proxy.control.protocol import ControlError, problem_of

EPILOG = """\b
Examples:
  claude-proxy status                 everything that runs
  claude-proxy status web             one proxy, run or container
  claude-proxy status --json | jq -r 'select(.policy.rejected) | .name'

The version of a policy is a digest of its entries: two proxies that show the same one allow the
same. The exit code is 1 if a proxy does not answer.
"""

_AT_A_TIME = 16
_LABEL_WIDTH = 11
_OPEN = "OPEN: "
_WHY_WITHOUT = "without a proxy: it joined another, has no network, or its proxy has ended"
_MOST_TUNNELS = 10  # that are listed for one proxy


@click.command(name="status", epilog=EPILOG)
@running.name_argument
@running.json_option
@statedir_option
def command(*, name: str | None, as_json: bool, statedir: str | None) -> int:
    """Show what runs: proxies, runs and containers, and what they allow now."""
    known = running.proxies()
    others = running.runs_without_proxy(known)
    lost = running_containers.without_proxy(statedir_in_force(statedir), known, others)
    if name is not None:
        others = [one for one in others if one.name == name]
        lost = [one for one in lost if one == name]
        known = [] if others or lost else [client.choose(known, Path("/"), name=name)]
    with ThreadPoolExecutor(_AT_A_TIME) as asking:  # one that hangs does not delay the others
        reports = list(asking.map(report_of, known))
    if as_json:
        _print_json(reports, others, lost)
    else:
        _print(reports, others, lost)
    return int(any("error" in one for one in reports))


def report_of(proxy: Proxy) -> dict[str, Any]:
    """Return what is known of a proxy, and what its workers say together."""
    facts = proxy.facts
    report: dict[str, Any] = {
        "name": facts.name,
        "kind": facts.kind,
        "process": facts.pid,
        "started": rfc3339(int(facts.started * 1e9)),
        "seconds": max(0.0, round(time.time() - facts.started, 1)),
        "workers": facts.workers,
        "program": facts.program or None,
        "project": facts.project or None,
        "listens": list(facts.listens),
        "statedir": facts.statedir,
        "confdir": facts.confdir,
    }
    try:
        return report | merged(proxy.ask_workers("status"))
    except ControlError as error:
        return report | {"error": problem_of(error)}
    except (KeyError, TypeError, AttributeError):
        what = "its answer is that of another version of claude-proxy"
        return report | {"error": problem_of(ControlError(what, fix="start it again"))}


def merged(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the workers of one proxy say as one answer; the first speaks for what is shared.

    Workers may differ for a moment while a policy is applied: `versions` has all of them.
    """
    first = answers[0]
    per_worker = {"worker", "process", "time", "memory", "connections", "tunnels"}
    found = {key: value for key, value in first.items() if key not in per_worker}
    memory = [one["memory"] for one in answers if one.get("memory")]
    found["versions"] = sorted({one["policy"]["version"] for one in answers})
    found["policy"] = first["policy"] | {
        "rejected": any(one["policy"]["rejected"] for one in answers)
    }
    found["connections"] = sum(one["connections"] for one in answers)
    found["tunnels_not_listed"] = sum(one["tunnels_not_listed"] for one in answers)
    found["memory"] = sum(memory) if memory else None
    if "questions" in first:
        found["questions"] = [each for one in answers for each in one.get("questions", ())]
    if used_up.KEY in first:
        found[used_up.KEY] = used_up.merged(answers)
    counts: dict[tuple[str | None, str], int] = {}
    for one in answers:
        for tunnel in one["tunnels"]:
            key = (tunnel["run"], tunnel["target"])
            counts[key] = counts.get(key, 0) + tunnel["count"]
    found["tunnels"] = [
        {"run": run, "target": target, "count": count}
        for (run, target), count in sorted(counts.items(), key=lambda one: -one[1])
    ]
    return found


# --- for a program


def _print_json(
    reports: Sequence[Mapping[str, Any]], others: Sequence[RunWithoutProxy], lost: Sequence[str]
) -> None:
    for report in reports:
        click.echo(encoded(dict(report)))
    for one in others:
        row = {"name": one.name, "kind": running.RUN, "process": one.pid, "program": one.program}
        click.echo(encoded(row | {"project": one.project or None, "proxy": False}))
    for name in lost:
        click.echo(encoded({"name": name, "kind": running.CONTAINER, "proxy": False}))


# --- for a person


def _print(
    reports: Sequence[Mapping[str, Any]], others: Sequence[RunWithoutProxy], lost: Sequence[str]
) -> None:
    blocks = [list(lines_of(report)) for report in reports]
    blocks += [
        [
            f"{one.name}  run, {_WHY_WITHOUT}",
            _line("runs", f"{escape_text(one.program)} in {escape_text(one.project or '?')}"),
        ]
        for one in others
    ]
    blocks += [
        [
            f"{name}  container, whose proxy is gone: it has no network",
            _line("fix", f"claude-proxy container start {name}"),
        ]
        for name in lost
    ]
    if not blocks:
        click.echo(
            "claude-proxy: nothing runs; `claude-proxy serve` or `claude-proxy run -- COMMAND` "
            "starts something",
            err=True,
        )
        return
    click.echo("\n\n".join("\n".join(block) for block in blocks))


def lines_of(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines about one proxy."""
    yield _heading(report)
    if report["program"]:
        project = report["project"] or "?"
        yield _line("runs", f"{escape_text(report['program'])} in {escape_text(project)}")
    yield _line("listens on", ", ".join(map(escape_text, report["listens"])))
    if (error := report.get("error")) is not None:
        yield _line("NO ANSWER", error["what"])
        yield from (_line("", f"fix: {error['fix']}") for _ in [0] if error["fix"])
        return
    if report.get("upstream"):
        yield _line("gateway", f"to {escape_text(report['upstream'])}")
    yield from _policy_lines(report)
    yield _line("open", _open_text(report))
    yield from _tunnel_lines(report["tunnels"], report["tunnels_not_listed"])
    for key, shown in _MORE.items():
        yield from (_line(key if not at else "", text) for at, text in enumerate(shown(report)))


def _heading(report: Mapping[str, Any]) -> str:
    parts = [report["kind"], f"process {report['process']}", f"for {_ago(report['seconds'])}"]
    if report["workers"] > 1:
        parts.insert(1, f"{report['workers']} workers")
    if report.get("memory"):
        parts.append(f"{size_of(report['memory'])} of memory")
    return f"{report['name']}  {', '.join(parts)}"


def _policy_lines(report: Mapping[str, Any]) -> Iterator[str]:
    policy = report["policy"]
    rules = f"{policy['rules']} rule" + ("" if policy["rules"] == 1 else "s")
    name, file = escape_text(policy["name"]), policy["file"]
    where = "" if file is None else f" ({escape_text(file)})"
    yield _line("policy", f"{name}, version {policy['version']}, {rules}{where}")
    if policy["rejected"]:
        why = f"claude-proxy reload {report['name']}"
        yield _line("", f"its file says something else now, which was REJECTED; why: {why}")
    if len(report["versions"]) > 1:
        yield _line("", f"the workers differ just now: {', '.join(report['versions'])}")


def _open_text(report: Mapping[str, Any]) -> str:
    tunnels = sum(one["count"] for one in report["tunnels"]) + report["tunnels_not_listed"]
    return f"{_count(report['connections'], 'connection')}, {_count(tunnels, 'tunnel')}"


def _tunnel_lines(tunnels: Sequence[Mapping[str, Any]], more: int) -> Iterator[str]:
    for one in tunnels[:_MOST_TUNNELS]:
        times = f" x {one['count']}" if one["count"] > 1 else ""
        run = "" if one["run"] is None else f" (run {escape_text(one['run'])})"
        yield _line("", f"{escape_text(one['target'])}{times}{run}")
    more += sum(one["count"] for one in tunnels[_MOST_TUNNELS:])
    if more:
        yield _line("", f"and {more:,} more; all with --json")


def _questions(report: Mapping[str, Any]) -> Iterator[str]:
    count = len(report.get("questions") or ())
    if count:
        yield f"{_count(count, 'question')} wait{'s' if count == 1 else ''}: claude-proxy ask"


def _grants(report: Mapping[str, Any]) -> Iterator[str]:
    for one in report.get("grants") or ():
        uses = one["uses_left"]
        yield _grant(one, None if uses is None else f"{_count(uses, 'use')} left")
    for one in report.get(used_up.KEY) or ():
        yield _grant(one, used_up.text_of(one))


def _grant(one: Mapping[str, Any], uses: str | None) -> str:
    whom = f" for run {one['run']}" if one["run"] else ""
    whom += f" in {one['project']}" if one["project"] else ""
    what = ", ".join(one["allows"])
    bounds = [] if one["seconds_left"] is None else [f"{_ago(one['seconds_left'])} left"]
    bounds += [] if uses is None else [uses]
    reason = f" ({one['reason']})" if one["reason"] else ""
    text = f"{one['number']}  {what}{whom}, {', '.join(bounds) or 'until the run ends'}{reason}"
    return escape_text(f"{_OPEN if one['kind'] == 'open' else ''}{text}")


# What other parts add to a status, and how it is shown.
_MORE: Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "questions": _questions,
    "grants": _grants,
}


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL_WIDTH}}{text}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _ago(seconds: float) -> str:
    days = timedelta(seconds=seconds).days
    return f"{days}d" if days else duration_of(seconds * 1e3)
