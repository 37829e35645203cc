"""A signal stops the proxy whatever its event loop does; the deadline is kept by a thread."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from claude_proxy.server.stop_signals import StopSignals
from tests.support.loopback import LOOPS

_NEVER_S = 10_000.0
_BUSY = """
import asyncio, os, sys
from claude_proxy.server.stop_signals import StopSignals

async def run():
    signals = StopSignals(0, lambda: os._exit(42))
    signals.start(lambda: None)
    print("ready", flush=True)
    {does}

asyncio.run(run())
"""


@contextmanager
def handlers_kept() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def play(
    loop: str,
    act: Callable[[StopSignals], object],
    *,
    grace_s: float = _NEVER_S,
    until: int | None = None,
    is_worker: bool = False,
) -> tuple[int, int, bool]:
    """Return the orders to stop, the reloads, and whether the deadline has passed."""
    overdue, reloads = threading.Event(), list[int]()

    async def run(signals: StopSignals) -> None:
        signals.start(lambda: reloads.append(1))
        act(signals)
        while not (reloads or signals.orders):  # noqa: ASYNC110 - a thread counts
            await asyncio.sleep(0.001)
        if signals.orders:
            await signals.stop.wait()

    with handlers_kept():
        signals = StopSignals(grace_s, overdue.set, until=until, is_worker=is_worker)
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(run(signals))
        passed = grace_s != _NEVER_S and overdue.wait(60)
        signals.close()
    return signals.orders, len(reloads), passed


def killed_by(number: signal.Signals) -> Callable[[StopSignals], None]:
    return lambda _: os.kill(os.getpid(), number)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_loop(loop: str, number: signal.Signals) -> None:
    assert play(loop, killed_by(number)) == (1, 0, False)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_hangup_reloads(loop: str) -> None:
    assert play(loop, killed_by(signal.SIGHUP)) == (0, 1, False)


@pytest.mark.parametrize("loop", LOOPS)
def test_the_end_of_the_launcher_stops_the_loop(loop: str) -> None:
    reading, writing = os.pipe()

    orders, _, _ = play(loop, lambda _: os.close(writing), until=reading)

    os.close(reading)
    assert orders == 1


def test_a_process_that_does_not_end_in_time_is_overdue() -> None:
    assert play("uvloop", killed_by(signal.SIGTERM), grace_s=0) == (1, 0, True)


def test_a_second_signal_is_a_second_order() -> None:
    def twice(signals: StopSignals) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while not signals.orders:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        while signals.orders < 2:
            pass

    orders, _, _ = play("uvloop", twice)

    assert orders == 2


def test_a_worker_leaves_ctrl_c_to_its_parent() -> None:
    def act(_: StopSignals) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)

    assert play("uvloop", act, is_worker=True) == (0, 1, False)


@pytest.mark.parametrize(
    "does", ["while True: pass", "__import__('time').sleep(10_000)"], ids=["busy", "blocked"]
)
def test_a_loop_that_does_nothing_else_does_not_prevent_the_end(does: str) -> None:
    program = [sys.executable, "-c", _BUSY.format(does=does)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGTERM)

        assert child.wait(60) == 42
