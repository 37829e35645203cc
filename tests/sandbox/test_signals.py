"""The first signal is raised, the next ones are not, and afterwards all is as it was."""

import os
import signal

import pytest

from claude_proxy.sandbox.signals import Interrupted, Interruptions

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", HANDLED)
def test_a_signal_is_raised_once(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in HANDLED]

    with Interruptions():
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), number)
        for one in HANDLED:
            os.kill(os.getpid(), one)

    assert caught.value.number == number
    assert [signal.getsignal(one) for one in HANDLED] == before


def test_what_was_ignored_before_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruptions():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_nothing_interrupts_once_that_is_asked_for() -> None:
    with Interruptions() as interruptions:
        interruptions.ignore()
        for number in HANDLED:
            os.kill(os.getpid(), number)
