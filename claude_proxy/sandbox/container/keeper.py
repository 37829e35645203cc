"""Keeper: the process that owns the proxy and the relay of one running container.

It is a child of the launcher, which it outlives: a container goes on when its terminal is gone. It
holds the run's directory, the listening sockets and the lifelines, starts a proxy or a relay again
that has died, and ends when the first process of the container does. Law kept: fail closed: while
nothing serves the sockets, the container has no network.
"""

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from claude_proxy.config.settings import RunIdentity
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.events import Notice
from claude_proxy.sandbox import netns, own_proxy, run_network, run_record
from claude_proxy.sandbox.container import (
    enter,
    keeper_link,
    process_state,
    removal,
    untold,
    ways_in,
)
from claude_proxy.sandbox.container.enter import HookCall
from claude_proxy.sandbox.container.keeper_link import LauncherLink
from claude_proxy.sandbox.container.keeper_task import KeeperTask
from claude_proxy.sandbox.container.kept_helpers import KeptHelper
from claude_proxy.sandbox.container.plan.model import ContainerStatus
from claude_proxy.sandbox.container.plan.planner import SHOWN
from claude_proxy.sandbox.container.project_wall import ProjectWall, is_alive
from claude_proxy.sandbox.container.ways_in import WayTask
from claude_proxy.sandbox.helper_processes import HelperProcess, ProxyProcess
from claude_proxy.sandbox.lookups import LookupChannel
from claude_proxy.sandbox.run_directory import RunDirectory, program_of
from claude_proxy.sandbox.run_log import RunLog, open_log
from claude_proxy.sandbox.run_network import RunSockets
from claude_proxy.sandbox.run_reports import lookup_lines
from claude_proxy.sandbox.run_spec import RunSpec
from claude_proxy.sandbox.start_patience import StartPatience
from claude_proxy.system import collection

if TYPE_CHECKING:
    from claude_proxy.sandbox.run_ports import RunPorts

_HOOK_PATIENCE_S = 120.0
_CODE_PATIENCE_S = 10.0
_FIRST_LOOK_S, _MOST_LOOK_S = 0.02, 0.5  # between looks whether the engine has started it


def _leave_streams(log: RunLog) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    for stream in (1, 2):
        os.dup2(log.file.fileno(), stream)


def _opened_ports(
    run_spec: RunSpec, launcher: LauncherLink
) -> "contextlib.AbstractContextManager[RunPorts]":
    from claude_proxy.sandbox import run_ports  # noqa: PLC0415 - few containers map ports

    return run_ports.opened(run_spec, launcher.say)


class Keeper:
    """One container, from before its first process to after its last."""

    def __init__(self, task: KeeperTask, launcher: LauncherLink, stack: ExitStack) -> None:
        self._task, self._launcher, self._stack = task, launcher, stack
        self._settings = task.run.settings
        self._words = task.run.words or (task.name,)
        self._run_directory = stack.enter_context(
            RunDirectory.make(
                self._words,
                name=task.name,
                project=task.run.sandbox.project,
                attended=task.attended,
            )
        )
        self._log = open_log(self._settings.statedir, task.name)
        stack.callback(self._log.close)
        self._terminal = os.dup(2) if task.attended else None
        _leave_streams(self._log)
        self._orders = stack.enter_context(keeper_link.order_socket(task.directory))
        self._helpers: list[KeptHelper] = []
        self._lookups: LookupChannel | None = None
        self._listeners: list[socket.socket] = []
        self._sockets: RunSockets | None = None
        self._ports: RunPorts | None = None
        self._pid = task.pid
        self._wall = None if task.project is None else ProjectWall(task.project, self._tell)
        self._exit_code: int | None = None
        self._is_over = False
        self._is_recorded = False  # its start is in the audit log
        self._is_failed = False  # the launcher says that CMD was not started

    def keep(self) -> None:
        """Start everything, let the container start, and serve it until its end."""
        try:
            init = self._start()
        except ClaudeProxyError as error:
            self._exit_code = error.exit_code if self._exit_code is None else self._exit_code
            self._end_start()
            raise
        except BaseException:
            self._end_start()
            raise
        try:
            self._launcher.tell("started", pid=self._pid)
            if self._wall is not None and init >= 0:
                self._wall.begin(self._pid, self._run_directory, self._log, self._stack)
            self._launcher.tell("walled")
            collection.spare_what_exists()  # the launcher had turned it off
            while not self._is_over:
                now = time.monotonic()
                for helper in self._helpers:
                    helper.look_after(now)
                if self._wall is not None:
                    self._wall.look_after(now)
                self._wait(init, now)
        finally:
            self._end()

    # --- the start

    def _start(self) -> int:
        """Return a descriptor of the container's first process, which may run."""
        if self._task.run.maps_ports:
            self._ports = self._stack.enter_context(_opened_ports(self._task.run, self._launcher))
        if self._task.run.sandbox.has_proxy:
            self._listeners = own_proxy.listen(self._settings, self._run_directory, self._stack)
            self._keep_helper("proxy", self._start_proxy)
        if self._wall is not None and not self._task.goes_on:
            self._wall.look()  # while the engine starts
        if self._task.way is not None:
            return self._open_way(self._task.way)
        if self._task.hook is None:
            return self._enter()
        # Until the end: a hook may come to read its answer late, and pipes keep nothing for it.
        call = self._stack.enter_context(contextlib.closing(HookCall(self._task.hook)))
        watched = self._launcher.descriptors
        self._pid = enter.wait_for_hook(call, watched, self._give_up, _HOOK_PATIENCE_S)
        init = self._enter()
        if self._wall is not None:
            self._wall.check(self._pid)
        call.answer(go=True)
        return init

    def _give_up(self, _descriptor: int) -> None:
        """End with the launcher, which is gone, or says that the engine has failed."""
        self._hear_launcher()
        raise ClaudeProxyError("the start was given up")

    def _enter(self) -> int:
        """Make the sockets in the container's namespace, and serve them."""
        try:
            init = os.pidfd_open(self._pid)
        except OSError as error:
            raise ClaudeProxyError(
                f"the container ended before it had its network: {(error.strerror or '').lower()}",
                where=f"process {self._pid}",
                fix="try again; see `claude-proxy container logs`, and what ends its processes",
            ) from error
        self._stack.callback(os.close, init)
        enter.check_network(self._pid)
        self._serve(partial(netns.listeners, self._pid), notes_lookups=True)
        return init

    def _open_way(self, way: WayTask) -> int:
        """Make the sockets first, and let the launcher have the engine start the container."""
        opened = ways_in.open_way(way, self._task.engine, self._task.directory)
        self._stack.callback(opened.close)
        self._pid = opened.pid
        self._serve(opened.listeners, notes_lookups=opened.notes_lookups)
        self._launcher.tell("ready")
        return self._await_container()

    def _await_container(self) -> int:
        """Return a descriptor that is readable once the container has ended, which runs now.

        It may be over before it was seen: the launcher says so.
        """
        engine, name, pause = self._task.engine, self._task.name, _FIRST_LOOK_S
        while not self._is_over:
            state = engine.inspect(name)
            if state is not None and state.status is ContainerStatus.RUNNING:
                self._pid = state.pid
                self._check_running()
                return self._stack.enter_context(ways_in.ended_with(engine.waiting(name)))
            if not self._launcher.descriptors:
                break
            if select.select(self._launcher.descriptors, [], [], pause)[0]:
                self._hear_launcher()
            pause = min(2 * pause, _MOST_LOOK_S)
        self._is_over = True
        return -1

    def _check_running(self) -> None:
        """Compare what is mounted in a container that no hook holds back; kill it if it differs."""
        place = f"/proc/{self._pid}/ns/mnt"
        if self._wall is None or self._task.goes_on or not os.access(place, os.R_OK):
            return  # it has ended, or the wall says that it cannot guard it
        try:
            self._wall.check(self._pid)
        except ClaudeProxyError:
            if is_alive(self._pid):
                with contextlib.suppress(ClaudeProxyError):
                    self._task.engine.kill(self._task.name, "KILL")
                raise

    def _serve(self, listeners: ways_in.Listeners, *, notes_lookups: bool) -> None:
        """Have a relay serve the sockets that `listeners` makes, once the proxy has started."""
        run_spec = self._task.run
        if not run_spec.sandbox.has_proxy:
            run_record.record_start(self._settings, self._identity(goes_on=False))
            self._is_recorded = True
        elif notes_lookups:
            self._sockets = run_network.sockets_in(
                self._pid or os.getpid(), run_spec, self._stack, self._ports, listeners
            )
            self._keep_helper("relay", self._start_relays)
        else:
            (listener,) = listeners((), ())
            self._sockets = RunSockets(os.getpid(), (self._stack.enter_context(listener),))
            self._keep_helper("relay", self._start_relays)
        self._publish()
        for proxy in self._proxies():
            proxy.wait_until_checked()

    def _publish(self) -> None:
        """Serve the ports that programs of this machine may reach, if there are any."""
        if self._ports is None:
            return
        run_record.record_or_deny(self._settings, *self._ports.notices(self._task.name))
        terminal = 2 if self._terminal is None else self._terminal
        served = self._ports.published(self._pid, self._run_directory, self._log, terminal)
        for publisher in self._stack.enter_context(served):
            publisher.wait_until_ready(StartPatience(self._launcher.say))

    def _keep_helper(self, what: str, start: Any) -> None:
        self._helpers.append(KeptHelper(what, start, self._note))

    def _identity(self, *, goes_on: bool) -> RunIdentity:
        return RunIdentity(
            self._task.name,
            program_of(self._words),
            self._task.image_digest,
            goes_on,
            project=str(self._task.run.sandbox.project),
            is_container=True,
        )

    def _start_proxy(self, again: bool) -> list[HelperProcess]:  # noqa: FBT001 - of KeptHelper
        process = own_proxy.start(
            self._settings,
            self._identity(goes_on=again or self._task.goes_on),
            self._listeners,
            self._run_directory,
            self._log,
            self._launcher.say,
            self._task.directory / SHOWN,
        )
        return [process]

    def _start_relays(self, _again: bool) -> list[HelperProcess]:  # noqa: FBT001 - as above
        if self._sockets is None:
            return []
        self._lookups = LookupChannel()
        with self._lookups.theirs:
            directory, log = self._run_directory, self._log
            return [*run_network.start_relays(self._sockets, directory, log, self._lookups)]

    def _proxies(self) -> list[ProxyProcess]:
        return [one for one in self._processes() if isinstance(one, ProxyProcess)]

    # --- while the container runs

    def _wait(self, init: int, now: float) -> None:
        """Wait until something has ended, or somebody says something."""
        waiting = select.poll()
        for descriptor in (init, self._orders.fileno(), *self._launcher.descriptors):
            waiting.register(descriptor, select.POLLIN)
        if self._wall is not None and (guard := self._wall.fileno()) is not None:
            waiting.register(guard, select.POLLIN)
        reports = (proxy.report for proxy in self._proxies())
        for report in (report for report in reports if report is not None):
            waiting.register(report, select.POLLIN)
        with ExitStack() as closing:
            try:
                self._watch_helpers(waiting, closing)
            except ProcessLookupError:
                return  # one has ended just now: it is looked after at once
            dues = [helper.due for helper in self._helpers]
            dues += [] if self._wall is None else [self._wall.due]
            due = [at - now for at in dues if at is not None]
            ready = dict(waiting.poll(max(0.0, min(due)) * 1000 + 1 if due else None))
        if self._wall is not None and self._wall.fileno() in ready:
            self._wall.hear()
        if init in ready:
            self._is_over = True
        if self._orders.fileno() in ready:
            self._serve_order()
        if any(descriptor in ready for descriptor in self._launcher.descriptors):
            self._hear_launcher()

    def _watch_helpers(self, waiting: select.poll, closing: ExitStack) -> None:
        for helper in self._helpers:
            for process in helper.alive:
                ended = os.pidfd_open(process.pid)
                closing.callback(os.close, ended)
                waiting.register(ended, select.POLLIN)

    def _tell(self, line: str) -> None:
        """Tell the user something, or keep it for the next command where nobody waits any more."""
        if self._launcher.descriptors:
            self._launcher.say(line)
        else:
            self._note(line)
            untold.keep(self._settings.statedir, self._task.name, line)

    def _note(self, text: str) -> None:
        """Write a line into the log, and into the audit log."""
        with contextlib.suppress(OSError):
            os.write(2, f"claude-proxy: {text}\n".encode())
        name = self._task.name
        with contextlib.suppress(ClaudeProxyError):
            run_record.record(self._settings, Notice(0, "keeper", f"run {name}: {text}", run=name))

    def _hear_launcher(self) -> None:
        """Hear the exit code; a launcher that is gone does not end the container."""
        said = self._launcher.hear()
        if said is not None and said["order"] == "leave":
            self._launcher.drop()
        elif said is not None and said["order"] == "exit" and self._goes_on():
            self._launcher.say(
                f"warning: {self._task.engine.kind} has lost the container, which runs on, with "
                f"its proxy; to end it: claude-proxy container rm --force {self._task.name}"
            )
            self._launcher.tell("ended")
            self._launcher.drop()
        elif said is not None:
            self._exit_code, self._is_over = int(said["code"]), True
            self._is_failed = said["order"] == "failed"

    def _goes_on(self) -> bool:
        """Tell whether CMD runs although the engine's call has ended, as without its conmon."""
        is_entered = self._task.way is None and self._task.removed is None
        return is_entered and self._pid > 0 and not process_state.has_ended(self._pid)

    def _serve_order(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            client, _ = self._orders.accept()
            with client:
                client.settimeout(keeper_link.PATIENCE_S)
                answer = self._answer(json.loads(keeper_link.line_from(client)))
                client.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        if order["order"] == "status":
            return self._status()
        return {"error": f"unknown order {order['order']}"}

    def _status(self) -> Mapping[str, Any]:
        running = {helper.what: [one.pid for one in helper.alive] for helper in self._helpers}
        return {
            "name": self._task.name,
            "keeper": os.getpid(),
            "pid": self._pid,
            "helpers": running,
            "restarts": sum(helper.restarts for helper in self._helpers),
            "socket": str(self._run_directory.socket_path),
        }

    # --- the end

    def _end_start(self) -> None:
        """End the helpers of a container that was not started, and record that, too."""
        for proxy in self._proxies():
            with contextlib.suppress(ClaudeProxyError):
                proxy.wait_until_checked()  # it records the start, or fails
            self._is_recorded |= proxy.start_error is None and not self._task.goes_on
        self._end_helpers()
        if self._is_recorded:
            self._is_failed = True
            self._record_end()

    def _end(self) -> None:
        """Record the end, end the helpers, and tell the launcher what is left to say."""
        if self._lookups is not None:
            for line in lookup_lines(self._lookups.ask()):
                self._launcher.say(line)
        for process in self._processes():
            process.close_lifeline()
        try:
            if self._wall is not None:
                self._wall.end()
        finally:
            self._await_exit_code()
            self._record_end()
        self._end_helpers()
        if self._task.removed is not None and not self._launcher.descriptors:
            removal.forget(self._settings.statedir, self._task.removed, self._task.engine)
        for proxy in self._proxies():
            if proxy.unrecorded is not None:
                count, why = proxy.unrecorded
                self._launcher.say(f"warning: {count} decisions were not recorded: {why.what}")

    def _await_exit_code(self) -> None:
        """Wait for what the launcher learns from the engine, which takes the container down."""
        descriptors = self._launcher.descriptors
        run_record.load()  # while the engine takes it down
        if self._exit_code is not None or not descriptors:
            return
        if select.select(descriptors, [], [], _CODE_PATIENCE_S)[0]:
            self._hear_launcher()

    def _end_helpers(self) -> None:
        for process in self._processes():
            process.close_lifeline()
        for process in self._processes():
            process.end()

    def _processes(self) -> list[HelperProcess]:
        return [process for helper in self._helpers[::-1] for process in helper.processes]

    def _record_end(self) -> None:
        code = self._exit_code
        if code is None and not self._is_failed:
            with contextlib.suppress(ClaudeProxyError):
                state = self._task.engine.inspect(self._task.name)
                code = None if state is None else state.exit_code
        what = "its exit code is unknown" if code is None else f"exit code {code}"
        self._record(f"its container was not started: {what}" if self._is_failed else what)

    def _record(self, what: str) -> None:
        """Record the end of the run."""
        name = self._task.name
        with contextlib.suppress(ClaudeProxyError):
            run_record.record(self._settings, Notice(0, "run-end", f"run {name}: {what}", run=name))
