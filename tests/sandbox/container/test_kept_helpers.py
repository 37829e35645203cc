"""What serves a container is started again when it dies, ever more slowly, and never given up."""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container.kept_helpers import KeptHelper, Starts
from claude_proxy.sandbox.helper_processes import HelperProcess
from tests.support.waiting import until

type StartHelper = Callable[[], HelperProcess]


@pytest.fixture
def start() -> Iterator[StartHelper]:
    started: list[HelperProcess] = []

    def helper() -> HelperProcess:
        until_, lifeline = os.pipe()
        process = subprocess.Popen(["cat"], stdin=until_, stdout=subprocess.DEVNULL)
        os.close(until_)
        started.append(HelperProcess("relay", process, lifeline))
        return started[-1]

    yield helper
    for each in started:
        each.end()


def kill(helper: KeptHelper) -> None:
    (process,) = helper.processes
    process.process.kill()
    until(lambda: not process.alive, "the end of the helper")


def test_a_helper_that_dies_is_started_again_at_once(start: StartHelper) -> None:
    notes: list[str] = []
    helper = KeptHelper("relay", lambda _: [start()], notes.append)
    kill(helper)

    helper.look_after(1.0)
    helper.look_after(1.0)

    assert len(helper.alive) == 1
    assert helper.restarts == 1
    assert notes[-1] == "the relay was started again"


def test_each_start_is_told_whether_it_is_the_first(start: StartHelper) -> None:
    again: list[bool] = []

    def begin(is_again: bool) -> Sequence[HelperProcess]:  # noqa: FBT001 - of KeptHelper
        again.append(is_again)
        return [start()]

    helper = KeptHelper("relay", begin, lambda _: None)
    kill(helper)
    helper.look_after(1.0)
    helper.look_after(1.0)

    assert again == [False, True]


def test_pauses_grow_and_end_in_a_long_one() -> None:
    starts = Starts()

    pauses = [starts.next_at(0.0) for _ in range(12)]

    times = [at for at, _ in pauses]
    assert times == sorted(times)
    assert times[0] == 0.0
    assert not pauses[0][1]
    assert pauses[-1][1]  # and it says so


def test_after_a_quiet_time_the_pauses_are_short_again() -> None:
    starts = Starts()
    for _ in range(12):
        starts.next_at(0.0)

    assert starts.next_at(10_000.0) == (10_000.0, False)


def test_a_start_that_fails_is_tried_later(start: StartHelper) -> None:
    notes: list[str] = []

    def begin(again: bool) -> Sequence[HelperProcess]:  # noqa: FBT001 - of KeptHelper
        if again:
            raise ClaudeProxyError("no memory")
        return [start()]

    helper = KeptHelper("proxy", begin, notes.append)
    kill(helper)
    helper.look_after(1.0)
    helper.look_after(1.0)

    assert helper.due is not None
    assert "no memory" in notes[-1]
