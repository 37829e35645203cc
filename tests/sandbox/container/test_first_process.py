"""Only a signal that is certain to do nothing to a container's first process is said to."""

import os
import signal

import pytest

from claude_proxy.sandbox.container import first_process


def status(numbers: str = "4711\t1", *, caught: int = 0, blocked: int = 0, ignored: int = 0) -> str:
    masks = f"SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
    return f"Name:\tsleep\nNSpid:\t{numbers}\n{masks}"


def mask(number: int) -> int:
    return 1 << (number - 1)


def test_a_first_process_without_a_handler_gets_no_signal() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        assert first_process.would_drop(status(caught=mask(signal.SIGCHLD)), number)


@pytest.mark.parametrize("how", ["caught", "blocked", "ignored"])
def test_a_signal_that_it_takes_in_any_way_is_its_own(how: str) -> None:
    masks = {"caught": 0, "blocked": 0, "ignored": 0, how: mask(signal.SIGINT)}
    text = status(caught=masks["caught"], blocked=masks["blocked"], ignored=masks["ignored"])

    assert not first_process.would_drop(text, signal.SIGINT)
    assert first_process.would_drop(text, signal.SIGTERM)


@pytest.mark.parametrize("numbers", ["4711", "1", "4711\t7", ""])
def test_a_process_that_is_not_the_first_of_a_container_drops_nothing(numbers: str) -> None:
    assert not first_process.would_drop(status(numbers), signal.SIGINT)


def test_a_process_that_is_gone_or_of_this_machine_drops_nothing() -> None:
    assert not first_process.drops(os.getpid(), signal.SIGTERM)
    assert not first_process.drops(2**22 + 1, signal.SIGTERM)
    assert not first_process.would_drop("", signal.SIGTERM)
