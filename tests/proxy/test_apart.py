"""Long work is done in another thread, one client's after the other's, and its end is told."""

import asyncio
import threading

import pytest

from claude_proxy.proxy.apart import Apart, Job
from tests.support.loopback import LOOPS, Play, Run, run_on, until


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Return a function that plays a coroutine function on one of the two loops."""

    def play_on_loop(play: Play) -> None:
        run_on(request.param, play)

    return play_on_loop


class Bench:
    """A thread with work whose first job waits until the others are there."""

    def __init__(self) -> None:
        self.apart = Apart()
        self.log: list[str] = []
        self.told: list[str] = []
        self._free = threading.Event()
        self.apart.submit("first", 1, self._free.wait, lambda: None)  # type: ignore[arg-type]

    def submit(self, client: str, name: str, size: int = 1) -> Job:
        return self.apart.submit(
            client, size, lambda: self.log.append(name), lambda: self.told.append(name)
        )

    async def finish(self, count: int) -> None:
        self._free.set()
        await until(lambda: len(self.told) == count)


def test_work_is_done_in_another_thread_and_told_on_the_loop(run: Run) -> None:
    threads: list[int] = []

    async def play() -> None:
        def note() -> None:
            threads.append(threading.get_ident())

        Apart().submit("a", 1, note, note)
        await until(lambda: len(threads) == 2)

        assert threads[0] != threads[1] == threading.get_ident()

    run(play)


def test_a_client_with_much_work_does_not_delay_another_s(run: Run) -> None:
    async def play() -> None:
        bench = Bench()
        for number in range(5):
            bench.submit("flood", f"flood {number}")
        bench.submit("other", "other")
        await bench.finish(6)

        assert bench.log.index("other") == 1
        assert bench.told == bench.log

    run(play)


def test_the_shortest_work_of_a_client_is_first(run: Run) -> None:
    async def play() -> None:
        bench = Bench()
        for size in (3, 1, 2):
            bench.submit("a", str(size), size)
        await bench.finish(3)

        assert bench.log == ["1", "2", "3"]

    run(play)


def test_work_that_nobody_wants_any_more_is_not_done(run: Run) -> None:
    async def play() -> None:
        bench = Bench()
        bench.submit("a", "cancelled").cancel()
        bench.submit("a", "wanted")
        await bench.finish(1)

        assert bench.log == bench.told == ["wanted"]

    run(play)


def test_work_that_fails_is_told_like_any_other(run: Run) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    async def play() -> None:
        bench = Bench()
        bench.apart.submit("a", 1, fail, lambda: bench.told.append("failed"))
        bench.submit("a", "after")
        await bench.finish(2)

        assert bench.told == ["failed", "after"]

    run(play)


def test_work_that_ends_after_its_loop_is_forgotten() -> None:
    ended = threading.Event()
    apart = Apart()

    async def play() -> None:
        apart.submit("a", 1, ended.wait, lambda: None)  # type: ignore[arg-type]

    asyncio.run(play())
    ended.set()
    after = threading.Event()

    async def again() -> None:
        apart.submit("a", 1, lambda: None, after.set)
        await until(after.is_set)

    asyncio.run(again())
    assert after.is_set()
