"""Grants made, revoked and listed by commands, and the proxies that have to confirm it.

Law kept: "applied" is said only when each process of each proxy concerned has answered. What one of
them does not confirm is in the store all the same, and named.
"""

import os
import pwd
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from claude_proxy.cli import paths
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.control import client, grant_texts, present
from claude_proxy.control.client import Proxy
from claude_proxy.control.grant_store import Draft, GrantStore
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.policy.grants import End, Grant, GrantedRun, GrantKind
from claude_proxy.policy.rules import Rule
from claude_proxy.system.runs import LivingRun, bases_of, living_runs

_GATEWAY = "gateway"  # a proxy of this kind has one upstream, and no grants


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom a command is about, and where that is kept."""

    statedir: Path
    run: LivingRun | None = None
    project: Path | None = None
    proxies: tuple[Proxy, ...] = ()  # that judge by this state directory
    others: tuple[Proxy, ...] = field(default=())  # that keep theirs elsewhere


def scope_of(statedir: Path | None, run_name: str | None, project: Path | None) -> Scope:
    """Return whom a command is about; ClaudeProxyError if the run does not live.

    Without --statedir it is the one of the run, or the one that all running proxies share.
    """
    if run_name is not None and project is not None:
        raise ConfigError(
            "--run and --project exclude each other",
            where="--run, --project",
            fix="name the run, or the directory of all its runs",
        )
    run = None if run_name is None else _living(run_name)
    judging = [one for one in client.find(os.environ) if one.facts.kind != _GATEWAY]
    if statedir is None:
        own = [one for one in judging if run is not None and one.facts.run == run.name]
        used = {Path(one.facts.statedir) for one in own or judging}
        statedir = used.pop() if len(used) == 1 else paths.statedir_in_force()
    statedir = Path(os.path.abspath(statedir))  # noqa: PTH100 - a link stays one
    here = os.path.realpath(statedir)
    proxies = [one for one in judging if os.path.realpath(one.facts.statedir) == here]
    others = [one for one in judging if one not in proxies]
    return Scope(statedir, run, project, tuple(proxies), tuple(others))


def _living(name: str) -> LivingRun:
    known = [run for base in bases_of(os.environ) for run in living_runs(base)]
    found = next((run for run in known if run.name == name), None)
    if found is None:
        names = ", ".join(sorted(run.name for run in known))
        raise ClaudeProxyError(
            f'no run or container called "{harmless(name)}" is alive',
            where=f"--run; there are {names}" if names else "--run; there is none",
            fix="see `claude-proxy status`, or use --project for the runs of a directory",
        )
    return found


def user() -> str:
    """Return who makes a grant: this user, and with `sudo` the one who used it."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    before = os.environ.get("SUDO_USER", "")
    known = before.isprintable() and len(before) <= 64  # noqa: PLR2004 - characters of a name
    return f"{name} (sudo by {before})" if before and known else name


def make(
    scope: Scope,
    rules: Sequence[Rule],
    *,
    kind: GrantKind = GrantKind.ALLOW,
    lasts_ns: int | None,
    uses: int | None,
    reason: str,
) -> Grant:
    """Store one grant; ConfigError if that fails."""
    run = None if scope.run is None else GrantedRun(scope.run.name, scope.run.folder)
    draft = Draft(
        tuple(rules),
        user(),
        reason,
        kind,
        run,
        None if scope.project is None else str(scope.project),
        lasts_ns,
        uses,
    )
    with _store(scope.statedir) as store:
        return store.make(draft, present.now())


def standing(scope: Scope) -> list[Grant]:
    """Return the grants in force, for any run that lives."""
    store = GrantStore.open(scope.statedir)
    if store is None:
        return []
    alive = {run.folder for base in bases_of(os.environ) for run in living_runs(base)}
    with store:
        now = present.now()
        return [
            grant
            for grant in store.standing(now)
            if grant.end(now) is None and (grant.run is None or grant.run.folder in alive)
        ]


def end(scope: Scope, numbers: Iterable[int], why: End) -> list[Grant]:
    """End grants; return those that were in force, or whose last uses may be going on."""
    ended = []
    store = GrantStore.open(scope.statedir)
    if store is None:
        return []
    with store:
        for number in numbers:
            found = store.get(number)
            if found is not None and store.end(number, why, present.now(), user()):
                ended.append(found)
    return ended


def _store(statedir: Path) -> GrantStore:
    store = GrantStore.open(statedir, make=True)
    if store is None:
        raise ConfigError("the store of grants is gone", where=str(statedir), fix="try again")
    return store


# --- what the running proxies say


def confirm(
    scope: Scope,
    concerned: Callable[[Proxy], bool],
    is_done: Callable[[set[int]], bool],
) -> int:
    """Have the proxies read the store, and say whether it is applied; return the exit code."""
    asked = [one for one in scope.proxies if concerned(one)]
    applied, problems, closed = [], [], 0
    for proxy in asked:
        try:
            answers = proxy.ask_workers("grants-changed")
        except ClaudeProxyError as error:
            if proxy.is_alive():
                problems.append(error)
            continue
        numbers = [{_number(one) for one in answer.get("grants", ())} for answer in answers]
        closed += sum(int(answer.get("closed", 0)) for answer in answers)
        if all(map(is_done, numbers)):
            applied.append(proxy.name)
        else:
            problems.append(
                ClaudeProxyError(
                    f"the proxy {proxy.name} does not judge by it",
                    where=f"process {proxy.facts.pid}, {scope.statedir}",
                    fix="see the proxy's log: it may not be able to read the store of grants",
                )
            )
    if applied:
        text = f"Applied: {', '.join(applied)}."
        if closed:
            text += f" {closed} open {'tunnel' if closed == 1 else 'tunnels'} closed."
        click.echo(text)
    elif not problems:
        click.echo("No proxy runs that it is for; it counts from the next start.")
    note_others(scope)
    for problem in problems:
        for line in problem.lines():
            click.echo(f"claude-proxy: {line}" if line.startswith("error:") else line, err=True)
    return 1 if problems else 0


def _number(shown: Any) -> int:
    found = shown.get("number") if isinstance(shown, dict) else None
    return found if isinstance(found, int) else -1


def note_others(scope: Scope) -> None:
    """Name the proxies that keep their grants elsewhere."""
    elsewhere = [
        one for one in scope.others if scope.run is None or one.facts.run == scope.run.name
    ]
    for statedir in sorted({one.facts.statedir for one in elsewhere}):
        names = ", ".join(one.name for one in elsewhere if one.facts.statedir == statedir)
        click.echo(
            f"note: not for {names}, whose state is elsewhere: --statedir {harmless(statedir)}",
            err=True,
        )


def is_concerned(scope: Scope) -> Callable[[Proxy], bool]:
    """Return whether a proxy may have clients that a grant with this scope is for."""
    run, project = scope.run, scope.project

    def concerned(proxy: Proxy) -> bool:
        facts = proxy.facts
        if not facts.run:
            return True  # runs may join it
        if run is not None:
            return facts.run == run.name
        return project is None or Path(facts.project or "/").is_relative_to(project)

    return concerned


def said_of(grant: Grant) -> str:
    """Return a new grant in one line."""
    text = f"Grant {grant.number}: {harmless(grant.text)}"
    return f"{text}, {grant_texts.bounds_of(grant)}, {harmless(grant.whom)}."
