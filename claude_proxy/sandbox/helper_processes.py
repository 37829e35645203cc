"""Helper processes of a sandbox: the proxy of its run, and the relay to it.

Each has its own session, so Ctrl-C in the terminal does not reach it. Each holds the read end of a
lifeline, a pipe whose write end only the launcher has: when the launcher ends, for any reason, the
helper ends as well. Its output goes to a log, not to the terminal.

Law kept: secrets stay outside. Every process of a user can read the initial environment of the
user's other processes in /proc. So each helper is started with a few harmless variables, and the
proxy gets the rest, which may contain credentials, through a pipe.
"""

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from claude_proxy.config.loaded_policy import Loaded
from claude_proxy.config.settings import Settings
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import (
    helper_end,
    own_programs,
    proxy_process_ipc,
    shown_list,
    start_patience,
    waiting_process,
)
from claude_proxy.sandbox.bubblewrap import seccomp_notify
from claude_proxy.sandbox.lookups import LookupChannel
from claude_proxy.sandbox.relay.relay_target import RelayTarget
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import RunLog
from claude_proxy.sandbox.start_patience import StartPatience
from claude_proxy.sandbox.waiting_process import WaitingProcess
from claude_proxy.wire import proxy_protocol

if TYPE_CHECKING:
    from claude_proxy.sandbox.waiting_process import ChildProcess

JOIN_PATIENCE_S = 4.0

# By their names, as they would take milliseconds to import.
_PUMP = "claude_proxy.sandbox.stream_pump"
_RELAY = "claude_proxy.sandbox.relay.relay"
_SUPERVISOR = "claude_proxy.sandbox.bubblewrap.unix_sockets"
_ENTER, _OPEN, _READY = b"enter", b"open", b"ready"  # as in bubblewrap/unix_sockets.py

_START_PATIENCE_S = 120.0
_JOIN_PAUSE_S = 0.1
_END_PATIENCE_S = 5.0
_MESSAGE_LIMIT = 256
_SERVE = "try `claude-proxy serve` with the same options"


class HelperProcess:
    """A process outside the sandbox, and the lifeline whose closing ends it."""

    # What its end means for the sandbox.
    loss = "after that the sandbox had no network"

    def __init__(self, what: str, process: "ChildProcess", lifeline: int) -> None:
        self.what = what
        self.process = process
        self._lifeline: int | None = lifeline

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it is running, and has not begun to end.

        A process closes its files before its exit code can be collected. A client inside that has
        lost its connection has seen this end, so it is seen here as well.
        """
        return self.process.poll() is None and not self._has_closed_its_files()

    def _has_closed_its_files(self) -> bool:
        if self._lifeline is None:
            return False
        waiting = select.poll()
        waiting.register(self._lifeline, 0)  # reports POLLERR once nobody can read the pipe
        return bool(waiting.poll(0))

    def failed(self, log: Path) -> ClaudeProxyError:
        """Return the error for a process that ended too early."""
        code = self.end_code()
        what = f"the {self.what} of this run {helper_end.words_of(code)}; nothing was run"
        return helper_end.error(what, code=code, log=log)

    def end_code(self) -> int | None:
        """Return the exit code of a process that is ending, or -n for signal n; None: it is not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_PATIENCE_S)
        return self.process.returncode

    def close_lifeline(self) -> None:
        """Tell the process to end."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def end(self) -> None:
        """End the process, and wait until it has exited."""
        self.close_lifeline()
        try:
            self.process.wait(_END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()


class ProxyProcess(HelperProcess):
    """The proxy of one run."""

    def __init__(  # noqa: PLR0913 - a process and the pipes to it
        self,
        process: "ChildProcess",
        lifeline: int,
        report: int,
        log: Path,
        patience: StartPatience | None = None,
        unrecorded: int | None = None,
    ) -> None:
        super().__init__("proxy", process, lifeline)
        self._report: int | None = report
        self._log = log
        self._said = b""
        self._is_checked = False
        self.patience = patience or StartPatience()
        self._unrecorded = unrecorded
        # How many decisions could not be recorded, and why; known once it has ended.
        self.unrecorded: tuple[int, ClaudeProxyError] | None = None
        self.was_ready = False  # whether it could serve anybody
        self.start_error: ClaudeProxyError | None = None  # why it never became ready

    @property
    def report(self) -> int | None:
        """The descriptor to `hear` when it is readable; None once it is ready or has failed."""
        return self._report

    def wait_until_checked(self) -> None:
        """Wait until nothing that is configured can stop its start; raise the error if it does.

        Its engine is not there yet: connections wait until it is, or until the run ends.
        """
        self._wait(lambda: self._is_checked)

    def wait_until_ready(self) -> None:
        """Wait until it accepts connections; raise the error that it reports instead."""
        self._wait(lambda: False)

    def hear(self) -> None:
        """Read what it has reported, without waiting; `start_error` is set if it has failed."""
        while self._report is not None and select.select([self._report], [], [], 0)[0]:
            self._read(self._report)
        if self.patience_s == 0:
            self._give_up()

    @property
    def patience_s(self) -> float | None:
        """How long it may still take to become ready; None once it is ready or has failed."""
        return None if self._report is None else self.patience.left_s

    def _wait(self, is_enough: Callable[[], bool]) -> None:
        while self._report is not None and not is_enough():
            if self.patience.readable(self._report, self.pid):
                self._read(self._report)
            else:
                self._give_up()
        if self.start_error is not None:
            raise self.start_error

    def _read(self, report: int) -> None:
        piece = os.read(report, proxy_process_ipc.REPORT_LIMIT)
        *lines, self._said = (self._said + piece).split(b"\n")
        for line in lines:
            if self._report is not None:
                self._take(line + b"\n")
        is_over = not piece or len(self._said) >= proxy_process_ipc.REPORT_LIMIT
        if is_over and self._report is not None:
            self._fail(self._said)

    def _take(self, line: bytes) -> None:
        if line == proxy_process_ipc.CHECKED and not self._is_checked:
            self._is_checked = True
        elif line == proxy_process_ipc.READY:
            self.was_ready = True
            self._close_report()
        else:
            self._fail(line)

    def _give_up(self) -> None:
        self._close_report()
        self.process.kill()  # it may be stopped, and has served nobody
        self.start_error = _late_error(self.pid, self._log)

    def _fail(self, line: bytes) -> None:
        self._close_report()
        self.start_error = proxy_process_ipc.decode_error(line)
        if self.start_error is None:
            code = self.end_code()
            what = f"the proxy of this run {helper_end.words_of(code)} before it was ready"
            self.start_error = helper_end.error(what, code=code, log=self._log, instead=_SERVE)

    def _close_report(self) -> None:
        report, self._report = self._report, None
        if report is not None:
            os.close(report)

    def drop_if_unused(self) -> None:
        """Kill it if it is not ready, as it has served nobody; without waiting for its end."""
        self.hear()
        if self._report is not None:
            self._close_report()
            self.process.kill()

    def end(self) -> None:
        """End the process, wait until it has exited, and remove the log if it is empty."""
        self.drop_if_unused()
        super().end()
        self._hear_unrecorded()
        with contextlib.suppress(OSError):
            if not self._log.stat().st_size:
                self._log.unlink()

    def _hear_unrecorded(self) -> None:
        pipe, self._unrecorded = self._unrecorded, None
        if pipe is not None:
            os.set_blocking(pipe, False)
            with contextlib.suppress(OSError):
                said = os.read(pipe, proxy_process_ipc.REPORT_LIMIT)
                self.unrecorded = proxy_process_ipc.decode_unrecorded(said)
            os.close(pipe)


def _late_error(pid: int, log: Path) -> ClaudeProxyError:
    return ClaudeProxyError(
        f"the proxy of this run was not ready after {start_patience.LIMIT_S:.0f} seconds",
        where=helper_end.place_of(log, f"process {pid}, which was ended"),
        fix=f"check that nothing stops or slows this process; {_SERVE}",
    )


def start_proxy_process(  # noqa: PLR0913 - what a proxy of a run needs
    settings: Settings,
    listeners: Sequence[socket.socket],
    run_directory: RunDirectory,
    log: RunLog,
    loaded: Loaded | None = None,
    say: Callable[[str], None] = lambda _: None,
    followed: Path | None = None,
) -> ProxyProcess:
    """Start the proxy of a run on inherited sockets, without waiting until it is ready.

    `settings` must name the descriptors of `listeners`; `loaded` is their policy, if it has been
    read. It keeps the copy of its list up to date that is in `followed`, by default in the run's
    directory.
    """
    until, lifeline = os.pipe()
    heard, report = os.pipe()
    losses, unrecorded = os.pipe()
    out = log.file.fileno()
    passed = (until, report, unrecorded, out, *(listener.fileno() for listener in listeners))
    task = proxy_process_ipc.encode(
        proxy_process_ipc.Task(
            settings,
            report=report,
            lifeline=until,
            log=out,
            descriptors=passed,
            unrecorded=unrecorded,
            loaded=loaded,
            followed=followed or shown_list.place_in(run_directory.path),
            environ=dict(os.environ),
        )
    )
    patience = StartPatience(say)
    try:
        process = _process_with(task, passed, run_directory.name, log, patience)
    except BaseException:
        for descriptor in (lifeline, heard, losses):
            os.close(descriptor)
        raise
    finally:
        for descriptor in (until, report, unrecorded):
            os.close(descriptor)
    run_directory.note(process.pid)
    return ProxyProcess(process, lifeline, heard, log.path, patience, losses)


def _process_with(
    task: bytes, descriptors: Sequence[int], run: str, log: RunLog, patience: StartPatience
) -> "ChildProcess":
    """Return the process of a proxy that has its task: the one that was started early, if alive."""
    early = waiting_process.take()
    if early is not None and _has_taken(early, task, descriptors, log, patience):
        return early.process
    with _explaining(sys.executable):
        late = waiting_process.WaitingProcess(os.environ, f"claude-proxy-{run}")
    # If it has already ended, its report has the reason.
    _has_taken(late, task, descriptors, log, patience)
    return late.process


def _has_taken(
    waiting: WaitingProcess,
    task: bytes,
    descriptors: Sequence[int],
    log: RunLog,
    patience: StartPatience,
) -> bool:
    """Give a process its task; False if it has ended, an error if it does not take it."""
    try:
        taken = waiting.hand_over(task, descriptors, patience)
    except TimeoutError as error:
        waiting.end()
        raise _late_error(waiting.process.pid, log.path) from error
    except BaseException:  # a signal that ends the run
        waiting.end()
        raise
    if not taken:
        waiting.end()
    return taken


@dataclass(frozen=True, slots=True)
class LookupSockets:
    """The sandbox's sockets for DNS, the channel on which the launcher asks, and its init."""

    udp: socket.socket
    tcp: socket.socket
    channel: LookupChannel
    init: int


# That fake addresses have from the start. Others come with the first name that may be reached
# there; on these, what no rule allows is denied by the proxy, and so recorded, not merely refused.
FAKE_PORTS = (22, 80, 443, 3306, 5432, 6379, 8080, 8443, 9418)


@dataclass(frozen=True, slots=True)
class FakeNetwork:
    """The namespace that the sandbox's fake addresses lead to, and its listeners by port."""

    namespace: int
    names: int  # an open file, in which a relay keeps which name has which address
    listeners: Mapping[int, socket.socket]


@dataclass(frozen=True, slots=True)
class RelaySockets:
    """The sandbox's sockets that one relay serves; `lookups`, if it notes names as well.

    With a fake network, it answers these lookups as the proxy decides.
    """

    listeners: Sequence[socket.socket]
    lookups: LookupSockets | None = None
    fake_network: FakeNetwork | None = None
    # For clients that know of no proxy, and the "host:port" to which each leads.
    tunnels: Sequence[tuple[socket.socket, str]] = ()


@dataclass(frozen=True, slots=True)
class RelayAnnouncement:
    """What a relay tells a proxy that was running already."""

    program: str
    password_proof: str = field(default="", repr=False)


def start_relay(
    sockets: RelaySockets,
    upstream: RelayTarget,
    run_directory: RunDirectory,
    log: RunLog,
    announced: RelayAnnouncement | None,
) -> HelperProcess:
    """Start the relay from the sandbox's sockets to the proxy.

    If `announced` is given, the relay announces the run to the proxy.
    """
    until, lifeline = os.pipe()
    words = own_programs.words_of(_RELAY, "--quiet")
    for sock in sockets.listeners:
        words += ["--listen", f"fd:{sock.fileno()}"]
    for sock, target in sockets.tunnels:
        words += ["--tunnel", f"fd:{sock.fileno()}", target]
    words += ["--to", upstream.name, "--until", f"fd:{until}"]
    passed = [until]
    if announced is not None:
        header = _header_of(run_directory, announced)
        words += ["--announce", f"fd:{header}"]
        passed.append(header)
    closed_here = tuple(passed)
    if sockets.lookups is not None:
        noting = sockets.lookups
        numbers = [sock.fileno() for sock in (noting.udp, noting.tcp, noting.channel.theirs)]
        words += ["--note-lookups", *(f"fd:{number}" for number in numbers), str(noting.init)]
        passed += numbers
    if sockets.fake_network is not None:
        fake = sockets.fake_network
        listeners = {port: sock.fileno() for port, sock in fake.listeners.items()}
        at = ",".join(f"{port}=fd:{number}" for port, number in listeners.items())
        words += ["--fake-network", f"fd:{fake.namespace}", f"fd:{fake.names}", at]
        passed += (fake.namespace, fake.names, *listeners.values())
    passed += [sock.fileno() for sock in (*sockets.listeners, *dict(sockets.tunnels))]
    process = start_program(words, tuple(passed), log)
    for descriptor in closed_here:
        os.close(descriptor)
    run_directory.note(process.pid)
    return HelperProcess("relay", process, lifeline)


def _header_of(run_directory: RunDirectory, announced: RelayAnnouncement) -> int:
    """Return a pipe that contains what the relay sends first on each connection."""
    reading, writing = os.pipe()
    try:
        # A header is smaller than a pipe, so this never waits.
        header = proxy_protocol.encode(
            run_directory.name, announced.program, run_directory.token, announced.password_proof
        )
        os.write(writing, header)
    finally:
        os.close(writing)
    return reading


class SocketSupervisor(HelperProcess):
    """The program that answers calls on Unix sockets of a sandbox (`bubblewrap.unix_sockets`)."""

    def __init__(
        self, process: subprocess.Popen[bytes], lifeline: int, channel: socket.socket, log: Path
    ) -> None:
        super().__init__("socket supervisor", process, lifeline)
        self._channel = channel
        self._log = log

    def install(self, *, private: bool) -> None:
        """Have the calls of this process reported, which is to become bwrap."""
        seccomp_notify.install(self._channel, private=private)

    def enter(self, init: int, *, unfiltered: bool) -> None:
        """Let it enter the view of the sandbox, and wait until it has.

        From then on it does the calls of COMMAND, so call it before COMMAND is released.
        """
        words = [_ENTER, b"%d" % init, *([_OPEN] if unfiltered else [])]
        heard = b""
        with contextlib.suppress(OSError):
            self._channel.settimeout(_START_PATIENCE_S)
            self._channel.send(b" ".join(words))
            heard = self._channel.recv(_MESSAGE_LIMIT)
        if heard != _READY:
            raise ClaudeProxyError(
                "the sandbox cannot have Unix sockets of its own; nothing was run: "
                + (heard.decode("utf-8", "replace").lower() or "their supervisor ended"),
                where=helper_end.place_of(self._log, f"process {self.pid}"),
                fix="use --unix-sockets none, which denies all Unix sockets",
            )

    def end(self) -> None:
        """End the process, and wait until it has exited."""
        self._channel.close()
        super().end()


def start_socket_supervisor(run_directory: RunDirectory, log: RunLog) -> SocketSupervisor:
    """Start the program that answers calls on Unix sockets of a sandbox."""
    until, lifeline = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        words = own_programs.words_of(_SUPERVISOR, str(theirs.fileno()), str(until))
        process = start_program(words, (theirs.fileno(), until), log)
    os.close(until)
    run_directory.note(process.pid)
    return SocketSupervisor(process, lifeline, ours, log.path)


def start_stream_pump(
    streams: Sequence[str], descriptors: Sequence[int], run_directory: RunDirectory, log: RunLog
) -> HelperProcess:
    """Start the process that copies between files and the pipes of COMMAND (`stream_pump`)."""
    until, lifeline = os.pipe()
    words = own_programs.words_of(_PUMP, str(until), *streams)
    try:
        process = start_program(words, (until, *descriptors), log)
    finally:
        os.close(until)
    run_directory.note(process.pid)
    return HelperProcess("stream pump", process, lifeline)


def start_program(
    words: Sequence[str], descriptors: Sequence[int], log: RunLog, out: int | None = None
) -> subprocess.Popen[bytes]:
    """Start a program of this package outside the sandbox, with harmless variables only."""
    with _explaining(words[0]):
        return subprocess.Popen(  # noqa: S603 - our own programs
            words,
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=log.file if out is None else out,
            stderr=log.file,
            cwd="/",  # so that it does not keep a file system busy
            env=waiting_process.harmless(os.environ),
            start_new_session=True,
        )


@contextlib.contextmanager
def _explaining(program: str) -> Iterator[None]:
    """Raise an error of the system as one that says what to do."""
    try:
        yield
    except OSError as error:
        raise ClaudeProxyError(
            f"a process of this run cannot be started: {(error.strerror or '').lower()}; "
            "nothing was run",
            where=program,
            fix="free some memory and processes, and try again",
        ) from error


def wait_for_proxy(text: str) -> RelayTarget:
    """Wait until a running proxy accepts connections, and return its address.

    `text` is "unix:/path" or "127.0.0.1:9051". Raises ConfigError if it is neither, and
    ClaudeProxyError if no connection succeeds within four seconds.
    """
    from claude_proxy.sandbox.relay import relay  # noqa: PLC0415 - few runs join a proxy

    try:
        upstream = relay.parse_target(text)
    except ConfigError as error:
        raise ConfigError(
            error.what, where=f"--proxy {text}", fix="write it as 127.0.0.1:9051 or unix:/path"
        ) from error
    deadline = time.monotonic() + JOIN_PATIENCE_S
    while True:
        reason = _unreachable(upstream, deadline - time.monotonic())
        if reason is None:
            return upstream
        if time.monotonic() + _JOIN_PAUSE_S > deadline:
            raise ClaudeProxyError(
                f"claude-proxy is not running on {text}: {reason}",
                where="--proxy",
                fix="start it: claude-proxy serve; or leave --proxy out: the run starts its own",
            )
        time.sleep(_JOIN_PAUSE_S)


def _unreachable(upstream: RelayTarget, patience_s: float) -> str | None:
    with socket.socket(upstream.family, socket.SOCK_STREAM) as sock:
        sock.settimeout(max(0.1, patience_s))
        try:
            sock.connect(upstream.address)
        except OSError as error:
            return (error.strerror or "no answer").lower()
    return None
