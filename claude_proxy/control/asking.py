"""Asking: the desk of a proxy process, its clock, and those who hear of its questions.

Fail closed: a wait ends when its time is over, whatever those who were asked do.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from claude_proxy.control.questions import Desk, DeskLimits, Question, Waiter
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.questions import Facts, Subject

_REMEMBERED = 256  # earlier answers that are shown

type Listener = Callable[[], None]
# Told of a question that is new.
type Hears = Callable[[Question], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class EarlierAnswer:
    """An answer as it is shown beside later questions."""

    subject: Subject
    words: str  # "once", "for 1h"
    at: float  # by the clock of the loop


class Asking:
    """The questions of one process, as the loop of its engine keeps them."""

    def __init__(self, limits: DeskLimits) -> None:
        self._loop = asyncio.get_running_loop()
        self.desk = Desk(self._loop.time, limits)
        self.desk.on_change = self._changed
        self._timer: asyncio.TimerHandle | None = None
        self._listeners: set[Listener] = set()
        self._hearing: list[Hears] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = 0  # the number of the newest question that was told of
        self.earlier: deque[EarlierAnswer] = deque(maxlen=_REMEMBERED)

    # --- what waits

    def knows(self, subject: Subject) -> bool:
        """Tell whether a question about a subject is open."""
        return self.desk.about(subject) is not None

    def put(
        self, facts: Facts, settle: Callable[[Answer], None], deadline: float | None
    ) -> Waiter | Answer:
        """Have an attempt wait; see `Desk.put`."""
        found = self.desk.put(facts, settle, deadline)
        if isinstance(found, Waiter):
            self._arm(found.deadline)
        return found

    def take_back(self, waiter: Waiter) -> None:
        """Forget an attempt that waits no longer."""
        self.desk.take_back(waiter)
        self._arm(self._loop.time())

    def close(self) -> None:
        """Settle everything as not answered, and stop asking."""
        self.desk.close()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._expire)

    def _expire(self) -> None:
        self._timer = None
        following = self.desk.expire()
        if following is not None:
            self._arm(following)

    # --- those who hear of it

    def tell(self, hears: Hears) -> None:
        """Tell of every question that is new from now on."""
        self._hearing.append(hears)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` whenever something has changed; return what ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def _changed(self, question: Question) -> None:
        if question.number > self._told:
            self._told = question.number
            for hears in self._hearing:
                self._run(hears(question))
        for listener in tuple(self._listeners):
            listener()

    def _run(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- answers

    def answered(self, subject: Subject, words: str) -> None:
        """Remember an answer, to be shown beside later questions."""
        self.earlier.append(EarlierAnswer(subject, words, self._loop.time()))

    def earlier_like(self, subject: Subject) -> Iterable[EarlierAnswer]:
        """Return earlier answers about the same host, the newest first."""
        same = (each for each in self.earlier if each.subject.target.host == subject.target.host)
        return list(same)[::-1]
