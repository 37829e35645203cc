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
# A start that waits for an import, as it may for a slow disk.
_STARTING = """
import os, select, sys
from claude_proxy.server.stop_signals import StopSignals

signals = StopSignals(0, early=lambda: os._exit(42), overdue=lambda: os._exit(1), until=0)
try:
    signals.begin()
    print("begun", flush=True)
    select.select([], [], [])
except KeyboardInterrupt:
    os._exit(130)
"""
_BUSY = """
import asyncio, os, sys
from claude_proxy.server.stop_signals import StopSignals

async def run():
    signals = StopSignals(0, early=lambda: os._exit(1), overdue=lambda: os._exit(42))
    signals.begin()
    signals.start(asyncio.get_running_loop(), lambda: None, lambda: None)
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
        stop = asyncio.Event()
        signals.start(asyncio.get_running_loop(), lambda: reloads.append(1), stop.set)
        act(signals)
        while not (reloads or signals.orders):  # noqa: ASYNC110 - a thread counts
            await asyncio.sleep(0.001)
        if signals.orders:
            await stop.wait()

    with handlers_kept():
        signals = StopSignals(
            grace_s, early=pytest.fail, overdue=overdue.set, until=until, is_worker=is_worker
        )
        signals.begin()
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


@pytest.mark.parametrize(
    ("stop", "code"),
    [
        (lambda child: child.send_signal(signal.SIGTERM), 42),
        (lambda child: child.stdin.close(), 42),
        (lambda child: child.send_signal(signal.SIGINT), 130),
    ],
    ids=["a signal", "the end of the launcher", "Ctrl-C"],
)
def test_a_start_that_has_no_loop_yet_can_be_stopped(
    stop: Callable[["subprocess.Popen[bytes]"], None], code: int
) -> None:
    program = [sys.executable, "-c", _STARTING]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()

        stop(child)

        assert child.wait(60) == code


def test_a_hangup_before_there_is_anything_to_reload_stops_nothing() -> None:
    stopped = threading.Event()

    with handlers_kept():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signals = StopSignals(0, early=stopped.set, overdue=stopped.set)
        signals.begin()
        os.kill(os.getpid(), signal.SIGHUP)
        signals.close()

    assert not stopped.is_set()
