"""Runner: starts one COMMAND in a sandbox whose only network is the proxy, and cleans up after it.

Law kept: no quiet downgrade. COMMAND starts only after the sandbox is mounted, the relay listens in
it and the proxy has checked all that may stop its start; an error before that ends the run, and
nothing is executed. What COMMAND connects to waits until the proxy's engine is there; if that
fails, the run ends with its error. From then on the sandbox has the proxy or no network: if the
proxy or the relay ends, so does its network.

The proxy takes longest to start, so it is started first and waited for last.
"""

import contextlib
import functools
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from claude_proxy.config.settings import Learn, RunIdentity
from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.events import Notice
from claude_proxy.sandbox import (
    created_paths,
    credentials,
    git_links,
    helper_end,
    host_facts,
    named_scripts,
    netns,
    own_proxy,
    run_network,
    run_record,
    shown_list,
    waiting_process,
)
from claude_proxy.sandbox.bubblewrap import seccomp, seccomp_notify
from claude_proxy.sandbox.bubblewrap.bwrap import (
    Bubblewrap,
    HeldStart,
    SandboxFailedError,
    StandardStreams,
    failed,
)
from claude_proxy.sandbox.bubblewrap.mount_sources import MountSources, refuse_replaced
from claude_proxy.sandbox.bubblewrap.seccomp import Reported
from claude_proxy.sandbox.commit_bringer import commit_bringer
from claude_proxy.sandbox.credentials import Bindings
from claude_proxy.sandbox.executables import find_program
from claude_proxy.sandbox.git import private_repositories
from claude_proxy.sandbox.guard_process import EXIT_CODE, MountGuard, mount_guard
from claude_proxy.sandbox.helper_processes import (
    HelperProcess,
    ProxyProcess,
    RelayAnnouncement,
    SocketSupervisor,
    start_socket_supervisor,
    wait_for_proxy,
)
from claude_proxy.sandbox.job_control import JobControl, Terminal
from claude_proxy.sandbox.lookups import LookupChannel
from claude_proxy.sandbox.plan.environment import HTTP_PORT
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.plan.model import (
    FileId,
    SandboxPlan,
    SandboxSpec,
    UnixSockets,
)
from claude_proxy.sandbox.plan.planner import plan_sandbox
from claude_proxy.sandbox.plan.protected_files import protected_files
from claude_proxy.sandbox.run_directory import RunDirectory, program_of
from claude_proxy.sandbox.run_log import RunLog, open_log
from claude_proxy.sandbox.run_spec import (
    SHOWN,
    MissingError,
    RunSpec,
    refuse_reachable,
    shown_files,
    verified_targets,
)
from claude_proxy.sandbox.second_names import refuse_second_names
from claude_proxy.sandbox.signals import Interrupted, Interruptions
from claude_proxy.sandbox.standard_streams import Streams
from claude_proxy.sandbox.start_patience import StartPatience
from claude_proxy.system.runs import base_of

if TYPE_CHECKING:
    from types import ModuleType

    # Imported where they are needed: the proxy, which takes longest to start, waits for the rest.
    from claude_proxy.sandbox.joined_proxy import JoinedProxy
    from claude_proxy.sandbox.obeyed_states import ObeyedStates
    from claude_proxy.sandbox.published_ports import PortPublisher
    from claude_proxy.sandbox.run_ports import RunPorts

type Reporter = Callable[[str], None]

_GRACE_S = 1.0  # for bwrap to end, once something else has failed
_CHECKS_FAILED = 1


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox that is ready, with its helper processes; COMMAND has not been started."""

    name: str
    run_directory: Path
    plan: SandboxPlan
    bubblewrap: Bubblewrap
    proxy_process: ProxyProcess | None  # None: the run uses a running proxy, or has no network
    helpers: tuple[HelperProcess, ...]  # relays
    log: Path
    obeyed: "ObeyedStates"  # before COMMAND
    lookups: LookupChannel
    streams: Streams
    guard: MountGuard | None = None

    def finish(
        self, stdin: bytes | None = None, timeout_s: float | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        """Start COMMAND and wait for its end; for sandboxes whose streams are pipes."""
        if self.proxy_process is not None:
            self.proxy_process.wait_until_ready()
        self.bubblewrap.release()
        process = self.bubblewrap.process
        out, err = process.communicate(stdin, timeout_s)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def let_go(self) -> None:
        """Tell the helper processes to end, all at the same time."""
        for helper in (*self.helpers, self.proxy_process):
            if helper is not None:
                helper.close_lifeline()

    def lost(self) -> Iterator[HelperProcess]:
        """Yield the helper processes that have ended."""
        for helper in (self.proxy_process, *self.helpers):
            if helper is not None and not helper.alive:
                yield helper


def run(run_spec: RunSpec, *, say: Reporter) -> int:
    """Run COMMAND and return its exit code, or 128+n if signal n ended the run.

    `say` prints a line to the user, apart from the output of COMMAND.
    """
    if sys.platform == "darwin":
        from claude_proxy.sandbox.macos import runner  # noqa: PLC0415 - not on Linux

        return runner.run(run_spec, os.environ)
    name = ""
    started: Sandbox | None = None
    proxy: ProxyProcess | None = None
    with Interruptions() as interruptions:
        try:
            with live_sandbox(run_spec, say=say) as sandbox:
                name, started, proxy = sandbox.name, sandbox, sandbox.proxy_process
                try:
                    if run_spec.verify and not _verify(sandbox, run_spec, say):
                        return _CHECKS_FAILED
                    began_ns = time.time_ns()  # what the checks are denied is as it should be
                    code = _run(sandbox, run_spec, say)
                    sandbox.let_go()
                finally:
                    interruptions.ignore()  # so that everything is cleaned up
        except Interrupted as interrupted:
            if started is not None:
                _report_changes(started, say)  # everything inside has ended
            _reports().report_unrecorded(run_spec, proxy and proxy.unrecorded, say)
            if run_spec.clone and name:
                _clones().report(run_spec, name, say)
            return 128 + interrupted.number
    _reports().report_unrecorded(run_spec, proxy and proxy.unrecorded, say)
    if run_spec.sandbox.has_proxy and (proxy is None or proxy.was_ready):
        _reports().report_denials(run_spec, name, began_ns, say)
    if run_spec.clone:
        _clones().report(run_spec, name, say)
    return code


def _reports() -> "ModuleType":
    from claude_proxy.sandbox import run_reports  # noqa: PLC0415 - after COMMAND

    return run_reports


def _clones() -> "ModuleType":
    from claude_proxy.sandbox import run_clone  # noqa: PLC0415 - few runs work in a clone

    return run_clone


def _run(sandbox: Sandbox, run_spec: RunSpec, say: Reporter) -> int:
    if not sandbox.bubblewrap.watchdog.limits_processes:
        say("note: --max-processes has no effect: this kernel cannot count a sandbox's processes")
    gc.freeze()  # what the start has made stays, so that no collection looks at it
    gc.enable()
    with Terminal.controlling() as terminal:
        own_session = "--new-session" in sandbox.plan.options
        code = JobControl(
            sandbox.bubblewrap,
            terminal,
            own_session=own_session,
            grace_s=run_spec.settings.limits.grace_s,
            guard=sandbox.guard,
            proxy=sandbox.proxy_process,
        ).run()
    lost = tuple(sandbox.lost())
    if sandbox.guard is not None:
        code = _report_guard(sandbox.guard, code, say)
    if sandbox.proxy_process is not None:
        code = _report_proxy(sandbox.proxy_process, code, say)
        sandbox.proxy_process.drop_if_unused()  # it takes a processor from what follows
    code = sandbox.streams.finish(code, say)
    for name, size in sandbox.bubblewrap.watchdog.killed():
        say(
            f"warning: {name!r} was killed, which used {size >> 20} MiB: all processes together "
            "used more memory than --max-memory"
        )
    for helper in lost:
        if helper is sandbox.proxy_process and sandbox.proxy_process.start_error is not None:
            continue
        ended = helper_end.words_of(helper.end_code())
        see = f" (see {sandbox.log})" if helper_end.has_said(sandbox.log) else ""
        say(
            f"warning: the {helper.what} of this run (process {helper.pid}) {ended} before COMMAND "
            f"ended; {helper.loss}{see}"
        )
    _report_changes(sandbox, say)
    lookups = sandbox.lookups.ask()
    for line in _reports().lookup_lines(lookups):
        say(line)
    if (learn := run_spec.settings.learn) is not None:
        from claude_proxy.audit.learn import usage_of  # noqa: PLC0415 - few runs learn

        say(
            f"learning: hosts are written into {learn[1]}; to use them, write in a policy: "
            f"{usage_of(learn[1], run_spec.settings.confdir)}"
        )
    for relay in sandbox.helpers:
        relay.close_lifeline()  # they end while the end is recorded
    with contextlib.suppress(ClaudeProxyError):  # the exit code of COMMAND must not be lost
        ended = f"run {sandbox.name}: exit code {code}"
        run_record.record(
            run_spec.settings,
            *(
                Notice(0, "name-lookup", f"run {sandbox.name}: {line}", run=sandbox.name)
                for line in lookups.lines()
            ),
            Notice(0, "run-end", ended, run=sandbox.name),
        )
    return code


def _report_changes(sandbox: Sandbox, say: Reporter) -> None:
    """Name what the run created or changed of all that programs outside obey."""
    from claude_proxy.sandbox import obeyed_report, obeyed_states  # noqa: PLC0415 - at the end

    before, plan = sandbox.obeyed, sandbox.plan
    after = obeyed_states.states_after(plan.watched_trees, plan.watched, before.scripts)
    changes = list(after.changed_since(before))
    protected = {str(path) for path in protected_files(plan.mounts)}
    watched = {str(path) for path in plan.watched}
    unknown = after.not_looked_at(before)
    for line in obeyed_report.report(changes, unknown, protected, watched):
        say(line)


def _report_guard(guard: MountGuard, code: int, say: Reporter) -> int:
    """Say what the host replaced; return the run's exit code."""
    guard.finish()
    if guard.ended is None:
        return code
    for line in guard.ended.lines():
        say(line)
    return EXIT_CODE


def _report_proxy(proxy_process: ProxyProcess, code: int, say: Reporter) -> int:
    """Say why the proxy never became ready, if it failed; return the run's exit code."""
    proxy_process.hear()
    error = proxy_process.start_error
    if error is None:
        return code
    for line in error.lines():
        say(line)
    say("note: COMMAND had begun, without any network, and was ended")
    return error.exit_code


@contextlib.contextmanager
def live_sandbox(
    run_spec: RunSpec,
    *,
    streams: StandardStreams = (None, None, None),
    say: Reporter = lambda _: None,
) -> Iterator[Sandbox]:
    """Create a sandbox with all its helper processes; clean up on the way out.

    COMMAND starts with `Sandbox.finish` or `Bubblewrap.release`.
    """
    _check(run_spec)
    with _explaining_failures(run_spec), ExitStack() as stack:
        joined = _join(run_spec)
        if joined is not None and joined.foreign:
            say(
                f"note: the proxy on {run_spec.join} is not claude-proxy; its own rules decide, "
                "and nothing is recorded here"
            )
            run_spec = replace(run_spec, foreign=True)
        bindings = credentials.bindings_of(run_spec)
        credentials.refuse_reachable(run_spec, bindings, os.environ)
        run_directory = stack.enter_context(
            RunDirectory.make(run_spec.words, name=run_spec.name, project=run_spec.sandbox.project)
        )
        log = stack.enter_context(
            contextlib.closing(open_log(run_spec.settings.statedir, run_directory.name))
        )
        ports = stack.enter_context(_mapped_ports(run_spec, say))
        starting = stack.enter_context(ExitStack())  # undone if COMMAND is not started
        proxy_process = None
        if run_spec.sandbox.has_proxy and joined is None:
            proxy_process = stack.enter_context(_own_proxy(run_spec, run_directory, log, say))
        standard, supervisor, held = stack.enter_context(
            _early_helpers(run_spec, streams, run_directory, log)
        )
        if run_spec.clone:  # while the processes start
            run_spec = _clones().prepare(run_spec, run_directory.name, stack, starting, say)
        followed = shown_list.place_in(run_directory.path) if proxy_process else None
        git = stack.enter_context(
            private_repositories.prepared(
                run_spec.sandbox, run_spec.settings.statedir, run_directory.name, say
            )
        )
        planned = _plan_and_report(run_spec, bindings, followed, git, say)
        _scrub(planned.withheld)
        if planned.agent_home is not None:
            from claude_proxy.sandbox import agent_home  # noqa: PLC0415 - only agents have one

            stack.enter_context(
                agent_home.prepared(planned.agent_home, lambda line: say(f"note: {line}"))
            )
        starting.callback(created_paths.remove, created_paths.create(planned))
        sources = MountSources.opened(planned, _project_id(run_spec, planned, git))
        starting.callback(sources.close)
        bubblewrap, supervisor = stack.enter_context(
            _bubblewrap(run_spec, planned, run_directory, supervisor, standard, held)
        )
        lookups = stack.enter_context(LookupChannel())
        relays = _relays(run_spec, joined, bubblewrap, run_directory, log, lookups, stack, ports)
        helpers: tuple[HelperProcess, ...] = tuple(relays)
        published = stack.enter_context(
            _published_ports(ports, bubblewrap.init, run_directory, log)
        )
        guard = stack.enter_context(
            mount_guard(planned.guarded, bubblewrap.init, run_directory, log, say)
        )
        _record_start(run_spec, run_directory, proxy_process, ports)
        from claude_proxy.sandbox import obeyed_states  # noqa: PLC0415 - while the proxy starts

        scripts = named_scripts.scripts_of(planned)
        obeyed = obeyed_states.states_before(planned.watched_trees, planned.watched, scripts)
        stack.enter_context(commit_bringer(git, run_directory, log))
        if proxy_process is not None:
            proxy_process.wait_until_checked()
        _wait_until_mounted(planned, git, sources, bubblewrap.init, guard)
        helpers = (
            *helpers,
            *_ready(published, say),
            *_entered(supervisor, bubblewrap, run_spec.sandbox, say),
        )
        sandbox = Sandbox(
            run_directory.name,
            run_directory.path,
            planned,
            bubblewrap,
            proxy_process,
            helpers,
            log.path,
            obeyed,
            lookups,
            standard,
            guard,
        )
        _check_alive(sandbox)
        starting.pop_all()
        yield sandbox


@contextlib.contextmanager
def _mapped_ports(run_spec: RunSpec, say: Reporter) -> "Iterator[RunPorts | None]":
    if not run_spec.maps_ports:
        yield None
        return
    from claude_proxy.sandbox import run_ports  # noqa: PLC0415 - few runs map ports

    with run_ports.opened(run_spec, say) as ports:
        yield ports


@contextlib.contextmanager
def _published_ports(
    ports: "RunPorts | None", init: int, run_directory: RunDirectory, log: RunLog
) -> "Iterator[tuple[PortPublisher, ...]]":
    if ports is None:
        yield ()
        return
    with ports.published(init, run_directory, log) as publishers:
        yield publishers


def _ready(publishers: "tuple[PortPublisher, ...]", say: Reporter) -> "Iterator[PortPublisher]":
    for publisher in publishers:
        publisher.wait_until_ready(StartPatience(say))
        yield publisher


def _wait_until_mounted(
    planned: SandboxPlan,
    git: GitMounts,
    sources: MountSources,
    init: int,
    guard: MountGuard | None,
) -> None:
    """Wait until everything is mounted as planned, and is guarded."""
    host_facts.check_mounts(planned, init)
    git_links.cover_links(git, init)
    sources.check(init)
    if guard is not None:
        guard.watch()


def _project_id(run_spec: RunSpec, planned: SandboxPlan, git: GitMounts) -> FileId | None:
    """Return what the project's mount must show; None if that is a copy of a bare repository."""
    expected = run_spec.sandbox.project_id
    if not git.covers(planned.project) or expected is None:
        return expected
    refuse_replaced(planned.project, expected)
    return None


def _join(run_spec: RunSpec) -> "JoinedProxy | None":
    """Wait for the proxy that the run joins, if it joins one."""
    if run_spec.join is None or not run_spec.sandbox.has_proxy:
        return None
    from claude_proxy.sandbox import joined_proxy  # noqa: PLC0415 - few runs join one

    target = wait_for_proxy(run_spec.join)
    login = run_spec.settings.credentials
    return joined_proxy.examine(target, login, announces=run_spec.announces)


@contextlib.contextmanager
def _explaining_failures(run_spec: RunSpec) -> Iterator[None]:
    """Find out, where bwrap has failed, what this machine lacks: to try it takes long."""
    try:
        yield
    except SandboxFailedError as error:
        wanted = run_spec.sandbox.seccomp
        if missing := host_facts.problems(os.environ, seccomp_wanted=wanted):
            raise MissingError(missing) from error
        raise


def _check(run_spec: RunSpec) -> None:
    """Raise if something that the run needs is missing, or would be writable inside."""
    spec = run_spec.sandbox
    if not spec.shell:
        find_program(spec.command, os.environ, spec.project)  # first: a shell's exit code
    if missing := host_facts.missing_programs(os.environ, seccomp_wanted=spec.seccomp):
        raise MissingError(missing)
    refuse_reachable(run_spec)


def _plan_and_report(
    run_spec: RunSpec, bindings: Bindings, followed: Path | None, git: GitMounts, say: Reporter
) -> SandboxPlan:
    """Return the plan, and print its notes and warnings."""
    learn = run_spec.settings.learn
    if learn is not None and learn[0] is Learn.EVERYTHING:
        say(f"warning: learning: all that no deny rule covers is allowed, and added to {learn[1]}")
    planned = planned_for(run_spec, bindings, followed=followed, git=git)
    for note in planned.notes:
        say(f"note: {note}")
    for warning in (*planned.warnings, *credentials.warnings_of(run_spec)):
        say(f"warning: {warning}")
    if run_spec.join is not None and bindings:
        say(
            f"note: the placeholders are those of {run_spec.settings.allowlist}; the proxy on "
            f"{run_spec.join} must use the same allowlist"
        )
    if run_spec.show_plan:
        for line in planned.lines():
            say(line)
    return planned


def _scrub(names: frozenset[str]) -> None:
    """Erase variables that hold credentials; the proxy already has them."""
    if any(name in os.environ for name in names):
        from claude_proxy.system import process_memory  # noqa: PLC0415 - few runs have any

        process_memory.scrub_environment(names)


@contextlib.contextmanager
def _early_helpers(
    run_spec: RunSpec, streams: StandardStreams, run_directory: RunDirectory, log: RunLog
) -> Iterator[tuple[Streams, SocketSupervisor | None, HeldStart]]:
    """Start what bwrap needs and no plan decides on: they start while the plan is made."""
    spec, supervisor = run_spec.sandbox, None
    private = spec.unix_sockets is UnixSockets.PRIVATE
    bwrap = host_facts.find_bwrap(os.environ, spec.project)
    waiting_process.discard()  # one that was started for a run without a proxy of its own
    with ExitStack() as stack:
        held = stack.enter_context(HeldStart())
        standard = stack.enter_context(Streams.of(streams, run_directory, log))
        if spec.seccomp and seccomp_notify.is_supported(str(bwrap), private=private):
            supervisor = stack.enter_context(start_socket_supervisor(run_directory, log))
        yield standard, supervisor, held


@contextlib.contextmanager
def _bubblewrap(  # noqa: PLR0913 - what was started before is handed in
    run_spec: RunSpec,
    planned: SandboxPlan,
    run_directory: RunDirectory,
    supervisor: SocketSupervisor | None,
    standard: Streams,
    held: HeldStart,
) -> Iterator[tuple[Bubblewrap, SocketSupervisor | None]]:
    """Start bwrap, and with it the reports to the supervisor of its Unix sockets, if any."""
    spec, streams = run_spec.sandbox, standard.of_command
    private = spec.unix_sockets is UnixSockets.PRIVATE
    with ExitStack() as stack:
        bubblewrap = None
        if supervisor is not None:
            prepare = functools.partial(supervisor.install, private=private)
            reported = Reported.SOCKETS if private else Reported.PAIRS
            # An outer sandbox may refuse it; then there are no such sockets.
            with contextlib.suppress(subprocess.SubprocessError):
                filter_ = seccomp.program(reported=reported)
                bubblewrap = Bubblewrap.start(planned, filter_, streams, prepare, held)
        if bubblewrap is None:
            supervisor = None
            strict = seccomp.program() if spec.seccomp else None
            bubblewrap = Bubblewrap.start(planned, strict, streams, held=held)
        stack.enter_context(bubblewrap)
        standard.let_go()
        for pid in (bubblewrap.process.pid, bubblewrap.init, bubblewrap.watchdog.process.pid):
            run_directory.note(pid)
        yield bubblewrap, supervisor if private else None


def _entered(
    supervisor: SocketSupervisor | None, bubblewrap: Bubblewrap, spec: SandboxSpec, say: Reporter
) -> Iterator[HelperProcess]:
    """Let the supervisor of the sandbox's Unix sockets enter it, and yield it."""
    if supervisor is not None:
        supervisor.enter(bubblewrap.init, unfiltered=spec.unfiltered)
        yield supervisor
    elif spec.seccomp and spec.unix_sockets is UnixSockets.PRIVATE:
        say(
            "note: COMMAND has no Unix sockets: this kernel, or a sandbox around this one, gives "
            "no way to judge them"
        )


def _relays(  # noqa: PLR0913 - everything that a relay connects
    run_spec: RunSpec,
    joined: "JoinedProxy | None",
    bubblewrap: Bubblewrap,
    run_directory: RunDirectory,
    log: RunLog,
    lookups: LookupChannel,
    stack: ExitStack,
    mapped: "RunPorts | None" = None,
) -> Iterator[HelperProcess]:
    """Yield the relays of a run."""
    if not run_spec.sandbox.has_proxy:
        return
    # The run's own proxy knows for whom it listens.
    announced = (
        RelayAnnouncement(program_of(run_spec.words), joined.password_proof)
        if joined is not None and run_spec.announces
        else None
    )
    with _attribute_errors_to_bwrap(bubblewrap), ExitStack() as closing:
        for relay in run_network.start_relays(
            run_network.sockets_in(bubblewrap.init, run_spec, closing, mapped),
            run_directory,
            log,
            lookups,
            upstream=joined.target if joined else None,
            announced=announced,
        ):
            yield stack.enter_context(relay)


@contextlib.contextmanager
def _attribute_errors_to_bwrap(bubblewrap: Bubblewrap) -> Iterator[None]:
    """Report an error as bwrap's if bwrap has ended: it mounts after creating the namespaces."""
    try:
        yield
    except ClaudeProxyError as error:
        with contextlib.suppress(subprocess.TimeoutExpired):
            bubblewrap.process.wait(_GRACE_S)
            raise failed(bubblewrap.process) from error
        raise


def planned_for(
    run_spec: RunSpec,
    bindings: Bindings | None = None,
    *,
    followed: Path | None = None,
    git: GitMounts | None = None,
    dry: bool = False,
) -> SandboxPlan:
    """Return the plan of a run; start nothing, and for a dry run create nothing.

    `followed` is the directory for a copy of the allowlist that follows the list; `git` are the
    Git directories that were made for the run.
    """
    settings = run_spec.settings
    if dry and run_spec.clone:
        run_spec = _clones().as_planned(run_spec)
    if bindings is None:
        bindings = credentials.bindings_of(run_spec)
        credentials.refuse_reachable(run_spec, bindings, os.environ)
    spec = credentials.with_isolation(run_spec, bindings, os.environ, dry=dry)
    shown = dict.fromkeys(SHOWN, b"") if dry else shown_files(run_spec)
    if followed is not None:
        shown_list.write(followed, shown)
    seen = host_facts.gather(
        spec,
        environ=os.environ,
        confdir=settings.confdir,
        statedir=settings.statedir,
        run_directory=base_of(os.environ),
        shown=shown,
        followed=followed,
        git=git or private_repositories.found_in(spec, settings.statedir, run_spec.name or "RUN"),
    )
    planned = plan_sandbox(spec, seen)
    notes = refuse_second_names(protected_files(planned.mounts))
    return replace(planned, notes=(*planned.notes, *notes))


def _own_proxy(
    run_spec: RunSpec, run_directory: RunDirectory, log: RunLog, say: Reporter
) -> ProxyProcess:
    """Start a proxy that listens on the run's sockets only."""
    settings = run_spec.settings
    with ExitStack() as closing:
        listeners = own_proxy.listen(settings, run_directory, closing)
        run = _identity_of(run_directory, run_spec)
        return own_proxy.start(settings, run, listeners, run_directory, log, say)


def _check_alive(sandbox: Sandbox) -> None:
    """Raise if a process of the sandbox has already ended."""
    if not sandbox.bubblewrap.alive:
        raise failed(sandbox.bubblewrap.process)
    if sandbox.proxy_process is not None:
        sandbox.proxy_process.hear()
        if sandbox.proxy_process.start_error is not None:
            raise sandbox.proxy_process.start_error
    for helper in sandbox.lost():
        raise helper.failed(sandbox.log)


def _identity_of(run_directory: RunDirectory, run_spec: RunSpec) -> RunIdentity:
    project = str(run_spec.sandbox.project)
    return RunIdentity(run_directory.name, program_of(run_spec.words), project=project)


def _record_start(
    run_spec: RunSpec,
    run_directory: RunDirectory,
    proxy_process: ProxyProcess | None,
    ports: "RunPorts | None",
) -> None:
    """Record the start, unless the run's own proxy does, which has the record open."""
    if ports is not None:
        run_record.record_or_deny(run_spec.settings, *ports.notices(run_directory.name))
    if proxy_process is None:
        run_record.record_start(run_spec.settings, _identity_of(run_directory, run_spec))


def _verify(sandbox: Sandbox, run_spec: RunSpec, say: Reporter) -> bool:
    """Print the results of the self-check; return whether all checks passed."""
    from claude_proxy.sandbox import self_check  # noqa: PLC0415 - of --verify

    if sandbox.proxy_process is not None:
        sandbox.proxy_process.wait_until_ready()  # a check that waits for it would count as failed
    allowed, denied = verified_targets(run_spec)
    probe = netns.probe_network(sandbox.bubblewrap.init, HTTP_PORT, allowed, denied)
    found = list(self_check.checks(probe, HTTP_PORT, allowed, denied))
    for check in found:
        say(str(check))
    return self_check.all_passed(found)
