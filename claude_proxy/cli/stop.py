"""The command `stop`: ends a running proxy, run or container, and waits until it has ended.

A run ends as by a SIGTERM to its launcher, a container as by `container stop`. Law kept: nothing is
guessed: a process is signalled only while it provably is the one that is meant.
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from claude_proxy.audit.sinks import encoded
from claude_proxy.cli import running, running_containers
from claude_proxy.cli.container_options import statedir as statedir_in_force
from claude_proxy.cli.container_options import statedir_option
from claude_proxy.control import client, protocol
from claude_proxy.control.client import Proxy, UnreachableError
from claude_proxy.control.protocol import ControlError, ProxyFacts
from claude_proxy.errors import ClaudeProxyError, ConfigError

EPILOG = """\b
Examples:
  claude-proxy stop web               a run, a container or a proxy, as `status` names it
  claude-proxy stop proxy-9051
  claude-proxy stop                   the only one, or that of this directory
  claude-proxy stop --all --time 2

Open requests may finish first. The exit code is 1 if it has not ended in time; to stop it once more
ends it at once.
"""

_NO_PROXY = 0  # workers, of a run or container that has no proxy of its own


@click.command(name="stop", epilog=EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=running.complete_names)
@click.option("--all", "every", is_flag=True, help="Stop all proxies, runs and containers.")
@click.option(
    "--time",
    "seconds",
    type=click.IntRange(min=0),
    default=15,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the end; a container that has not ended then is killed.",
)
@running.json_option
@statedir_option
def command(
    *, names: tuple[str, ...], every: bool, seconds: int, as_json: bool, statedir: str | None
) -> int:
    """Stop a running proxy, run or container."""
    code = 0
    for one in _meant(names, statedir_in_force(statedir), every=every):
        try:
            _stop(one, seconds)
        except ClaudeProxyError as error:
            code = code or error.exit_code
            if as_json:
                told = {"name": one.name, "kind": one.facts.kind, "stopped": False}
                click.echo(encoded(told | {"error": protocol.problem_of(error)}))
            else:
                running.print_error(error)
        else:
            told = {"name": one.name, "kind": one.facts.kind, "stopped": True}
            click.echo(encoded(told) if as_json else f"{one.name}: stopped")
    return code


def _meant(names: Sequence[str], statedir: Path, *, every: bool) -> list[Proxy]:
    known = running.proxies()
    runs = running.runs_without_proxy(known)
    lost = running_containers.without_proxy(statedir, known, runs)
    targets = [
        *known,
        *(_without_proxy(running.RUN, one.name, one.pid, one.project) for one in runs),
        *(_without_proxy(running.CONTAINER, name, 0, "", str(statedir)) for name in lost),
    ]
    if every and names:
        raise ConfigError("--all names everything", where=" ".join(names), fix="leave it out")
    if every:
        return targets
    if names:
        found = [client.choose(targets, Path("/"), name=name) for name in names]
        return list({one.name: one for one in found}.values())
    return [running.meant(None, targets)]


def _without_proxy(kind: str, name: str, pid: int, project: str, statedir: str = "") -> Proxy:
    """Return what stands for a run or container that cannot be asked, and can be stopped."""
    facts = ProxyFacts(
        name, kind, pid, 0.0, _NO_PROXY, run=name, project=project, statedir=statedir
    )
    return Proxy(facts, Path())


def _stop(target: Proxy, seconds: int) -> None:
    """Stop it and wait for its end; ClaudeProxyError if it does not end."""
    facts = target.facts
    if facts.kind == running.CONTAINER:
        _stop_container(Path(facts.statedir), facts.run, seconds)
        return
    process = _launcher_of(facts.run) if facts.kind == running.RUN else _main_process(target)
    if process is None:
        return  # it has ended meanwhile
    with contextlib.closing(process):
        process.terminate()
        if not process.has_ended(seconds):
            raise ControlError(
                f"{target.name} has not ended within {seconds} s",
                where=f"process {process.pid}",
                fix=f"stop it again, which ends it at once: claude-proxy stop {target.name}",
            )


class _Process:
    """A process by its descriptor, which never becomes another one's."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor

    def terminate(self) -> None:
        """Send SIGTERM, and let one that is suspended take it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGTERM)
            signal.pidfd_send_signal(self._descriptor, signal.SIGCONT)

    def has_ended(self, seconds: float) -> bool:
        """Wait for its end, and tell whether it came."""
        return bool(select.select([self._descriptor], [], [], seconds)[0])

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


def _held(pid: int) -> _Process | None:
    try:
        return _Process(pid, os.pidfd_open(pid))
    except ProcessLookupError:
        return None


def _launcher_of(run: str) -> _Process | None:
    """Return the launcher of a living run."""
    for pid in _launchers(run):
        process = _held(pid)
        # Looked at again: what has the number now has it as long as the descriptor is open.
        if process is not None and pid in _launchers(run):
            return process
    return None


def _launchers(run: str) -> Iterator[int]:
    from claude_proxy.sandbox import run_directory  # noqa: PLC0415 - containers need none of it
    from claude_proxy.system.runs import bases_of  # noqa: PLC0415 - as above

    for base in bases_of(os.environ):
        with contextlib.suppress(ClaudeProxyError):
            yield from (one.pid for one in run_directory.living(base) if one.name == run)


def _main_process(target: Proxy) -> _Process | None:
    """Return the main process of a proxy, which is that of its socket, or the parent of that."""
    process = _held(target.facts.pid)
    if process is None:
        return None
    try:
        serving = target.serving_process()
    except UnreachableError:
        process.close()
        if target.is_alive():
            raise
        return None
    if target.facts.pid not in (serving, _parent_of(serving)):
        process.close()
        raise ControlError(
            "the process of the proxy cannot be identified",
            where=f"process {serving} answers for process {target.facts.pid}",
            fix=f"end it yourself: kill {serving}",
        )
    return process


def _parent_of(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2]
        return int(text.split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _stop_container(statedir: Path, name: str, seconds: int) -> None:
    # Not at the top: few runs are containers.
    from claude_proxy.cli import run  # noqa: PLC0415
    from claude_proxy.cli.container_options import engine_of  # noqa: PLC0415
    from claude_proxy.sandbox.container import (  # noqa: PLC0415
        container_clone,
        ending,
        store,
        untold,
    )

    stored = store.load(statedir, name)
    ending.stop(engine_of(stored), stored, statedir, timeout_s=seconds)
    untold.tell(statedir, name, run.say)
    container_clone.report(statedir, stored, run.say)
