"""Long work leaves the loop its turns, and the interpreter as it was."""

import asyncio
import gc
import sys
import threading

import pytest

from claude_proxy.server import off_loop
from tests.support.loopback import run_on


@pytest.mark.parametrize("do", [off_loop.compute, off_loop.wait_for])
def test_a_result_comes_from_a_daemon_thread(do: object) -> None:
    async def play() -> None:
        thread = await do(threading.current_thread)  # type: ignore[operator]

        assert thread is not threading.main_thread()
        assert thread.daemon

    run_on("asyncio", play)


def test_an_error_is_raised_where_it_is_awaited() -> None:
    async def play() -> None:
        with pytest.raises(ZeroDivisionError):
            await off_loop.compute(lambda: 1 // 0)

    run_on("asyncio", play)


def test_the_loop_turns_while_something_is_computed() -> None:
    turns, enough = 0, threading.Event()

    def work() -> None:
        while not enough.is_set():
            pass

    async def play() -> None:
        nonlocal turns
        computing = asyncio.ensure_future(off_loop.compute(work))
        while turns < 50:
            turns += 1
            await asyncio.sleep(0)
        enough.set()
        await computing

    run_on("asyncio", play)
    assert turns == 50


def test_a_computation_is_cut_into_short_turns_without_collections() -> None:
    before = sys.getswitchinterval()

    async def play() -> None:
        during = await off_loop.compute(lambda: (sys.getswitchinterval(), gc.isenabled()))

        assert during[0] == pytest.approx(0.0005)
        assert not during[1]

    run_on("asyncio", play)
    assert (sys.getswitchinterval(), gc.isenabled()) == (before, True)
    assert gc.get_freeze_count() == 0


def test_one_who_no_longer_waits_is_not_told() -> None:
    release = threading.Event()

    async def play() -> None:
        waiting = asyncio.ensure_future(off_loop.wait_for(release.wait))
        await asyncio.sleep(0)
        waiting.cancel()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run_on("asyncio", play)
