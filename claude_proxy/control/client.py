"""Control client: finds the running proxies of this user, and asks one of them or all its workers.

Law kept: nothing is said to have taken effect before every process of the proxy has answered. A
process that hangs holds nobody up for longer than the time limit, and is named.
"""

import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from claude_proxy.control import places, protocol
from claude_proxy.control.protocol import ControlError, ProxyFacts
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.system.peer_credentials import peer_of
from claude_proxy.system.runs import bases_of

PATIENCE_S = 5.0
_PAUSE_S = 0.05
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy of this user."""

    facts: ProxyFacts
    path: Path  # of the directory of its sockets

    @property
    def name(self) -> str:
        """Its name: of its run or container, or `proxy-PORT`."""
        return self.facts.name

    def ask(
        self,
        op: str,
        *,
        worker: int | None = None,
        patience_s: float = PATIENCE_S,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Return the answer of one worker, by default the first; ControlError if there is none."""
        return next(
            one
            for one in self.stream(op, worker=worker, patience_s=patience_s, **arguments)
            if not one.get(protocol.MORE)
        )

    def ask_workers(
        self, op: str, *, patience_s: float = PATIENCE_S, **arguments: Any
    ) -> list[dict[str, Any]]:
        """Return the answers of all workers; ControlError if one refuses or does not answer.

        A worker that has just ended is replaced, and its replacement asked.
        """
        deadline = time.monotonic() + patience_s
        return [
            self._answer_of(worker, op, arguments, deadline) for worker in range(self.facts.workers)
        ]

    def _answer_of(
        self, worker: int, op: str, arguments: Mapping[str, Any], deadline: float
    ) -> dict[str, Any]:
        while True:
            left_s = deadline - time.monotonic()
            try:
                return self.ask(op, worker=worker, patience_s=max(left_s, _PAUSE_S), **arguments)
            except UnreachableError:
                if left_s <= 0 or not self.is_alive():
                    raise
                time.sleep(_PAUSE_S)

    def stream(
        self,
        op: str,
        *,
        worker: int | None = None,
        patience_s: float | None = PATIENCE_S,
        **arguments: Any,
    ) -> Iterator[dict[str, Any]]:
        """Yield each line of the answer, the last of which has no `more`.

        `patience_s` bounds the wait for each line; None: it is waited for without end, after the
        proxy has been reached.
        """
        line = protocol.encode_request(op, arguments)
        with ExitStack() as stack:
            sock = stack.enter_context(self._connected(0 if worker is None else worker, patience_s))
            sock.settimeout(PATIENCE_S if patience_s is None else patience_s)
            try:
                sock.sendall(line)
                sock.settimeout(patience_s)
                for answer in _lines_of(sock):
                    found = protocol.decode_answer(answer)
                    yield found
                    if not found.get(protocol.MORE):
                        return
            except OSError as error:
                raise self._unreachable(error) from error
        raise UnreachableError(
            f"the proxy {self.name} ended before it had answered",
            where=str(self.path),
            fix="try again; see what runs with `claude-proxy status`",
        )

    def serving_process(self) -> int:
        """Return the process that serves its first worker, as the kernel says.

        It may be suspended. UnreachableError if there is none.
        """
        with self._connected(0, PATIENCE_S) as sock:
            return peer_of(sock).pid

    def is_alive(self) -> bool:
        """Return whether it still runs."""
        return any(one.name == self.name for one in places.living(self.path.parent.parent))

    def _connected(self, worker: int, patience_s: float | None) -> socket.socket:
        """Return a socket that is connected to a worker, whose process is this user's."""
        deadline = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
        name = places.socket_name(worker)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with places.opened(self.path) as directory:
                _connect(sock, places.address_in(directory, self.path, name), deadline)
            _refuse_stranger(sock, self.path / name)
        except OSError as error:
            sock.close()
            raise self._unreachable(error) from error
        except BaseException:
            sock.close()
            raise
        return sock

    def _unreachable(self, error: OSError) -> "UnreachableError":
        late = isinstance(error, TimeoutError | BlockingIOError)
        why = "it does not answer" if late else (error.strerror or str(error)).lower()
        return UnreachableError(
            f"the proxy {self.name} cannot be asked: {why}",
            where=f"process {self.facts.pid}, {self.path}",
            fix=f"if it is suspended, resume it (fg); if it hangs: claude-proxy stop {self.name}",
        )


class UnreachableError(ControlError):
    """A proxy did not answer."""


def _connect(sock: socket.socket, address: str, deadline: float) -> None:
    sock.setblocking(False)
    while True:
        try:
            sock.connect(address)
        except BlockingIOError:  # many ask at the same time
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def _refuse_stranger(sock: socket.socket, path: Path) -> None:
    if peer_of(sock).uid != os.geteuid():
        raise ControlError(
            "the process behind the control socket is another user's",
            where=str(path),
            fix="remove its directory; nothing was sent there",
        )


def _lines_of(sock: socket.socket) -> Iterator[bytes]:
    held = bytearray()
    while piece := sock.recv(_PIECE):
        held += piece
        while (end := held.find(b"\n")) >= 0:
            line = bytes(held[: end + 1])
            del held[: end + 1]
            yield line
        if len(held) > protocol.ANSWER_BYTES:
            raise ControlError("the proxy's answer is too long", fix=protocol.OTHER_VERSION)


def find(environ: Mapping[str, str]) -> list[Proxy]:
    """Return the running proxies of this user, by name; ClaudeProxyError if that is not known.

    A directory that another user has put in such a place is an error only if it is the one that
    this process would use.
    """
    found: list[Proxy] = []
    for at, base in enumerate(bases_of(environ)):
        try:
            there = places.living(base)
        except (OSError, ClaudeProxyError) as error:
            if at:
                continue
            if isinstance(error, ClaudeProxyError):
                raise
            raise ControlError(
                f"the running proxies cannot be listed: {(error.strerror or '').lower()}",
                where=str(base),
                fix="make it a directory that only you can enter, or set XDG_RUNTIME_DIR to one",
            ) from error
        for one in there:
            facts = protocol.decode_facts(one.facts)
            if facts is not None and facts.name == one.name:
                found.append(Proxy(facts, one.path))
    return sorted(found, key=lambda one: (one.facts.started, one.name))


def choose(proxies: Iterable[Proxy], directory: Path, *, name: str | None = None) -> Proxy:
    """Return the proxy that is meant: by name, the one of `directory`, or the only one.

    AmbiguousError if several could be meant, ControlError if there is none.
    """
    known = list(proxies)
    if name is not None:
        return _named(known, name)
    if not known:
        raise none_runs()
    if len(known) == 1:
        return known[0]
    for here in (
        [one for one in known if one.facts.project and directory == Path(one.facts.project)],
        [one for one in known if one.facts.project and directory.is_relative_to(one.facts.project)],
    ):
        if len(here) == 1:
            return here[0]
    raise AmbiguousError(known)


def none_runs() -> ControlError:
    """Return the error that there is nothing to ask."""
    return ControlError(
        "no proxy of this user runs",
        fix="start one: `claude-proxy serve`, or `claude-proxy run -- COMMAND`",
    )


class AmbiguousError(ControlError):
    """Several proxies run, and none was named."""

    exit_code = 2

    def __init__(self, proxies: list[Proxy]) -> None:
        super().__init__(
            f"{len(proxies)} proxies run, and none was named",
            where=", ".join(one.name for one in proxies),
            fix="name one of them, or go into the directory that only one of them works in",
        )
        self.proxies = tuple(proxies)


def _named(known: list[Proxy], name: str) -> Proxy:
    for same in (
        [one for one in known if one.name == name],
        [one for one in known if name and name in {one.facts.run, str(one.facts.pid)}],
    ):
        if len(same) == 1:
            return same[0]
    raise ControlError(
        f'no proxy called "{name}" runs',
        where=f"there are {', '.join(one.name for one in known)}" if known else "none runs",
        fix="see `claude-proxy status`",
    )
