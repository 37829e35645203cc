"""Runs one COMMAND in a sandbox whose only way out is the proxy, and takes all of it down after.

Law 11: until the sandbox stands, the relay listens in it and the proxy is ready, COMMAND has not
been started; whatever goes wrong before that ends the run with nothing done. Afterwards the sandbox
has that one way out or none: when the proxy or the relay is gone, so is its network.

The proxy takes longest to start, so it is started first and waited for last.
"""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from claude_proxy.config.settings import AuditFailure, InheritedListen, Learn, Settings, Verbosity
from claude_proxy.errors import AuditError, ClaudeProxyError
from claude_proxy.events import Notice
from claude_proxy.sandbox import credentials, host_facts, netns, self_check
from claude_proxy.sandbox.bubblewrap import seccomp
from claude_proxy.sandbox.bubblewrap.bwrap import Bubblewrap, StandardStreams, failed
from claude_proxy.sandbox.credentials import Bindings
from claude_proxy.sandbox.helper_processes import (
    HelperProcess,
    ProxyProcess,
    RunLog,
    is_foreign,
    open_log,
    start_credential_mask,
    start_proxy_process,
    start_relay,
    wait_for_proxy,
)
from claude_proxy.sandbox.job_control import JobControl, Terminal
from claude_proxy.sandbox.macos import runner
from claude_proxy.sandbox.plan.environment import GATEWAY_PORT, HTTP_PORT, SOCKS_PORT
from claude_proxy.sandbox.plan.model import PathKind, SandboxPlan
from claude_proxy.sandbox.plan.planner import plan_sandbox
from claude_proxy.sandbox.relay.bridge import RelayTarget
from claude_proxy.sandbox.run_directory import RunDirectory, base_of, command_line
from claude_proxy.sandbox.run_spec import (
    SHOWN,
    MissingError,
    RunSpec,
    refuse_reachable,
    shown_files,
    verified_targets,
)
from claude_proxy.sandbox.signals import Interrupted, Interruptions

type Reporter = Callable[[str], None]

LISTENER = "run"  # the listener's name in the audit log
GATEWAY_LISTENER = "gateway"

_GRACE_S = 1.0  # for exchanges whose client has ended with the sandbox
_CHECKS_FAILED = 1


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox that stands, with everything beside it; its COMMAND has not been started."""

    name: str
    run_directory: Path
    plan: SandboxPlan
    bubble: Bubblewrap
    proxy_process: ProxyProcess | None  # None: the run has joined a proxy, or has no network
    helpers: tuple[HelperProcess, ...]  # what else stands beside it: relays, and what hides a login
    log: Path

    def finish(
        self, given: bytes | None = None, timeout_s: float | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        """Start COMMAND and wait until it has ended; for orders whose streams are pipes."""
        self.bubble.release()
        process = self.bubble.process
        out, err = process.communicate(given, timeout_s)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def lost(self) -> Iterator[HelperProcess]:
        """Yield what should stand beside the sandbox and does not."""
        for helper in (self.proxy_process, *self.helpers):
            if helper is not None and not helper.alive:
                yield helper


def run(order: RunSpec, *, say: Reporter) -> int:
    """Run COMMAND to its end and return its exit code, or 128+n where signal n ended the run.

    `say` prints a line where the user sees it and COMMAND's output does not go.
    """
    if sys.platform == "darwin":
        return runner.run(order, os.environ)
    with Interruptions() as interruptions:
        try:
            with live_sandbox(order, say=say) as sandbox:
                try:
                    return _run(sandbox, order, say)
                finally:
                    interruptions.ignore()  # so that all is taken down
        except Interrupted as interrupted:
            return 128 + interrupted.number


def _run(sandbox: Sandbox, order: RunSpec, say: Reporter) -> int:
    if order.verify and not _verify(sandbox, order, say):
        return _CHECKS_FAILED
    before = _look_at(sandbox.plan.watched)
    with Terminal.ours() as terminal:
        apart = "--new-session" in sandbox.plan.options
        wait = JobControl(sandbox.bubble, terminal, apart=apart)
        code = wait.run()
    for helper in sandbox.lost():
        what, pid = helper.what, helper.pid
        say(
            f"the {what} of this run (process {pid}) ended before COMMAND did; from then on the "
            f"sandbox had no network (see {sandbox.log})"
        )
    for path, state in _look_at(sandbox.plan.watched).items():
        if state != before[path]:
            say(f"warning: {path} was made or changed by this run; look at it before you trust it")
    with contextlib.suppress(ClaudeProxyError):  # what COMMAND has done is done
        _record(order.settings, Notice(0, "run-end", f"run {sandbox.name}: exit code {code}"))
    return code


@contextlib.contextmanager
def live_sandbox(
    order: RunSpec,
    *,
    streams: StandardStreams = (None, None, None),
    say: Reporter = lambda _: None,
) -> Iterator[Sandbox]:
    """Make a sandbox and all that belongs to it; take it down on the way out.

    COMMAND starts when the sandbox is told to `finish`, or its bubble to `release`.
    """
    _refuse(order)
    with ExitStack() as stack:
        joined = (
            wait_for_proxy(order.join) if order.join is not None and order.sandbox.network else None
        )
        if joined is not None and order.announces and is_foreign(joined):
            say(
                f"note: what listens on {order.join} is not claude-proxy; its own rules decide, "
                "and nothing of it is recorded here"
            )
            order = replace(order, foreign=True)
        bindings = credentials.bindings_of(order)
        credentials.refuse_reachable(order, bindings, os.environ)
        run_directory = stack.enter_context(RunDirectory.make(order.words, name=order.name))
        log = open_log(order.settings.statedir, run_directory.name)
        stack.callback(log.file.close)
        proxy_process = None
        if order.sandbox.network and joined is None:
            proxy_process = stack.enter_context(_own_proxy(order.settings, run_directory, log))
        planned = _plan_and_report(order, bindings, say)
        _forget(planned.withheld)
        bubble = stack.enter_context(_bubble(order, planned, run_directory, streams))
        helpers: tuple[HelperProcess, ...] = ()
        if order.sandbox.network:
            with _attribute_errors_to_bwrap(bubble):
                helpers = tuple(_relays(order, joined, bubble, run_directory, log, stack))
        _record_start(order.settings, f"run {run_directory.name}: {command_line(order.words)}")
        if proxy_process is not None:
            proxy_process.wait_until_ready()
        host_facts.check_mounts(planned, bubble.init)
        if planned.masked_logins:
            veil = start_credential_mask(planned.masked_logins, bubble.init, run_directory, log)
            helpers = (*helpers, stack.enter_context(veil))
        sandbox = Sandbox(
            run_directory.name,
            run_directory.path,
            planned,
            bubble,
            proxy_process,
            helpers,
            log.path,
        )
        _check_alive(sandbox)
        yield sandbox


def _refuse(order: RunSpec) -> None:
    """Raise if something that the run needs is missing, or would be in reach of the sandbox."""
    if missing := host_facts.problems(os.environ, seccomp_wanted=order.sandbox.seccomp):
        raise MissingError(missing)
    refuse_reachable(order)


def _plan_and_report(order: RunSpec, bindings: Bindings, say: Reporter) -> SandboxPlan:
    """Return the plan, and say of it and of the order what the user should know."""
    learn = order.settings.learn
    if learn is not None and learn[0] is Learn.EVERYTHING:
        say(f"warning: learning: what no deny rule covers is let through, and added to {learn[1]}")
    planned = planned_for(order, bindings)
    for note in planned.notes:
        say(f"note: {note}")
    for warning in credentials.warnings_of(order, bindings):
        say(f"warning: {warning}")
    if order.join is not None and bindings:
        say(
            f"note: the placeholders are those of {order.settings.allowlist}, which the proxy on "
            f"{order.join} has to know"
        )
    if order.show_plan:
        for line in planned.lines():
            say(line)
    return planned


def _forget(names: frozenset[str]) -> None:
    """Let go of variables that hold credentials: the proxy has them by now."""
    if any(name in os.environ for name in names):
        from claude_proxy.system import process_memory  # noqa: PLC0415 - few runs have any

        process_memory.scrub_environment(names)


def _bubble(
    order: RunSpec, planned: SandboxPlan, run_directory: RunDirectory, streams: StandardStreams
) -> Bubblewrap:
    _make(planned)
    filter_ = seccomp.program() if order.sandbox.seccomp else None
    bubble = Bubblewrap.start(planned, filter_, streams)
    for pid in (bubble.process.pid, bubble.init, bubble.guard.process.pid):
        run_directory.note(pid)
    return bubble


def _relays(  # noqa: PLR0913 - all that a relay stands between
    order: RunSpec,
    joined: RelayTarget | None,
    bubble: Bubblewrap,
    run_directory: RunDirectory,
    log: RunLog,
    stack: ExitStack,
) -> Iterator[HelperProcess]:
    """Yield the relay to the proxy, and the one to its gateway if there is one."""
    ports = (HTTP_PORT, SOCKS_PORT, *((GATEWAY_PORT,) if order.settings.gateway else ()))
    announced = order.words if order.announces else None
    with ExitStack() as closing:
        sockets = netns.listeners(bubble.init, ports)
        for sock in sockets:
            closing.enter_context(sock)
        upstream = joined or _at(run_directory.socket_path)
        yield stack.enter_context(start_relay(sockets[:2], upstream, run_directory, log, announced))
        if order.settings.gateway is not None:
            gate = _at(run_directory.gateway_path)
            yield stack.enter_context(start_relay(sockets[2:], gate, run_directory, log, announced))


def _at(path: Path) -> RelayTarget:
    return RelayTarget(f"unix:{path}", socket.AF_UNIX, str(path))


@contextlib.contextmanager
def _attribute_errors_to_bwrap(bubble: Bubblewrap) -> Iterator[None]:
    """Have an error told as bwrap's if that has ended: it mounts after its namespaces are there."""
    try:
        yield
    except ClaudeProxyError as error:
        with contextlib.suppress(subprocess.TimeoutExpired):
            bubble.process.wait(_GRACE_S)
            raise failed(bubble.process) from error
        raise


def planned_for(
    order: RunSpec, bindings: Bindings | None = None, *, dry: bool = False
) -> SandboxPlan:
    """Return how bwrap is started for an order; start nothing, and if it is dry, make nothing."""
    settings = order.settings
    if bindings is None:
        bindings = credentials.bindings_of(order)
        credentials.refuse_reachable(order, bindings, os.environ)
    spec = credentials.with_isolation(order, bindings, os.environ, dry=dry)
    seen = host_facts.gather(
        spec,
        environ=os.environ,
        confdir=settings.confdir,
        statedir=settings.statedir,
        run_directory=base_of(os.environ),
        shown=dict.fromkeys(SHOWN, b"") if dry else shown_files(order),
    )
    return plan_sandbox(spec, seen)


def _own_proxy(settings: Settings, run_directory: RunDirectory, log: RunLog) -> ProxyProcess:
    """Start a proxy that listens on the run's sockets and on nothing else."""
    with ExitStack() as closing:
        listeners = [closing.enter_context(run_directory.listen())]
        own = replace(
            settings,
            listen=(InheritedListen(listeners[0].fileno(), LISTENER),),
            workers=1,
            verbosity=Verbosity.QUIET,
            limits=replace(settings.limits, grace_s=min(settings.limits.grace_s, _GRACE_S)),
        )
        if settings.gateway is not None:
            listeners.append(
                closing.enter_context(run_directory.listen(run_directory.gateway_path))
            )
            door = InheritedListen(listeners[1].fileno(), GATEWAY_LISTENER)
            own = replace(own, gateway=replace(settings.gateway, listen=(door,)))
        return start_proxy_process(own, listeners, run_directory, log)


def _make(planned: SandboxPlan) -> None:
    """Make what is mounted and does not exist yet, for the owner alone."""
    for made in planned.made:
        with contextlib.suppress(FileExistsError):
            made.path.parent.mkdir(parents=True, exist_ok=True)
            if made.kind is PathKind.DIRECTORY:
                made.path.mkdir(mode=0o700)
            else:
                descriptor = os.open(made.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(descriptor, "wb") as file:  # noqa: PTH123 - the mode is the point
                    file.write(made.content)


def _check_alive(sandbox: Sandbox) -> None:
    """Raise if something has ended again already."""
    if not sandbox.bubble.alive:
        raise failed(sandbox.bubble.process)
    for helper in sandbox.lost():
        raise helper.failed(sandbox.log)


def _record_start(settings: Settings, text: str) -> None:
    try:
        _record(settings, Notice(0, "run-start", text))
    except AuditError:
        # Recorded or denied (law 7): a run of which nothing is known does not start.
        if settings.audit_failure is AuditFailure.DENY:
            raise


def _record(settings: Settings, notice: Notice) -> None:
    from claude_proxy.audit.database import database_in  # noqa: PLC0415 - SQLite, after bwrap
    from claude_proxy.audit.store import AuditStore  # noqa: PLC0415 - SQLite, after bwrap

    with contextlib.closing(
        AuditStore(
            database_in(settings.statedir),
            retention_days=settings.audit_days,
            max_bytes=settings.audit_bytes,
        )
    ) as store:
        store.record(notice)


def _verify(sandbox: Sandbox, order: RunSpec, say: Reporter) -> bool:
    """Say what four checks found, and whether all went well."""
    allowed, denied = verified_targets(order)
    ways = netns.probe_network(sandbox.bubble.init, HTTP_PORT, allowed, denied)
    found = list(self_check.checks(ways, HTTP_PORT, allowed, denied))
    for check in found:
        say(str(check))
    return self_check.all_right(found)


def _look_at(paths: tuple[Path, ...]) -> dict[Path, object]:
    return {path: _state_of(path) for path in paths}


def _state_of(path: Path) -> object:
    try:
        seen = path.lstat()
        if path.is_symlink():
            return str(path.readlink())
        inside = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    except OSError:
        return None
    return seen.st_mode, seen.st_ino, seen.st_size, seen.st_mtime_ns, inside
