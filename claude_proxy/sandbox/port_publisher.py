"""Port publisher: a program that lets this machine reach servers inside a sandbox.

Laws kept: every exit is gated: connections are made into the sandbox and never out of it, by
sockets that `namespace_door` makes there; what is inside can neither open one nor choose where one
leads. Recorded or denied: a port is published once that is in the audit log. No quiet downgrade:
ports that were asked for are there before COMMAND starts, or the run ends with the error.

It copies bytes as the relay does (`relay.bridge`), in one thread, with the same limits.
"""

import errno
import json
import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from selectors import EVENT_READ
from typing import Any

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import namespace_door
from claude_proxy.sandbox.relay import relay
from claude_proxy.sandbox.relay.bridge import DEFAULT_LIMIT, Bridge, Loop
from claude_proxy.sandbox.relay.relay_target import Place, RelayTarget
from claude_proxy.system import listening_ports

READY = b"ready\n"
NOTICE = "published-port"  # the kind of what is recorded

MOST_AT_ONCE = 16  # ports that are published by themselves
MOST_EVER = 200

_HOST = "127.0.0.1"
_LOOK_S = 0.25  # between looks at who listens inside
_BACKLOG = 1024
_FIRST_UNPRIVILEGED = 1024
# Programs of this machine take what listens there for a service of their own, and tell it
# passwords, or send it all their traffic.
TAKEN_FOR_OURS = {
    1080: "a SOCKS proxy",
    1433: "a database",
    2375: "Docker",
    2376: "Docker",
    3128: "a proxy",
    3306: "a database",
    5432: "a database",
    5433: "a database",
    5672: "a message broker",
    6379: "a database",
    6443: "Kubernetes",
    8118: "a proxy",
    8200: "a store of secrets",
    9000: "the gateway of claude-proxy",
    9050: "a SOCKS proxy",
    9051: "claude-proxy",
    9200: "a database",
    11211: "a database",
    11434: "a local model",
    27017: "a database",
}

type Say = Callable[[str], None]
type Record = Callable[[str], None]


class ServerInside(RelayTarget):
    """A port of the sandbox's loopback, on either of its addresses."""

    is_proxy = False

    def __init__(self, port: int, door: namespace_door.NamespaceDoor) -> None:
        super().__init__(f"port {port} inside", socket.AF_INET, (_HOST, port))
        self._door = door
        self._places: tuple[Place, ...] = ((socket.AF_INET, (_HOST, port)),)
        with suppress(OSError), door.make(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))  # only if there is such an address
            self._places = (*self._places, (socket.AF_INET6, ("::1", port)))

    @property
    def places(self) -> tuple[Place, ...]:
        """Both addresses of its loopback, if it has both."""
        return self._places

    def open(self, family: socket.AddressFamily) -> socket.socket:
        """Return a socket of the sandbox's network, not connected."""
        return self._door.make(family)


class _Publication:
    """One published port."""

    def __init__(self, place: str, port: int, listener: socket.socket, bridge: Bridge) -> None:
        self.place = place
        self.port = port
        self.listener = listener
        self.bridge = bridge

    @property
    def summary(self) -> str:
        count = self.bridge.accepted
        many = f"{count} connection{'' if count == 1 else 's'}"
        return f"{self.place} no longer leads to port {self.port} inside, after {many}"


class Publisher:
    """The published ports of one sandbox."""

    def __init__(  # noqa: PLR0913 - what each publication needs
        self,
        door: namespace_door.NamespaceDoor,
        loop: Loop,
        *,
        record: Record,
        log: Say,
        say: Say,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        """Make one without ports; `limit` is how many clients each port has at once."""
        self._limit = limit
        self._door = door
        self._loop = loop
        self._record = record
        self._log = log
        self._say = say
        self._fixed: list[_Publication] = []
        self._new: dict[int, _Publication] = {}
        self._ending: list[_Publication] = []
        self._passed_over: set[int] = set()
        self._said: set[int] = set()
        self._skipped: frozenset[int] = frozenset()
        self._count = 0
        self._has_said_enough = False

    def publish(self, listener: socket.socket, place: str, port: int) -> None:
        """Publish a port for the whole run; AuditError if that cannot be recorded."""
        self._fixed.append(self._opened(listener, place, port))

    def watch(self, skipped: frozenset[int]) -> None:
        """Publish each port, except for some, that a program inside listens on from now on."""
        self._skipped = skipped
        self._look()

    def _opened(self, listener: socket.socket, place: str, port: int) -> _Publication:
        self._record(f"{place} leads to port {port} inside")
        target = ServerInside(port, self._door)
        bridge = Bridge([listener], target, limit=self._limit, report=self._log, loop=self._loop)
        bridge.open()
        return _Publication(place, port, listener, bridge)

    def _look(self) -> None:
        with suppress(OSError):
            self._update(self._door.listening() - self._skipped)
        self._loop.later(_LOOK_S, self._look)

    def _update(self, listening: frozenset[int]) -> None:
        for port in [port for port in self._new if port not in listening]:
            self._withdraw(self._new.pop(port))
        self._passed_over &= listening
        for port in sorted(listening - self._new.keys() - self._passed_over):
            self._publish_new(port)
        for one in [one for one in self._ending if not one.bridge.connections]:
            self._ending.remove(one)
            self._end(one)

    def _publish_new(self, port: int) -> None:
        problem = self._obstacle(port)
        if problem is not None:
            self._passed_over.add(port)
            self._say_once(port, f"port {port} inside is not published: {problem}")
            return
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        place = f"{_HOST}:{port}"
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((_HOST, port))
            listener.listen(_BACKLOG)
            self._new[port] = self._opened(listener, place, port)
        except (OSError, ClaudeProxyError) as error:
            listener.close()
            self._passed_over.add(port)
            self._say_once(port, f"port {port} inside is not published: {_words_of(error)}")
        else:
            self._count += 1
            self._say_once(port, f"{place} leads to port {port} inside (--publish auto)")

    def _obstacle(self, port: int) -> str | None:
        """Return why a port that nobody named is not published; None if it is."""
        if port < _FIRST_UNPRIVILEGED:
            return "it is a privileged port"
        if port in TAKEN_FOR_OURS:
            what = TAKEN_FOR_OURS[port]
            return (
                f"programs of this machine would take it for {what} of their own; to publish it "
                f"nevertheless: --publish {port}:{port}"
            )
        if len(self._new) + len(self._ending) >= MOST_AT_ONCE or self._count >= MOST_EVER:
            return "too many ports are published already"
        if port in listening_ports.of_this_machine():  # last, as it takes longest
            return f"{_HOST}:{port} is in use on this machine; take another: --publish 0:{port}"
        return None

    def _say_once(self, port: int, line: str) -> None:
        if port not in self._said and len(self._said) < MOST_EVER:
            self._said.add(port)
            self._log(line)
            self._say(line)

    def _withdraw(self, one: _Publication) -> None:
        """Accept no more clients; those that are there may go on."""
        one.bridge.retire()
        one.listener.close()
        self._ending.append(one)

    def _end(self, one: _Publication) -> None:
        with suppress(ClaudeProxyError):  # it has been published, and that is recorded
            self._record(one.summary)

    def close(self) -> None:
        """End every publication, and record how much each was used."""
        for one in (*self._fixed, *self._new.values(), *self._ending):
            one.bridge.close()
            one.listener.close()
            self._end(one)


def _words_of(error: OSError | ClaudeProxyError) -> str:
    if isinstance(error, ClaudeProxyError):
        return error.what
    if error.errno == errno.EADDRINUSE:
        return "the port is in use on this machine"
    return (error.strerror or str(error)).lower()


def _recorder(given: dict[str, Any]) -> Record:
    """Return what writes into the audit log of the run."""
    from claude_proxy.audit.database import database_in  # noqa: PLC0415 - SQLite, once it listens
    from claude_proxy.audit.store import AuditStore  # noqa: PLC0415 - as above
    from claude_proxy.events import Notice  # noqa: PLC0415 - as above

    store = AuditStore(
        database_in(Path(given["statedir"])),
        retention_days=given["days"],
        max_bytes=given["bytes"],
    )
    run, required = given["run"], given["required"]

    def record(text: str) -> None:
        try:
            store.record(Notice(0, NOTICE, f"run {run}: {text}", run=run))
        except ClaudeProxyError:
            if required:
                raise

    return record


def _writer(descriptor: int, prefix: str) -> Say:
    def say(line: str) -> None:
        shown = "".join(char if char.isprintable() else "?" for char in line)
        with suppress(OSError):  # nobody reads it: no reason to stop
            if _takes_more(descriptor):
                os.write(descriptor, f"{prefix}{shown}\n".encode())

    return say


def _takes_more(descriptor: int) -> bool:
    """Tell whether a line can be written without waiting for who reads it."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def _serve(task: dict[str, Any], report: int) -> None:
    # Before anything else is opened: the door's process must hold nothing but its channel.
    with namespace_door.NamespaceDoor(task["pid"]) as door:
        loop = Loop()
        ports = len(task["ports"]) + (MOST_AT_ONCE if task["auto"] else 0)
        publisher = Publisher(
            door,
            loop,
            record=_recorder(task["record"]),
            log=_writer(2, ""),
            say=_writer(task["terminal"], "claude-proxy: "),
            limit=relay.limit_of(DEFAULT_LIMIT, ports),
        )
        try:
            for descriptor, place, port in task["ports"]:
                publisher.publish(socket.socket(fileno=descriptor), place, port)
            if task["auto"]:
                publisher.watch(frozenset(task["skipped"]))
            os.write(report, READY)
            loop.watch(task["until"], 0, EVENT_READ, lambda _events: loop.stop())
            loop.run()
        finally:
            publisher.close()


def run(words: list[str]) -> int:
    """Run the program with its task as JSON; return its exit code."""
    task = json.loads(words[0])
    try:
        _serve(task, task["report"])
    except ClaudeProxyError as error:
        problem = {"what": error.what, "where": error.where, "fix": error.fix}
        line = json.dumps({"code": error.exit_code, "problems": [problem]})
        with suppress(OSError):  # once it was ready, nobody reads it any more
            os.write(task["report"], line.encode() + b"\n")
        return error.exit_code
    return 0
