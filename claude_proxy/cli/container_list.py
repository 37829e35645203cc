"""The command `container list`: the containers, and what each may reach."""

from pathlib import Path

import click

from claude_proxy.audit.escape import escape_field
from claude_proxy.audit.sinks import encoded, rfc3339
from claude_proxy.cli.container_options import engine_of, statedir_option
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import keeper_link, store
from claude_proxy.sandbox.container.plan.model import ContainerStatus
from claude_proxy.sandbox.container.store import StoredContainer

_HEADING = ("NAME", "STATE", "IMAGE", "POLICY", "PROJECT")
_WIDTHS = (20, 10, 24, 24, 7)


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@statedir_option
def command(*, as_json: bool, statedir: str | None) -> None:
    """List the containers."""
    place = statedir_in_force(statedir)
    found = [(one, state_of(one)) for one in store.load_all(place)]
    if not found:
        click.echo("claude-proxy: no containers; `claude-proxy container run` makes one", err=True)
        return
    if not as_json:
        click.echo(_line(_HEADING))
    for one, state in found:
        if as_json:
            click.echo(_json(one, state, alive=_is_kept(one, place)))
        else:
            click.echo(_line((one.name, state, one.image, one.policy, one.project)))


def _is_kept(stored: StoredContainer, place: Path) -> bool:
    return keeper_link.ask(store.directory_of(place, stored.name), "status") is not None


def state_of(stored: StoredContainer) -> str:
    """Return what a container does, in one word."""
    try:
        state = engine_of(stored).inspect(stored.name)
    except ClaudeProxyError:
        return "unknown"
    if state is None:
        return "gone"
    return "stopped" if state.status is ContainerStatus.EXITED else state.status.value


def _json(stored: StoredContainer, state: str, *, alive: bool) -> str:
    return encoded(
        {
            "name": stored.name,
            "state": state,
            "proxy": alive,
            "image": stored.image,
            "digest": stored.image_digest,
            "engine": stored.engine.value,
            "way": stored.way.value,
            "policy": stored.policy,
            "project": stored.project,
            "created": rfc3339(int(stored.created * 1e9)),
        }
    )


def _line(cells: tuple[str, ...]) -> str:
    shown = (escape_field(cell) for cell in cells)
    return "  ".join(cell.ljust(width) for cell, width in zip(shown, _WIDTHS, strict=True)).rstrip()
