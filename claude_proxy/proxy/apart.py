"""Work apart from the event loop: long computations in one other thread, in turns of the clients.

Law kept: one client must not starve another. The thread shares the interpreter lock with the loop,
which asks for it every half millisecond, so the loop goes on. There is one thread, because two
would take two turns for each of the loop's; clients take turns at it, the shortest work of each
first.
"""

import asyncio
import heapq
import itertools
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

# How long the thread may keep the interpreter lock while the loop waits. Python's own 5 ms would be
# added to each of the ten or so steps of another client's request.
_SWITCH_S = 0.0005


@dataclass(eq=False, slots=True)
class Job:
    """One computation."""

    work: Callable[[], None]
    done: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        """Do not begin it; one that has begun goes on, and its end is of no interest."""
        self.is_cancelled = True


class Apart:
    """The thread, and what waits for it."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, list[tuple[int, int, Job]]] = {}  # sizes, numbers, jobs
        self._clients = deque[Hashable]()
        self._numbers = itertools.count()
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None

    def submit(
        self, client: Hashable, size: int, work: Callable[[], None], done: Callable[[], None]
    ) -> Job:
        """Have `work` done in the thread, and then `done` on this loop, whatever came of it.

        `size` says about how long it takes compared with others.
        """
        loop = asyncio.get_running_loop()

        def tell() -> None:
            if not job.is_cancelled:
                done()

        def finish() -> None:
            try:
                loop.call_soon_threadsafe(tell)
            except RuntimeError:  # the loop has been closed
                logger.debug("a result came after the end")

        job = Job(work, finish)
        with self._lock:
            jobs = self._waiting.get(client)
            if jobs is None:
                jobs = self._waiting[client] = []
                self._clients.append(client)
            heapq.heappush(jobs, (size, next(self._numbers), job))
            self._lock.notify()
        if self._thread is None:
            sys.setswitchinterval(_SWITCH_S)
            # A daemon, so that nothing waits for it at the end.
            self._thread = threading.Thread(target=self._run, name="apart", daemon=True)
            self._thread.start()
        return job

    def _run(self) -> None:
        while True:
            job = self._next()
            if not job.is_cancelled:
                try:
                    job.work()
                except Exception as error:  # noqa: BLE001 - fail closed, as below
                    # What waits for it computes it again, and then the error denies.
                    logger.debug("work apart failed (%s)", type(error).__name__)
                job.done()

    def _next(self) -> Job:
        with self._lock:
            while not self._clients:
                self._lock.wait()
            client = self._clients.popleft()
            jobs = self._waiting[client]
            _, _, job = heapq.heappop(jobs)
            if jobs:
                self._clients.append(client)
            else:
                del self._waiting[client]
            return job
