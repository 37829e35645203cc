"""Laws of asking in a loop: waits end by themselves, and each question is told of once."""

import asyncio
from collections.abc import Awaitable, Callable

from claude_proxy.control.asking import Asking
from claude_proxy.control.questions import DeskLimits, Question, Waiter
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.questions import Access, Facts, Subject
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.authority import Authority

SUBJECT = Subject("r", Scheme.HTTPS, Authority.of("a.test", 443), Access.READ)
FACTS = Facts(SUBJECT, "GET", "/", "", None)


def play[T](act: Callable[[Asking], Awaitable[T]], wait_s: float = 600.0) -> T:
    async def run() -> T:
        return await act(Asking(DeskLimits(wait_s=wait_s)))

    return asyncio.run(run())


def test_a_wait_ends_by_itself() -> None:
    async def act(asking: Asking) -> Answer:
        over: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        asking.put(FACTS, over.set_result, None)
        return await over

    assert play(act, wait_s=0.01) is Answer.NONE


def test_each_question_is_told_of_once() -> None:
    async def act(asking: Asking) -> list[int]:
        told: list[int] = []
        heard = asyncio.Event()

        async def hear(question: Question) -> None:
            told.append(question.number)
            heard.set()

        asking.tell(hear)
        for _ in range(3):
            asking.put(FACTS, lambda _: None, None)
        await heard.wait()
        return told

    assert play(act) == [1]


def test_listeners_hear_of_every_change_until_they_stop() -> None:
    async def act(asking: Asking) -> int:
        heard: list[None] = []
        stop = asking.listen(lambda: heard.append(None))
        waiter = asking.put(FACTS, lambda _: None, None)
        assert isinstance(waiter, Waiter)
        asking.take_back(waiter)
        stop()
        asking.put(FACTS, lambda _: None, None)
        return len(heard)

    assert play(act) == 2


def test_earlier_answers_about_a_host_are_remembered() -> None:
    async def act(asking: Asking) -> list[str]:
        asking.answered(SUBJECT, "once")
        asking.answered(Subject("r", Scheme.HTTPS, Authority.of("b.test", 443), Access.READ), "no")
        asking.answered(SUBJECT, "never")
        return [each.words for each in asking.earlier_like(SUBJECT)]

    assert play(act) == ["never", "once"]


def test_the_end_settles_what_waits_and_stops_what_was_told() -> None:
    async def act(asking: Asking) -> tuple[list[Answer], bool]:
        answers: list[Answer] = []
        ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def hear(_: Question) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set_result(True)

        asking.tell(hear)
        asking.put(FACTS, answers.append, None)
        await asyncio.sleep(0)
        asking.close()
        return answers, await ended

    assert play(act) == ([Answer.NONE], True)
