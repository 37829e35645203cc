"""A wait for a proxy is said once after a while, and has an end."""

import os
from collections.abc import Iterator

import pytest

from claude_proxy.sandbox.start_patience import StartPatience

NOTE = "note: the run waits for its proxy (process 7), which is not ready yet"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_what_is_there_is_neither_noted_nor_waited_for(pipe: tuple[int, int]) -> None:
    said: list[str] = []
    patience = StartPatience(said.append)
    os.write(pipe[1], b"x")
    patience.note_at = 0.0

    assert patience.readable(pipe[0], 7)
    assert patience.writable(pipe[1], 7)
    assert said == []


def test_what_does_not_come_is_noted_once_and_given_up(pipe: tuple[int, int]) -> None:
    said: list[str] = []
    patience = StartPatience(said.append)
    patience.give_up_at = 0.0

    assert not patience.readable(pipe[0], 7)
    assert not patience.readable(pipe[0], 7)
    assert said == [NOTE]
    assert patience.left_s == 0


def test_after_the_note_the_wait_goes_on(pipe: tuple[int, int]) -> None:
    def come(_: str) -> None:
        os.write(pipe[1], b"x")

    patience = StartPatience(come)
    patience.note_at = 0.0

    assert patience.readable(pipe[0], 7)
