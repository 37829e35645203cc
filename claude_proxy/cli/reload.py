"""The command `reload`: makes a running proxy read its policy again, and says what came of it.

Law kept: "applied" is said only when every process of the proxy judges by the new policy.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import click

from claude_proxy.audit.sinks import encoded
from claude_proxy.cli import running
from claude_proxy.control import protocol
from claude_proxy.control.client import Proxy
from claude_proxy.control.protocol import ControlError
from claude_proxy.errors import ClaudeProxyError, ConfigError

EPILOG = """\b
Examples:
  claude-proxy reload                 the only proxy, or that of the run in this directory
  claude-proxy reload proxy-9051
  claude-proxy reload --all

A proxy notices a changed file by itself, within seconds; this waits until the change is in force.
A policy with a mistake is rejected, and the last valid one stays in force: exit code 2.
"""

PATIENCE_S = 70.0  # a file that a program keeps open for writing is read after a minute
_SILENT_S = 4.0
_TRIES = 3  # while the file changes between one worker's reload and the next


@click.command(name="reload", epilog=EPILOG)
@running.name_argument
@click.option("--all", "every", is_flag=True, help="Reload all proxies of this user.")
@running.json_option
def command(*, name: str | None, every: bool, as_json: bool) -> int:
    """Make a running proxy read its policy again."""
    code = 0
    for proxy in running.chosen(name, every=every):
        try:
            with _told_of_wait(proxy):
                answer = reloaded(proxy)
        except ClaudeProxyError as error:
            code = code or error.exit_code
            _print_rejected(proxy, error, as_json=as_json)
        else:
            code = code or (0 if answer["complaint"] is None else ConfigError.exit_code)
            _print_applied(proxy, answer, as_json=as_json)
    return code


@contextlib.contextmanager
def _told_of_wait(proxy: Proxy) -> Iterator[None]:
    """Say what is waited for if it takes long."""
    text = f"claude-proxy: {proxy.name}: waiting until the changed file is written completely"
    timer = threading.Timer(_SILENT_S, click.echo, (text,), {"err": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def reloaded(proxy: Proxy) -> dict[str, Any]:
    """Reload all workers of a proxy, and return what changed; ClaudeProxyError if one refuses."""
    answers: list[dict[str, Any]] = []
    versions: set[str] = set()
    for _ in range(_TRIES):
        last = proxy.ask_workers("reload", patience_s=PATIENCE_S)
        answers += last
        versions = {one["version"] for one in last}
        if len(versions) == 1:
            # One that had noticed the change by itself has nothing to tell.
            return next((one for one in answers if one["changed"]), last[0]) | {
                "version": last[0]["version"],
                "complaint": last[0]["complaint"],
            }
    raise ControlError(
        "the workers of the proxy judge by different policies, as the file keeps changing",
        where=f"versions {', '.join(sorted(versions))}",
        fix="reload again when it is complete",
    )


def _print_applied(proxy: Proxy, answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(encoded({"name": proxy.name, "applied": True, **answer}))
        return
    change = answer["change"] if answer["changed"] else "what the files say is in force already"
    click.echo(f"{proxy.name}: applied: {change} (version {answer['version']})")
    if (complaint := answer["complaint"]) is not None:
        click.echo(f"{proxy.name}: the project's restrictions file was NOT applied", err=True)
        running.print_error(ConfigError(**complaint))


def _print_rejected(proxy: Proxy, error: ClaudeProxyError, *, as_json: bool) -> None:
    if as_json:
        told = {"name": proxy.name, "applied": False, "error": protocol.problem_of(error)}
        click.echo(encoded(told))
        return
    click.echo(f"{proxy.name}: NOT applied; the last valid policy stays in force", err=True)
    running.print_error(error)
