"""The first signal is raised, later ones are ignored, and the handlers are restored."""

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


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruptions():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_are_ignored_on_request() -> None:
    with Interruptions() as interruptions:
        interruptions.ignore()
        for number in HANDLED:
            os.kill(os.getpid(), number)
