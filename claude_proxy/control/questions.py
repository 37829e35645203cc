"""Questions to the owner: attempts that wait for an answer, and what is remembered of answers.

Fail closed. An answer reaches what asks for the same host, port, scheme and kind of method of the
same run, and nothing else; it is no permission by itself, as the policy judges again. Whatever
waits has a time limit, and all of it bounds in number and memory. No I/O: the caller has the clock,
and is called when an attempt need wait no longer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from claude_proxy.policy.answer import Answer
from claude_proxy.policy.questions import Facts, Subject

# How long a question without an answer stays open after what asked has given up, and how long an
# answer that came too late waits for the same request.
OPEN_S = 600.0
_MOST_REFUSED = 4096  # subjects that are not to be asked about again
_MOST_DISTINCT = 1024  # requests of one question that are told apart


@dataclass(frozen=True, slots=True)
class DeskLimits:
    """How much may wait at once, of one run and in all."""

    wait_s: float = 30.0
    waiting: int = 1024
    waiting_of_run: int = 256
    questions: int = 256
    questions_of_run: int = 64
    size: int = 16 * 1024 * 1024  # bytes
    size_of_run: int = 4 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Waiter:
    """One attempt that waits; it is settled once, or taken back."""

    facts: Facts
    deadline: float
    settle: Callable[[Answer], None]


@dataclass(slots=True, eq=False)
class Question:
    """One question, with whatever waits for its answer."""

    number: int
    facts: Facts
    asked_at: float
    waiters: dict[Waiter, None] = field(default_factory=dict)
    tries: int = 1  # how many attempts have asked it
    closes_at: float = 0.0  # where nothing waits
    newest: int = 0  # the number of the distinct request that asked it last for the first time
    _numbers: dict[bytes, int] = field(default_factory=dict)
    _last: Facts | None = None  # what waited last, where nothing waits any more
    _last_digest: bytes = b""

    @property
    def waiting(self) -> list[tuple[Facts, int]]:
        """The distinct requests that wait, the oldest first, and how often each does."""
        found: dict[tuple[str, str], tuple[Facts, int]] = {}
        for waiter in self.waiters:
            facts = waiter.facts
            first, count = found.get((facts.method, facts.path), (facts, 0))
            found[facts.method, facts.path] = first, count + 1
        return list(found.values())

    @property
    def shown(self) -> Facts:
        """What is shown of it first: the oldest that waits, else what waited last.

        The rule that asks is always that of the first, as an answer that lasts is within it.
        """
        oldest = next(iter(self.waiters), None)
        facts = self._last if oldest is None else oldest.facts.short()
        return self.facts if facts is None else replace(facts, asking=self.facts.asking)

    def add(self, waiter: Waiter) -> None:
        """Have an attempt wait for the answer, too."""
        self.waiters[waiter] = None
        digest = _digest(waiter.facts)
        if digest not in self._numbers:
            if len(self._numbers) >= _MOST_DISTINCT:
                del self._numbers[next(iter(self._numbers))]  # it is shown again
            self.newest += 1
            self._numbers[digest] = self.newest

    def take(self, upto: int | None) -> list[Waiter]:
        """Take out and return what waits; with `upto` only what asks the same as one up to it."""
        taken = [
            waiter
            for waiter in self.waiters
            if upto is None or self._numbers.get(_digest(waiter.facts), self.newest) <= upto
        ]
        for waiter in taken:
            self.remove(waiter)
        return taken

    def remove(self, waiter: Waiter) -> None:
        """Have an attempt wait no longer."""
        del self.waiters[waiter]
        self._last, self._last_digest = waiter.facts.short(), _digest(waiter.facts)

    def late(self, upto: int | None) -> bytes | None:
        """Return the mark of what a late yes is for: what is shown; None: it was not shown."""
        number = self._numbers.get(self._last_digest, self.newest)
        return self._last_digest if upto is None or number <= upto else None


_NO_LISTENER: Callable[[Question], object] = id


class Desk:
    """The questions of one proxy process."""

    def __init__(self, clock: Callable[[], float], limits: DeskLimits | None = None) -> None:
        self._clock = clock
        self.limits = limits or DeskLimits()
        self._questions: dict[Subject, Question] = {}
        self._refused: dict[Subject, None] = {}
        # Until when a late yes counts, and for which request.
        self._late: dict[Subject, tuple[float, bytes]] = {}
        self._last_number = 0
        self._is_closed = False
        # Called with a question that is new, or for which more or fewer attempts wait.
        self.on_change: Callable[[Question], object] = _NO_LISTENER

    # --- what waits

    def put(
        self, facts: Facts, settle: Callable[[Answer], None], deadline: float | None = None
    ) -> Waiter | Answer:
        """Have an attempt wait, or say at once what is known.

        `deadline` is that of its first wait, if this is not the first. `settle` is called at most
        once, and never from here.
        """
        subject, now = facts.subject, self._clock()
        if subject in self._refused:
            return Answer.NO
        if self._take_late(facts, now):
            return Answer.YES
        if self._is_closed or (deadline is not None and deadline <= now):
            return Answer.NONE
        if not self._has_room(facts):
            return Answer.NO_ROOM
        waiter = Waiter(facts, now + self.limits.wait_s if deadline is None else deadline, settle)
        question = self._questions.get(subject)
        if question is None:
            self._last_number += 1
            question = self._questions[subject] = Question(self._last_number, facts.short(), now)
        elif deadline is None:
            question.tries += 1
        question.add(waiter)
        self.on_change(question)
        return waiter

    def _take_late(self, facts: Facts, now: float) -> bool:
        """Return whether a late yes was for this request; it is for one alone."""
        until, digest = self._late.get(facts.subject, (0.0, b""))
        if until <= now or digest != _digest(facts):
            return False
        del self._late[facts.subject]
        return True

    def take_back(self, waiter: Waiter) -> None:
        """Forget an attempt that waits no longer; the question stays open for a while."""
        question = self._questions.get(waiter.facts.subject)
        if question is not None and waiter in question.waiters:
            self._leave(question, waiter)

    def _leave(self, question: Question, waiter: Waiter) -> None:
        question.remove(waiter)
        if not question.waiters:
            question.closes_at = self._clock() + OPEN_S
        self.on_change(question)

    def _has_room(self, facts: Facts) -> bool:
        limits, run = self.limits, facts.subject.run
        if facts.subject not in self._questions:
            self._make_room(run)
            of_run = sum(subject.run == run for subject in self._questions)
            if len(self._questions) >= limits.questions or of_run >= limits.questions_of_run:
                return False
        every = [each for question in self._questions.values() for each in question.waiters]
        own = [each for each in every if each.facts.subject.run == run]
        return (
            len(every) < limits.waiting
            and len(own) < limits.waiting_of_run
            and _size(every) + facts.size <= limits.size
            and _size(own) + facts.size <= limits.size_of_run
        )

    def _make_room(self, run: str | None) -> None:
        """Close the oldest questions that nothing waits for, if they take another's place."""
        limits = self.limits
        while True:
            every = list(self._questions.values())
            crowded = [each for each in every if each.facts.subject.run == run]
            if len(crowded) < limits.questions_of_run:
                crowded = every if len(every) >= limits.questions else []
            idle = next((each for each in crowded if not each.waiters), None)
            if idle is None:
                return
            del self._questions[idle.facts.subject]

    # --- answers

    def answer(self, subject: Subject, answer: Answer, upto: int | None = None) -> int:
        """Settle whatever waits for an answer; return how many attempts did.

        A yes is for these attempts; if none waits any more, for the next that sends the same as the
        one that is shown. `upto` is the `newest` of the question as it was shown: what asked
        something else since is not answered, and the question stays open for it.
        """
        question = self._questions.get(subject)
        if question is None:
            return 0
        has_waited = bool(question.waiters)
        taken = question.take(upto)
        if not question.waiters:
            del self._questions[subject]
        if not has_waited and answer is Answer.YES and (mark := question.late(upto)) is not None:
            self._late[subject] = self._clock() + OPEN_S, mark
        return self._settle(question, taken, answer)

    def refuse(self, subject: Subject) -> int:
        """Settle as denied what waits, and whatever asks the same later."""
        self._late.pop(subject, None)
        self._refused[subject] = None
        while len(self._refused) > _MOST_REFUSED:
            del self._refused[next(iter(self._refused))]  # it is asked about again
        return self.answer(subject, Answer.NO)

    def ask_again(self) -> None:
        """Have everything that waits judged again, as the rules have changed."""
        for question in list(self._questions.values()):
            self._settle_all(question, Answer.AGAIN)
            if not question.waiters:
                question.closes_at = self._clock() + OPEN_S

    def expire(self) -> float | None:
        """Settle what has waited too long; return when this is to be done next, None: never."""
        now = self._clock()
        for question in list(self._questions.values()):
            overdue = [each for each in question.waiters if each.deadline <= now]
            for waiter in overdue:
                if waiter in question.waiters:
                    self._leave(question, waiter)
                    waiter.settle(Answer.NONE)
            is_current = self._questions.get(question.facts.subject) is question
            if is_current and not question.waiters and question.closes_at <= now:
                del self._questions[question.facts.subject]
        self._late = {subject: late for subject, late in self._late.items() if late[0] > now}
        return min(self._times(), default=None)

    def give_up(self, subject: Subject) -> int:
        """Settle what waits as not answered; a later answer still counts."""
        question = self._questions.get(subject)
        if question is None:
            return 0
        question.closes_at = self._clock() + OPEN_S
        return self._settle_all(question, Answer.NONE)

    def close(self) -> None:
        """Settle everything as not answered, now and from now on."""
        self._is_closed = True
        self._late.clear()
        questions, self._questions = self._questions, {}
        for question in questions.values():
            self._settle_all(question, Answer.NONE)

    def forget_run(self, run: str | None) -> None:
        """Forget what was said about a run that is over."""
        for table in (self._refused, self._late):
            for subject in [each for each in table if each.run == run]:
                del table[subject]

    def _settle_all(self, question: Question, answer: Answer) -> int:
        return self._settle(question, question.take(None), answer)

    def _settle(self, question: Question, waiters: list[Waiter], answer: Answer) -> int:
        # They are taken out already: what is settled may ask again at once.
        self.on_change(question)
        for waiter in waiters:
            waiter.settle(answer)
        return len(waiters)

    def _times(self) -> Iterator[float]:
        for question in self._questions.values():
            if question.waiters:
                yield from (waiter.deadline for waiter in question.waiters)
            else:
                yield question.closes_at
        yield from (until for until, _ in self._late.values())

    # --- what is shown

    @property
    def questions(self) -> list[Question]:
        """The questions without an answer, the oldest first."""
        return list(self._questions.values())

    def find(self, number: int) -> Question | None:
        """Return the question of a number; None: it is answered or closed."""
        return next((each for each in self._questions.values() if each.number == number), None)

    def about(self, subject: Subject) -> Question | None:
        """Return the question about a subject; None: nothing asks."""
        return self._questions.get(subject)

    @property
    def waiting(self) -> int:
        """How many attempts wait."""
        return sum(len(question.waiters) for question in self._questions.values())


def _digest(facts: Facts) -> bytes:
    """Return what tells requests of one question apart; a path is of any length."""
    text = f"{facts.method} {facts.path}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=16).digest()


def _size(waiters: list[Waiter]) -> int:
    return sum(waiter.facts.size for waiter in waiters)
