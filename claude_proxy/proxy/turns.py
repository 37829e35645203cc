"""Turns: fair scheduling of the clients' work on one event loop (round robin).

Law kept: one client must not starve another. A client that has used up its turn waits until the
loop has served everybody else, so what others wait does not depend on how much one client sends.
A client that is alone waits for nobody: its next turn begins with the next iteration of the loop.
"""

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

# A request costs about 0.4 ms, a denied one 0.2 ms, most of it for its row in the audit log.
# Shorter turns would spend more on changing than they save the others.
TURN_S = 0.010  # for all connections of one client
SLICE_S = 0.002  # for one connection: others of the same client come between
# What a read of uvloop's has at most. Split, it would cost twice as much for bulk transfers; as a
# body in chunks of one byte, it is 0.2 s of work. So the reads of a client are split once one of
# them has taken long, for a while, into pieces that should take a slice each.
WHOLE_READ = 256 * 1024
_LEAST_PIECE = 4 * 1024
_LONG_S = 0.016
_LONG_REMEMBERED_S = 10.0
# How long reads are measured after one that took long. To measure one costs a system call, and on a
# machine with much to do every client has such a read sooner or later.
_SUSPECT_S = 60.0
# The loop accepts one client an iteration. While there are more, what waits is put off, but not for
# longer than this many iterations, or a flood of clients would starve those that are there.
_ACCEPTED_FIRST = 32
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
        self._fresh: dict[Worker, None] = {}  # those that wait, and have not used up a slice
        self._by_size: list[tuple[int, int, Worker]] = []  # of these; with some that are gone
        self._interrupted = deque[Worker]()  # those that have
        self._picks = itertools.cycle((self._smallest, self._oldest, self._next_interrupted))
        self._waiting = 0  # bytes
        self.is_full = False  # so much waits that none of the client's connections may be read
        self.is_queued = False
        self.is_due = False  # its turn is used up: new work waits for the next one
        self.spent_s = 0.0  # of the current turn
        self.piece = WHOLE_READ  # most bytes that a layer gets at once
        self._split_until = 0.0
        self._is_suspect = False  # a read took long: the work on the next ones is measured
        self._suspect_until = 0.0

    @property
    def has_work(self) -> bool:
        """Whether any connection waits for a turn."""
        return bool(self._fresh or self._interrupted)

    def begin(self) -> None:
        """Begin a step of work that need not wait for a turn."""
        if self._is_suspect and self._turns.now() > self._suspect_until:
            self._is_suspect = False
        self._turns.begin_slice(measured=self._is_suspect)

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
        """Split the reads to come if the last one, of `size` bytes, was much work.

        One that takes long may just have waited for the machine; the next such one is measured.
        """
        if self._turns.elapsed_s() <= _LONG_S or size <= _LEAST_PIECE:
            return
        worked_s = self._turns.worked_s() if self._is_suspect else 0.0
        self._is_suspect = True
        self._suspect_until = self._turns.now() + _SUSPECT_S
        if worked_s > _LONG_S:
            self.piece = max(_LEAST_PIECE, int(size * SLICE_S / worked_s))
            self._split_until = self._turns.now() + _LONG_REMEMBERED_S

    def size_of_piece(self) -> int:
        """Return how many bytes take about a slice."""
        if self._turns.now() > self._split_until:
            self.piece = WHOLE_READ
        return self.piece

    def wait(self, worker: Worker, *, size: int = 0, interrupted: bool = False) -> None:
        """Let `worker` wait with `size` bytes; `interrupted`: it has used up a slice."""
        if interrupted:
            self._interrupted.append(worker)
        else:
            self._fresh[worker] = None
            heapq.heappush(self._by_size, (size, next(self._turns.numbers), worker))
        self._turns.queue(self)

    def count_waiting(self, size: int) -> None:
        """Count bytes that begin to wait or, if negative, no longer do."""
        self._waiting += size
        # All connections have to be paused or resumed, so not at every byte around the limit.
        is_full = self._waiting > (WAITING_LIMIT // 2 if self.is_full else WAITING_LIMIT)
        if is_full is not self.is_full:
            self.is_full = is_full
            for worker in tuple(self._workers):
                worker.balance()

    def take_turn(self) -> bool:
        """Let the connections that wait work until the turn is used up; False if none waited."""
        self.spent_s, self.is_due = 0.0, False
        had_work = self.has_work
        while self.has_work and not self.is_due:
            # Little work is done first, but none waits for all of another kind.
            worker = next(filter(None, (pick() for pick in self._picks)))
            self.begin()
            if worker.work():
                self._interrupted.append(worker)
            self.spent_s += self._turns.elapsed_s()
            self.is_due = self.spent_s >= TURN_S
        self.is_due = self.is_due or self.has_work
        return had_work

    def _smallest(self) -> Worker | None:
        while self._by_size:
            _, _, worker = heapq.heappop(self._by_size)
            if worker in self._fresh:
                del self._fresh[worker]
                return worker
        return None

    def _oldest(self) -> Worker | None:
        worker = next(iter(self._fresh), None)
        if worker is not None:
            del self._fresh[worker]
        return worker

    def _next_interrupted(self) -> Worker | None:
        return self._interrupted.popleft() if self._interrupted else None


class Turns:
    """The turns of all clients on one event loop.

    `clock` is in seconds, and so is `work_clock`, which stands still while the thread has no core.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        work_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._clock = clock
        self._work_clock = work_clock
        self.numbers = itertools.count()  # of what waits, so that equal sizes keep their order
        self._clients = deque[ClientTurns]()
        self._is_scheduled = False
        self._has_accepted = False  # since the last look
        self._put_off = 0  # how many times in a row
        self._began = self._work_began = 0.0

    def begin_slice(self, *, measured: bool = False) -> None:
        """Begin a slice: the time of one connection until others come.

        With `measured`, `worked_s` tells what it took; that costs a system call each.
        """
        self._began = self._clock()
        if measured:
            self._work_began = self._work_clock()

    def now(self) -> float:
        """Return the time of the clock, in seconds."""
        return self._clock()

    def elapsed_s(self) -> float:
        """Return how long ago the slice began."""
        return self._clock() - self._began

    def worked_s(self) -> float:
        """Return how long the thread has worked since the measured slice began."""
        return self._work_clock() - self._work_began

    def is_over(self) -> bool:
        """Tell whether the slice is used up, so that what is left should wait."""
        return self._clock() - self._began >= SLICE_S

    def accepted(self) -> None:
        """Note that the loop has accepted a client: others may be waiting behind it."""
        self._has_accepted = True

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
        if self._has_accepted and self._put_off < _ACCEPTED_FIRST:
            self._has_accepted = False
            self._put_off += 1
            self._schedule()
            return
        self._put_off = 0
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
