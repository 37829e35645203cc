"""The launcher sees that the guard has stopped the sandbox, in memory that both share."""

import os
from collections.abc import Iterator

import pytest

from claude_proxy.sandbox.bubblewrap.stop_generation import StopGeneration


@pytest.fixture
def memory() -> Iterator[int]:
    """Memory as the launcher makes it."""
    descriptor = os.memfd_create("generation")
    os.ftruncate(descriptor, os.sysconf("SC_PAGESIZE"))
    yield descriptor
    os.close(descriptor)


def test_the_counter_is_odd_while_the_sandbox_is_stopped(memory: int) -> None:
    guard, launcher = StopGeneration(memory), StopGeneration(memory)

    guard.begin()

    assert launcher.value % 2 == 1


def test_a_stop_that_is_over_has_changed_the_counter(memory: int) -> None:
    guard, launcher = StopGeneration(memory), StopGeneration(memory)
    before = launcher.value

    guard.begin()
    guard.end()

    assert launcher.value % 2 == 0
    assert launcher.value != before


def test_a_stop_that_begins_twice_ends_once(memory: int) -> None:
    generation = StopGeneration(memory)

    generation.begin()
    generation.begin()
    generation.end()

    assert generation.value == 2
