"""Turns: fair scheduling of the clients' work on one event loop (round robin).

Law kept: one client must not starve another. A client that has used up its turn waits until the
loop has served everybody else, so what others wait does not depend on how much one client sends.
A client that is alone waits for nobody: its next turn begins with the next iteration of the loop.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

# A denied request costs about 0.2 ms, most of it for its row in the audit log. Shorter turns would
# spend more on changing than they save the others.
TURN_S = 0.004  # for all connections of one client
SLICE_S = 0.002  # for one connection: others of the same client come between
# What a read of uvloop's has at most. Split, it would cost twice as much for bulk transfers; as a
# body in chunks of one byte, it is 0.2 s of work. So the reads of a client are split once one of
# them has taken long, for a while, into pieces that should take a slice each.
WHOLE_READ = 256 * 1024
_LEAST_PIECE = 4 * 1024
_LONG_S = 0.016
_LONG_REMEMBERED_S = 10.0
# Bytes that were read and wait for their client's turn before none of its connections is read.
WAITING_LIMIT = 4 * 1024 * 1024


class Worker(Protocol):
    """A connection with work that waits for its turn."""

    def work(self) -> bool:
        """Do at least one step, and more until the slice is over; tell whether any is left."""

    def balance(self) -> None:
        """Pause or resume reading after `ClientTurns.is_full` has changed."""


class ClientTurns:
    """The turns of one client: what it has used of the current one, and what waits."""

    def __init__(self, turns: "Turns", workers: Iterable[Worker]) -> None:
        self._turns = turns
        self._workers = workers  # all connections of the client, whether they wait or not
        self._fresh = deque[Worker]()  # those that wait, and have not used up a slice
        self._interrupted = deque[Worker]()  # those that have
        self._waiting = 0  # bytes
        self.is_queued = False
        self.is_due = False  # its turn is used up: new work waits for the next one
        self.spent_s = 0.0  # of the current turn
        self.piece = WHOLE_READ  # most bytes that a layer gets at once
        self._split_until = 0.0

    @property
    def is_full(self) -> bool:
        """Whether so much waits that none of the client's connections may be read."""
        return self._waiting > WAITING_LIMIT

    @property
    def has_work(self) -> bool:
        """Whether any connection waits for a turn."""
        return bool(self._fresh or self._interrupted)

    def begin(self) -> None:
        """Begin a step of work that need not wait for a turn."""
        self._turns.begin_slice()

    def end(self, size: int = 0) -> None:
        """End the step, and with it the client's turn if that is used up; `size` in bytes."""
        elapsed_s = self._turns.elapsed_s()
        self.spent_s += elapsed_s
        if elapsed_s > _LONG_S:
            self.weigh(size)
        if self.spent_s >= TURN_S and not self.is_due:
            self.is_due = True
            self._turns.queue(self)

    def weigh(self, size: int) -> None:
        """Split the reads to come if the last one, of `size` bytes, took long."""
        elapsed_s = self._turns.elapsed_s()
        if elapsed_s > _LONG_S and size > _LEAST_PIECE:
            self.piece = max(_LEAST_PIECE, int(size * SLICE_S / elapsed_s))
            self._split_until = self._turns.now() + _LONG_REMEMBERED_S

    def pieces_of(self, data: bytes) -> Iterator[bytes]:
        """Split a read into pieces that take about a slice each."""
        if self._turns.now() > self._split_until:
            self.piece = WHOLE_READ
        for at in range(0, len(data), self.piece):
            yield data[at : at + self.piece]

    def wait(self, worker: Worker, *, interrupted: bool) -> None:
        """Let `worker` wait for a turn; `interrupted` if it has used up a slice."""
        (self._interrupted if interrupted else self._fresh).append(worker)
        self._turns.queue(self)

    def count_waiting(self, size: int) -> None:
        """Count bytes that begin to wait or, if negative, no longer do."""
        was_full = self.is_full
        self._waiting += size
        if self.is_full is not was_full:
            for worker in tuple(self._workers):
                worker.balance()

    def take_turn(self) -> bool:
        """Let the connections that wait work until the turn is used up; False if none waited."""
        self.spent_s, self.is_due = 0.0, False
        had_work, takes_fresh = self.has_work, True
        while self.has_work and not self.is_due:
            # Alternating, so that neither kind waits for all of the other.
            takes_fresh = bool(self._fresh) and (takes_fresh or not self._interrupted)
            worker = (self._fresh if takes_fresh else self._interrupted).popleft()
            takes_fresh = not takes_fresh
            self.begin()
            if worker.work():
                self._interrupted.append(worker)
            self.spent_s += self._turns.elapsed_s()
            self.is_due = self.spent_s >= TURN_S
        self.is_due = self.is_due or self.has_work
        return had_work


class Turns:
    """The turns of all clients on one event loop; `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._clients = deque[ClientTurns]()
        self._is_scheduled = False
        self._began = 0.0

    def begin_slice(self) -> None:
        """Begin a slice: the time of one connection until others come."""
        self._began = self._clock()

    def now(self) -> float:
        """Return the time of the clock, in seconds."""
        return self._clock()

    def elapsed_s(self) -> float:
        """Return how long ago the slice began."""
        return self._clock() - self._began

    def is_over(self) -> bool:
        """Tell whether the slice is used up, so that what is left should wait."""
        return self._clock() - self._began >= SLICE_S

    def queue(self, client: ClientTurns) -> None:
        """Give `client` its next turn after those that wait already."""
        if not client.is_queued:
            client.is_queued = True
            self._clients.append(client)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            # In its next iteration, so that the loop first hears what has come from others.
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Give the next client with work its turn; one without can use a new turn."""
        self._is_scheduled = False
        try:
            had_work = False
            while self._clients and not had_work:
                client = self._clients.popleft()
                client.is_queued = False
                had_work = client.take_turn()
                if client.is_due:
                    self.queue(client)
        finally:
            if self._clients:
                self._schedule()
