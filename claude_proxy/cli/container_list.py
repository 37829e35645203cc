"""The command `container list`: the containers, what each may reach, and its last attack."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from claude_proxy.audit.escape import escape_text
from claude_proxy.audit.sinks import encoded, rfc3339
from claude_proxy.cli import run
from claude_proxy.cli.container_options import engine_of, statedir_option
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.cli.short_figures import duration_of
from claude_proxy.config.allowlist import loader
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import keeper_link, store, untold
from claude_proxy.sandbox.container.plan.model import ContainerStatus
from claude_proxy.sandbox.container.plan.planner import SHOWN
from claude_proxy.sandbox.container.store import StoredContainer
from claude_proxy.sandbox.plan.environment import ALLOWLIST

EPILOG = """\b
Examples:
  claude-proxy container list
  claude-proxy container list --json | jq -r 'select(.state == "running").name'

\b
STATE   running; no proxy: it runs, and has lost its proxy, which `container start` gives back;
        stopped; gone: the engine has it no more, and `container start` makes it again
ATTACK  whether the last `container attack` was clean, and how long ago; old: the container was
        made again since
"""

_HEADING = ("NAME", "STATE", "IMAGE", "POLICY", "REACHES", "WAY", "ATTACK", "PROJECT")
_NONE = "-"
_SHOWN_HOSTS = 2
_RUNNING, _NO_PROXY = "running", "no proxy"


@click.command(name="list", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@statedir_option
def command(*, as_json: bool, statedir: str | None) -> None:
    """List the containers."""
    place = statedir_in_force(statedir)
    if not as_json:  # a program that reads this would take it from the user
        untold.tell_all(place, run.say)
    found = [(one, state_of(one, place)) for one in store.load_all(place)]
    if not found:
        if as_json:
            return
        click.echo("claude-proxy: no containers; `claude-proxy container run` makes one", err=True)
        return
    if as_json:
        for one, state in found:
            click.echo(_json(one, state, place))
        return
    rows = [_HEADING, *(_row(one, state, place) for one, state in found)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEADING))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def state_of(stored: StoredContainer, place: Path) -> str:
    """Return what a container does, in a word or two."""
    try:
        state = engine_of(stored).inspect(stored.name)
    except ClaudeProxyError:
        return "unknown"
    if state is None:
        return "gone"
    if state.status is ContainerStatus.RUNNING:
        return _RUNNING if _is_kept(stored, place) else _NO_PROXY
    return "stopped" if state.status is ContainerStatus.EXITED else state.status.value


def _is_kept(stored: StoredContainer, place: Path) -> bool:
    return keeper_link.ask(store.directory_of(place, stored.name), "status") is not None


def hosts_of(stored: StoredContainer, place: Path) -> Sequence[str] | None:
    """Return the hosts that a container may reach; None if that is not known here."""
    path = store.directory_of(place, stored.name) / SHOWN / ALLOWLIST.name
    try:
        policy = loader.load(path.read_text("utf-8"), name=str(path))
    except (ClaudeProxyError, OSError, ValueError):
        return None
    return [*(["*"] if policy.allows_by_default else []), *policy.hosts()]


def _row(stored: StoredContainer, state: str, place: Path) -> tuple[str, ...]:
    cells = (
        *(stored.name, state, stored.image, _policy_of(stored)),
        *(_reaches(hosts_of(stored, place)), stored.way.value, attack_of(stored)),
        stored.project,
    )
    return tuple(escape_text(cell) for cell in cells)


def _policy_of(stored: StoredContainer) -> str:
    return Path(stored.policy).name if stored.policy.startswith("/") else stored.policy


def _reaches(hosts: Sequence[str] | None) -> str:
    if hosts is None:
        return _NONE
    if not hosts:
        return "nothing"
    if hosts[0] == "*":
        return "every host"
    more = len(hosts) - _SHOWN_HOSTS
    return ", ".join(hosts[:_SHOWN_HOSTS]) + (f", {more} more" if more > 0 else "")


def attack_of(stored: StoredContainer) -> str:
    """Return what came of a container's last attack, and how long ago that was."""
    last = stored.attack
    if last is None:
        return _NONE
    ago = duration_of(max(0.0, time.time() - float(last["time"])) * 1e3)
    said = "clean"
    if last["through"]:
        said = f"{len(last['through'])} THROUGH"
    elif last["unknown"]:
        said = f"{len(last['unknown'])} unknown"
    old = "" if last.get("plan") == stored.plan else ", old"
    return f"{said} {ago} ago{old}"


def _json(stored: StoredContainer, state: str, place: Path) -> str:
    last = stored.attack
    kept: dict[str, Any] | None = None
    if last is not None:
        clean = not (last["through"] or last["unknown"]) and last.get("plan") == stored.plan
        kept = {**last, "time": rfc3339(int(last["time"] * 1e9)), "clean": clean}
    return encoded(
        {
            "name": stored.name,
            "state": _RUNNING if state == _NO_PROXY else state,
            "proxy": state == _RUNNING,
            "image": stored.image,
            "digest": stored.image_digest,
            "engine": stored.engine.value,
            "way": stored.way.value,
            "policy": stored.policy,
            "hosts": hosts_of(stored, place),
            "project": stored.project,
            "created": rfc3339(int(stored.created * 1e9)),
            "attack": kept,
        }
    )
