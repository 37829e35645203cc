"""Sinks: audit events as lines, for people (console) and for programs (JSON).

Law: a decision never waits for a sink. Events are queued and written on another thread. A slow
reader costs lines, never a request; the number of lost lines is reported. Whatever a client sent
stays inside its field of its line.
"""

import json
import os
import select
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, override

from claude_proxy.audit.escape import escape_field, escape_text, storable
from claude_proxy.audit.state import (
    UNSEEN,
    State,
    is_passed_through,
    is_shown,
    is_shown_failure,
    reason_of,
    state_of,
    state_of_outcome,
    unseen_word,
)
from claude_proxy.config.settings import LogFormat, Verbosity
from claude_proxy.errors import ConfigError
from claude_proxy.events import (
    DecisionMade,
    Event,
    Notice,
    OutcomeSeen,
    Phase,
    Usage,
)
from claude_proxy.wire.authority import Authority


def _warn(text: str) -> None:
    import logging  # noqa: PLC0415 - a tenth of the start of a run, which records too

    logging.getLogger(__name__).error("%s", text)


type Sink = Callable[[Event], None]

QUEUE_BOUND = 20_000
# Long enough to turn many lines into few writes, too short for a person to notice.
_GATHER_S = 0.02
_CLOSE_S = 5.0  # for a slow reader; one that does not read loses the rest
_SLICE = 64
_TICK_S = 0.25  # how often lines that are held back are looked at
# Only the audit log reports these; the proxy itself prints all other notices at the terminal.
_OWN_NOTICES = frozenset({"audit-recovered", "lines-lost", "rows-dropped", "log-held"})
_REQUESTS = frozenset({Phase.CONNECT, Phase.REQUEST})
_TUNNELS = frozenset({"", "CONNECT", "SOCKS"})
_NAMED_EXCHANGES = 4096
# An answer that takes longer is worth a line of its own; a failure then gets one more.
_HELD_BACK_S = 1.0
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
        while data:
            # Whole lines, as many as a pipe takes in one piece: other workers write into it too.
            end = data.rfind(b"\n", 0, select.PIPE_BUF) + 1 or select.PIPE_BUF
            try:
                data = data[os.write(self._fd, data[:end]) :]
            except BlockingIOError:
                # A program that shares the terminal may have set O_NONBLOCK on it.
                select.select([], [self._fd], [])


class AppendedFile:
    """A file, 0600, that lines are appended to; reopened when a log rotation has renamed it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = self._opened()
        self._is_cut_off = False

    def write(self, data: bytes) -> None:
        """Append all of `data`."""
        if self._was_moved():
            fd = self._opened()
            os.close(self._fd)
            self._fd, self._is_cut_off = fd, False
        # After a line that a full disk cut off, start a new line.
        data = b"\n" + data if self._is_cut_off else data
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        finally:
            if written:
                self._is_cut_off = not data[:written].endswith(b"\n")

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


class LineSink(ABC):
    """Gathers lines and writes them together; counts those that could not be written."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._lines: list[str] = []
        self._lost = 0
        self.reports: deque[str] = deque()  # about lost lines, for the audit log

    @abstractmethod
    def __call__(self, event: Event) -> None:
        """Gather the line of `event`, if it is to be shown."""

    @abstractmethod
    def line_of_loss(self, count: int) -> str:
        """Return the line that reports how many were lost."""

    def tick(self) -> bool:
        """Gather lines that were held back long enough; tell whether some still are."""
        return False

    def flush(self) -> None:
        """Write the gathered lines; a failure loses them, and is reported with the next ones."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        lost = [self.line_of_loss(self._lost)] if self._lost else []
        text = "".join(f"{line}\n" for line in lost + lines)
        try:
            self._output.write(text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            if not self._lost:
                self.report_failure(error)
            self._lost += len(lines)
        else:
            if self._lost:
                self.report_recovery(self._lost)
            self._lost = 0

    @abstractmethod
    def report_failure(self, error: OSError) -> None:
        """Report that lines are being lost; called once until lines can be written again."""

    @abstractmethod
    def report_recovery(self, count: int) -> None:
        """Report that lines can be written again, and how many were lost."""


class ConsoleSink(LineSink):
    """One line for each request, for people to read, as text or as JSON.

    An allowed request is held back for a moment, until its outcome is known: what could not be
    reached is shown as failed, and what was denied after all as denied.
    """

    def __init__(
        self,
        output: Output,
        *,
        verbosity: Verbosity = Verbosity.NORMAL,
        log_format: LogFormat = LogFormat.TEXT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(output)
        self._verbosity = verbosity
        self._text = log_format is LogFormat.TEXT
        self._clock = clock
        self._names: OrderedDict[int, str] = OrderedDict()
        # Allowed attempts that have not ended, and since when their lines are held back; None: it
        # is not, because the line was printed or the attempt is a step.
        self._open: OrderedDict[int, tuple[DecisionMade, float | None]] = OrderedDict()

    @override
    def __call__(self, event: Event) -> None:
        if isinstance(event, Notice):
            if self._shows_notice(event):
                self._lines.append(self._line_of(event) if self._text else json_line(event))
        elif self._verbosity is Verbosity.VERBOSE:
            self._lines.append(self._line_of(event) if self._text else json_line(event))
        elif self._verbosity is Verbosity.NORMAL and isinstance(event, DecisionMade):
            self._decided(event)
        elif self._verbosity is Verbosity.NORMAL and isinstance(event, OutcomeSeen):
            self._ended(event)

    @override
    def tick(self) -> bool:
        now = self._clock()
        for number, (event, since) in list(self._open.items()):
            if since is None:
                continue
            if now - since < _HELD_BACK_S:
                return True
            self._open[number] = event, None
            self._lines.append(decision_line(event))
        return False

    @override
    def line_of_loss(self, count: int) -> str:
        text = f"{count} lines not printed"
        return text if self._text else json_line(Notice(time.time_ns(), "lines-lost", text))

    @override
    def report_failure(self, error: OSError) -> None:
        """Do nothing: there is no other place to say it."""

    @override
    def report_recovery(self, count: int) -> None:
        """Do nothing: a line of its own says it."""

    def release(self) -> None:
        """Gather every line that is held back; for the end."""
        for number, (event, since) in list(self._open.items()):
            if since is not None:
                self._open[number] = event, None
                self._lines.append(decision_line(event))

    def _decided(self, event: DecisionMade) -> None:
        if event.attempt is not None:
            self._open.pop(event.attempt, None)
        if not event.allowed or (is_shown(event) and not self._text):
            self._lines.append(decision_line(event) if self._text else json_line(event))
        if event.allowed:
            is_held = self._text and is_shown(event)
            self._open[event.id] = event, self._clock() if is_held else None
            if len(self._open) > _NAMED_EXCHANGES:
                oldest, since = self._open.popitem(last=False)[1]
                if since is not None:
                    self._lines.append(decision_line(oldest))

    def _ended(self, outcome: OutcomeSeen) -> None:
        event, since = self._open.pop(outcome.decision, (None, None))
        if event is None:
            return
        state = state_of(event, outcome)
        if state is State.ALLOWED:
            if since is not None:
                self._lines.append(decision_line(event))
        elif is_shown(event) or is_shown_failure(event, outcome):
            self._lines.append(end_line(event, outcome) if self._text else json_line(outcome))

    def _shows_notice(self, event: Notice) -> bool:
        quiet = self._verbosity is Verbosity.QUIET
        return event.kind in _OWN_NOTICES or not (self._text or quiet)

    def _line_of(self, event: Event) -> str:
        if isinstance(event, Notice):
            return f"Notice: {escape_text(storable(event.text, _BOUND))}"
        if isinstance(event, OutcomeSeen):
            return outcome_line(event, self._names.pop(event.decision, str(event.decision)))
        self._names[event.id] = subject_of(event)
        if len(self._names) > _NAMED_EXCHANGES:
            self._names.popitem(last=False)
        return decision_line(event) + _credential_note(event)


class JsonlSink(LineSink):
    """Every event as one JSON object on its own line."""

    def __init__(self, output: Output, name: str = "standard output") -> None:
        super().__init__(output)
        self._name = name

    @classmethod
    def at(cls, path: Path) -> "JsonlSink":
        """Return a sink into the file at `path`, or on standard output for "-"."""
        if str(path) == "-":
            return cls(Descriptor(1))
        try:
            return cls(AppendedFile(path), str(path))
        except OSError as error:
            raise ConfigError(
                f"the JSONL file cannot be written: {error.strerror or error}",
                where=str(path),
                fix='name a regular file, not a link, in a directory that you can write to, or "-"',
            ) from error

    @override
    def __call__(self, event: Event) -> None:
        self._lines.append(json_line(event))

    @override
    def line_of_loss(self, count: int) -> str:
        return json_line(Notice(time.time_ns(), "lines-lost", f"{count} lines not written"))

    @override
    def report_failure(self, error: OSError) -> None:
        text = (
            f"the JSON lines of --jsonl cannot be written to {self._name}"
            f" ({(error.strerror or type(error).__name__).lower()}): events are missing there until"
            " this is fixed; the audit log has them"
        )
        _warn(text)
        self.reports.append(text)

    @override
    def report_recovery(self, count: int) -> None:
        text = f"{count} JSON lines of --jsonl are missing in {self._name}; the audit log has them"
        _warn(text)
        self.reports.append(text)


def decision_line(event: DecisionMade) -> str:
    """Return `event` as the console shows it: "Denied: GET https://example.com/ (no-rule)"."""
    if not event.allowed:
        return f"Denied: {subject_of(event)} ({escape_field(event.reason)})"
    note = f" ({unseen_word(event)})" if is_passed_through(event) else ""
    return f"Allowed: {subject_of(event)}{note}"


def end_line(event: DecisionMade, outcome: OutcomeSeen) -> str:
    """Return an allowed attempt that was denied or failed: "Failed: GET https://… (unresolved)"."""
    reason = escape_field(reason_of(event, outcome))
    return f"{state_of(event, outcome).capitalize()}: {subject_of(event)} ({reason})"


def _credential_note(event: DecisionMade) -> str:
    return "" if event.credential is None else f" [credential {escape_text(event.credential)}]"


def subject_of(event: DecisionMade) -> str:
    """Return the request: "GET https://example.com/", "CONNECT example.com:443"."""
    return " ".join(method_and_place(event))


def method_and_place(event: DecisionMade) -> tuple[str, str]:
    """Return a method and a URL, or CONNECT and a target; both escaped."""
    if event.phase is Phase.CLIENT:
        return "client", escape_text(event.client)
    is_known = event.method and event.target + event.path
    if event.phase in _REQUESTS and not is_known:  # the request could not be read
        return "request", escape_field(event.target or event.client)
    if event.method in _TUNNELS or event.scheme in {"", *UNSEEN}:
        return escape_field(event.method) or "CONNECT", escape_field(event.target + event.path)
    default_port = ":443" if event.scheme == "https" else ":80"
    # RFC 9110 section 4.2: the URL of "OPTIONS *" has no path.
    path = "" if event.path == "*" else event.path
    url = f"{event.scheme}://{event.target.removesuffix(default_port)}{path}"
    return escape_field(event.method), escape_field(url)


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
    if event.usage is not None:
        parts.append(usage_text(event.usage))
    return f"Ended: {name}: {', '.join(parts)}"


def usage_text(usage: Usage) -> str:
    """Return the usage of a response: "claude-haiku-4-5: 12 tokens in, 340 out"."""
    text = f"{usage.tokens_in} tokens in, {usage.tokens_out} out"
    if usage.cache_written:
        text += f", {usage.cache_written} into the cache"
    if usage.cache_read:
        text += f", {usage.cache_read} from the cache"
    return f"{escape_field(usage.model)}: {text}" if usage.model else text


def json_line(event: Event) -> str:
    """Return `event` as one line of JSON in ASCII."""
    return encoded(fields_of(event))


def encoded(fields: dict[str, object]) -> str:
    """Return `fields` as JSON without a byte that controls a terminal; `json` leaves only DEL."""
    return _ENCODE(fields).replace("\x7f", "\\u007f")


_ENCODE = json.JSONEncoder(ensure_ascii=True, separators=(", ", ": ")).encode


def fields_of(event: Event) -> dict[str, object]:
    """Return `event` under the stable names of the JSON log."""
    if isinstance(event, DecisionMade):
        return _fields_of_decision(event)
    if isinstance(event, OutcomeSeen):
        return {
            "ts": rfc3339(event.time_ns),
            "phase": "outcome",
            "decision": event.decision,
            "state": state_of_outcome(event).value,
            **fields_of_outcome(event),
        }
    return {
        "ts": rfc3339(event.time_ns),
        "phase": "notice",
        "kind": event.kind,
        "text": storable(event.text, _BOUND),
        "run": event.run,
    }


def _fields_of_decision(event: DecisionMade) -> dict[str, object]:
    host, port = host_and_port(event.target)
    return {
        "ts": rfc3339(event.time_ns),
        "phase": event.phase.value,
        "action": "allow" if event.allowed else "deny",
        "reason": event.reason,
        "host": host,
        "port": port,
        "rule": event.rule,
        "rule_source": event.rule_source,
        "credential": event.credential,
        "method": event.method,
        "path": event.path,
        "client": event.client,
        "run": event.run,
        "listener": event.listener,
        "scheme": event.scheme,
        "connection": event.connection,
        "id": event.id,
        "attempt": event.attempt,
        "count": event.count,
        "last": rfc3339(event.last) if event.last else None,
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
        "usage": None if event.usage is None else _fields_of_usage(event.usage),
    }


def _fields_of_usage(usage: Usage) -> dict[str, object]:
    return {
        "model": usage.model,
        "tokens_in": usage.tokens_in,
        "tokens_out": usage.tokens_out,
        "cache_written": usage.cache_written,
        "cache_read": usage.cache_read,
    }


def host_and_port(target: str) -> tuple[str, int | None]:
    """Return both parts of a target, or all of one that cannot be parsed."""
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
    """Passes events to the sinks on another thread."""

    def __init__(self, sinks: Sequence[Sink], *, bound: int = QUEUE_BOUND) -> None:
        self._sinks = tuple(sinks)
        self._line_sinks = tuple(sink for sink in sinks if isinstance(sink, LineSink))
        self._holds_back = False
        self._bound = bound
        self._queue: deque[Event] = deque()
        self._unprinted = 0
        self._wake = threading.Event()
        self._stop = threading.Event()
        # A daemon: a terminal that stops reading must not keep the process from ending.
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

    def reports(self) -> Iterator[str]:
        """Yield what is to be said in the audit log about lines that were lost, once."""
        for sink in self._line_sinks:
            while sink.reports:
                yield sink.reports.popleft()

    def close(self, timeout_s: float = _CLOSE_S) -> None:
        """Write what is queued and end, or give up if the reader does not read."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout_s)
        for sink in self._sinks:
            # Only some sinks have work left once they have all events.
            if (close := getattr(sink, "close", None)) is not None:
                close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(_TICK_S if self._holds_back else None)
            self._stop.wait(_GATHER_S)
            self._wake.clear()
            self._drain()
        self._drain()
        for sink in self._line_sinks:
            if isinstance(sink, ConsoleSink):
                sink.release()
        self._flush()

    def _drain(self) -> None:
        while self._queue:
            # In slices, so that other threads get the interpreter after each.
            for _ in range(min(_SLICE, len(self._queue))):
                self._give(self._queue.popleft())
            self._flush()
        self._holds_back = any([sink.tick() for sink in self._line_sinks])  # noqa: C419 - all tick
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
        for sink in self._line_sinks:
            sink.flush()
