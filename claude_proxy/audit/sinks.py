"""Prints audit events as lines, for people (console) and for programs (JSON).

The law it keeps: a sink is never what a decision waits for. Events are queued, a thread
of its own writes them, and a reader too slow costs lines, never a request; how many lines
it cost is said. Whatever a client sent stays inside its field of its line.
"""

import json
import os
import select
import stat
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, override

from claude_proxy.audit.escape import escape_field, escape_text, storable
from claude_proxy.authority import Authority
from claude_proxy.errors import ConfigError
from claude_proxy.events import OPAQUE, DecisionMade, Event, Notice, OutcomeSeen, Phase
from claude_proxy.settings import LogFormat, Verbosity

type Sink = Callable[[Event], None]

QUEUE_BOUND = 20_000
# Long enough to turn a flood of lines into few writes, too short for a person to notice.
_GATHER_S = 0.02
_CLOSE_S = 2.0
_SLICE = 64
# The owner of a quiet proxy still wants to hear of these.
_PROBLEMS = frozenset({"policy-rejected", "limit", "audit-recovered", "lines-lost"})
# The banner has said so already.
_SAID_BY_THE_BANNER = frozenset({"start", "stop"})
_NAMED_EXCHANGES = 4096
_BOUND = 4096


class Output(Protocol):
    """Where lines go: takes all bytes or raises OSError."""

    def write(self, data: bytes) -> None:
        """Write all of `data`."""


class Descriptor:
    """An open file descriptor as output, for a terminal or a pipe that others share."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes) -> None:
        """Write all of `data`, waiting for a slow reader."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                # A program that shares the terminal may have set O_NONBLOCK on it.
                select.select([], [self._fd], [])


class AppendedFile:
    """A file, 0600, that lines are appended to; opened anew when a log rotation renamed it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = self._opened()
        self._torn = False

    def write(self, data: bytes) -> None:
        """Append all of `data`."""
        if self._was_moved():
            fd = self._opened()
            os.close(self._fd)
            self._fd = fd
        # What follows a line that a full disk cut off must begin a line of its own.
        start = b"\n" if self._torn else b""
        self._torn = True
        Descriptor(self._fd).write(start + data)
        self._torn = False

    def _opened(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._path, flags | os.O_NONBLOCK, 0o600)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError("it is not a regular file")
        return fd

    def _was_moved(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            return True


class LineSink:
    """Gathers lines and writes them together; counts the ones that could not be written."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._lines: list[str] = []
        self._lost = 0

    def flush(self) -> None:
        """Write the gathered lines; a failure costs them, and is told with the next ones."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        if self._lost:
            lines.insert(0, self.line_of_loss(self._lost))
        text = "".join(f"{line}\n" for line in lines)
        try:
            self._output.write(text.encode("utf-8", "backslashreplace"))
            self._lost = 0
        except OSError:
            self._lost += len(lines) - (1 if self._lost else 0)

    def line_of_loss(self, count: int) -> str:
        raise NotImplementedError


class ConsoleSink(LineSink):
    """One line a request for the person who watches, as text or as JSON."""

    def __init__(
        self,
        output: Output,
        *,
        verbosity: Verbosity = Verbosity.NORMAL,
        log_format: LogFormat = LogFormat.TEXT,
    ) -> None:
        super().__init__(output)
        self._verbosity = verbosity
        self._text = log_format is LogFormat.TEXT
        self._names: OrderedDict[int, str] = OrderedDict()

    def __call__(self, event: Event) -> None:
        """Gather the line of `event`, if it is to be shown."""
        if not self._shows(event):
            return
        self._lines.append(self._line_of(event) if self._text else json_line(event))

    @override
    def line_of_loss(self, count: int) -> str:
        text = f"{count} lines not printed"
        return text if self._text else json_line(Notice(time.time_ns(), "lines-lost", text))

    def _shows(self, event: Event) -> bool:
        if self._verbosity is Verbosity.VERBOSE:
            return True
        if isinstance(event, Notice):
            if self._verbosity is Verbosity.QUIET:
                return event.kind in _PROBLEMS
            return not self._text or event.kind not in _SAID_BY_THE_BANNER
        if self._verbosity is Verbosity.QUIET or isinstance(event, OutcomeSeen):
            return False
        return is_told(event)

    def _line_of(self, event: Event) -> str:
        if isinstance(event, Notice):
            return f"Notice: {escape_text(storable(event.text, _BOUND))}"
        if isinstance(event, OutcomeSeen):
            return outcome_line(event, self._names.pop(event.decision, str(event.decision)))
        if self._verbosity is Verbosity.VERBOSE:
            self._names[event.id] = subject_of(event)
            if len(self._names) > _NAMED_EXCHANGES:
                self._names.popitem(last=False)
        return decision_line(event)


class JsonlSink(LineSink):
    """Every event as one JSON object a line."""

    @classmethod
    def at(cls, path: Path) -> "JsonlSink":
        """Return a sink into the file at `path`, or on standard output for "-"."""
        if str(path) == "-":
            return cls(Descriptor(1))
        try:
            return cls(AppendedFile(path))
        except OSError as error:
            raise ConfigError(
                f"the JSONL file cannot be written: {error.strerror or error}",
                where=str(path),
                mend='name a regular file (no link) in a directory of yours, or "-"',
            ) from error

    def __call__(self, event: Event) -> None:
        """Gather the line of `event`."""
        self._lines.append(json_line(event))

    @override
    def line_of_loss(self, count: int) -> str:
        return json_line(Notice(time.time_ns(), "lines-lost", f"{count} lines not written"))


def is_told(event: DecisionMade) -> bool:
    """Tell whether `event` is news in itself: a step towards a request that follows is not."""
    if not event.allowed or event.phase is Phase.REQUEST:
        return True
    # Inside a passthrough tunnel nothing more will be seen.
    return event.phase is Phase.CONNECT and event.scheme == OPAQUE


def decision_line(event: DecisionMade) -> str:
    """Return `event` as the console shows it: "Denied: GET https://example.com/ (no-rule)"."""
    if not event.allowed:
        return f"Denied: {subject_of(event)} ({escape_field(event.reason)})"
    passed_through = " (passthrough)" if event.scheme == OPAQUE else ""
    return f"Allowed: {subject_of(event)}{passed_through}"


def subject_of(event: DecisionMade) -> str:
    """Return what was asked for: "GET https://example.com/", "CONNECT example.com:443"."""
    if event.phase is Phase.CLIENT:
        return f"client {escape_field(event.client)}"
    return subject(event.method, event.scheme, event.target, event.path)


def subject(method: str, scheme: str, target: str, path: str) -> str:
    """Return one attempt as a method and a URL, or as a tunnel to a target."""
    if method in {"", "CONNECT"} or not scheme:
        return f"{escape_field(method) or 'CONNECT'} {escape_field(target + path)}"
    default_port = ":443" if scheme == "https" else ":80"
    # RFC 9110 section 4.2: what "OPTIONS *" asks about is the URL without a path.
    rest = "" if path == "*" else path
    url = f"{scheme}://{target.removesuffix(default_port)}{rest}"
    return f"{escape_field(method)} {escape_field(url)}"


def outcome_line(event: OutcomeSeen, name: str) -> str:
    """Return how the attempt `name` ended."""
    parts = [
        "no answer" if event.status is None else str(event.status),
        f"{event.bytes_up} B up",
        f"{event.bytes_down} B down",
        f"{event.duration_ms:.0f} ms",
    ]
    if event.upstream is not None:
        parts.append(f"by {escape_field(event.upstream)}")
    if event.error is not None:
        parts.append(escape_field(event.error))
    return f"Ended: {name}: {', '.join(parts)}"


def json_line(event: Event) -> str:
    """Return `event` as one line of JSON in ASCII."""
    return encoded(fields_of(event))


def encoded(fields: dict[str, object]) -> str:
    """Return `fields` as JSON that holds no byte a terminal obeys; DEL is all json leaves."""
    return _ENCODE(fields).replace("\x7f", "\\u007f")


_ENCODE = json.JSONEncoder(ensure_ascii=True, separators=(", ", ": ")).encode


def fields_of(event: Event) -> dict[str, object]:
    """Return `event` under the stable names of the JSON log."""
    if isinstance(event, DecisionMade):
        return _fields_of_decision(event)
    if isinstance(event, OutcomeSeen):
        return {
            "ts": rfc3339(event.decision + round(event.duration_ms * 1e6)),
            "phase": "outcome",
            "decision": event.decision,
            **fields_of_outcome(event),
        }
    return {
        "ts": rfc3339(event.id),
        "phase": "notice",
        "kind": event.kind,
        "text": storable(event.text, _BOUND),
    }


def _fields_of_decision(event: DecisionMade) -> dict[str, object]:
    host, port = host_and_port(event.target)
    return {
        "ts": rfc3339(event.id),
        "phase": event.phase.value,
        "action": "allow" if event.allowed else "deny",
        "reason": event.reason,
        "host": host,
        "port": port,
        "rule": event.rule,
        "rule_source": event.rule_source,
        "method": event.method,
        "path": event.path,
        "client": event.client,
        "listener": event.listener,
        "scheme": event.scheme,
        "connection": event.connection,
        "id": event.id,
    }


def fields_of_outcome(event: OutcomeSeen) -> dict[str, object]:
    """Return what `event` adds to its decision."""
    return {
        "status": event.status,
        "bytes_up": event.bytes_up,
        "bytes_down": event.bytes_down,
        "duration_ms": event.duration_ms,
        "first_byte_ms": event.first_byte_ms,
        "upstream": event.upstream,
        "error": event.error,
    }


def host_and_port(target: str) -> tuple[str, int | None]:
    """Return both parts of a target, or all of one that nobody could read."""
    try:
        authority = Authority.parse(target)
    except ValueError:
        return target, None
    return authority.host, authority.port


def rfc3339(time_ns: int) -> str:
    """Return a time in UTC, to the microsecond."""
    try:
        moment = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    except (OverflowError, ValueError, OSError):
        return "unknown"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns // 1000 % 1_000_000:06d}Z"


class Printer:
    """Hands events to the sinks on a thread of its own."""

    def __init__(self, sinks: Sequence[Sink], *, bound: int = QUEUE_BOUND) -> None:
        self._sinks = tuple(sinks)
        self._flushes = tuple(sink.flush for sink in sinks if isinstance(sink, LineSink))
        self._bound = bound
        self._queue: deque[Event] = deque()
        self._unprinted = 0
        self._wake = threading.Event()
        self._stop = threading.Event()
        # A daemon: a terminal that never reads on must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="audit-sinks", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Queue `event`; never waits."""
        if len(self._queue) >= self._bound:
            self._unprinted += 1
            return
        self._queue.append(event)
        if not self._wake.is_set():
            self._wake.set()

    def close(self, timeout_s: float = _CLOSE_S) -> None:
        """Write what is queued and end, or give up on a reader that does not read."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._stop.wait(_GATHER_S)
            self._wake.clear()
            self._drain()
        self._drain()

    def _drain(self) -> None:
        while self._queue:
            # In slices, so that other threads get the interpreter after each.
            for _ in range(min(_SLICE, len(self._queue))):
                self._give(self._queue.popleft())
            self._flush()
        unprinted, self._unprinted = self._unprinted, 0
        if unprinted:
            self._give(Notice(time.time_ns(), "lines-lost", f"{unprinted} lines not printed"))
            self._flush()

    def _give(self, event: Event) -> None:
        for sink in self._sinks:
            try:
                sink(event)
            except Exception:  # noqa: BLE001 - the edge of a thread
                # The record is in the database; a line that cannot be made is only counted.
                self._unprinted += 1

    def _flush(self) -> None:
        for flush in self._flushes:
            flush()
