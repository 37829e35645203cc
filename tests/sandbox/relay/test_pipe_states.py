"""The laws of a relayed connection's states: every end is reached, and none comes too early."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.sandbox.relay import pipe_states
from claude_proxy.sandbox.relay.pipe_states import (
    STEPS,
    TRANSITIONS,
    NextStep,
    PipeEvent,
    PipeState,
    is_early_close,
    next_state,
    next_step,
)

OVER = {PipeState.FINISHED, PipeState.UNHEARD}
SENDING = {PipeState.FLOWING, PipeState.DISCARDING}

histories = st.lists(st.sampled_from(PipeEvent), max_size=12)


def after(events: list[PipeEvent]) -> PipeState:
    state = PipeState.FLOWING
    for event in events:
        state = next_state(state, event)
    return state


def test_the_docstring_shows_the_transitions_as_they_are() -> None:
    lines = (pipe_states.__doc__ or "").splitlines()
    heading = next(line for line in lines if line.split()[:2] == ["state", "END"])
    events = [PipeEvent[name] for name in heading.split()[1:]]
    rows = [line.split() for line in lines if re.match(r"    [A-Z]+( +[A-Z-]+){4}$", line)]

    shown = {
        (PipeState[row[0]], event): PipeState[cell]
        for row in rows
        for event, cell in zip(events, row[1:], strict=True)
        if cell != "-"
    }

    assert [row[0] for row in rows] == [state.name for state in PipeState]
    assert shown == TRANSITIONS


def test_the_docstring_shows_the_steps_as_they_are() -> None:
    shown = {}
    for line in (pipe_states.__doc__ or "").splitlines():
        *states, step = re.split(r" {2,}", line.strip())
        if step in NextStep.__members__ and len(states) == 2:
            for up, down in product(*(each.split(" or ") for each in states)):
                shown[PipeState[up], PipeState[down]] = NextStep[step]

    assert shown == STEPS


@given(histories)
def test_a_pipe_that_is_over_stays_over(events: list[PipeEvent]) -> None:
    states = [after(events[:count]) for count in range(len(events) + 1)]

    first = next((at for at, state in enumerate(states) if state in OVER), len(states))
    assert all(state in OVER for state in states[first:])


@given(histories)
def test_a_pipe_is_over_only_after_its_source_has_ended(events: list[PipeEvent]) -> None:
    if after(events) in OVER:
        assert {PipeEvent.END, PipeEvent.RESET} & set(events)


@given(histories)
def test_an_end_is_passed_on_only_after_everything_was_delivered(events: list[PipeEvent]) -> None:
    if after(events) is PipeState.FINISHED:
        told = len(events) - events[::-1].index(PipeEvent.DELIVERED)
        ended = min(events.index(end) for end in (PipeEvent.END, PipeEvent.RESET) if end in events)
        assert ended < told


@given(histories)
def test_a_source_that_has_ended_sends_no_more(events: list[PipeEvent]) -> None:
    if {PipeEvent.END, PipeEvent.RESET} & set(events):
        assert after(events) not in SENDING


@given(histories)
def test_a_reset_never_becomes_an_end_by_itself(events: list[PipeEvent]) -> None:
    """Only a decision, which DELIVERED carries out, makes one of it."""
    ends = [event for event in events if event in {PipeEvent.END, PipeEvent.RESET}]
    if ends[:1] == [PipeEvent.RESET] and PipeEvent.DELIVERED not in events:
        assert after(events) is PipeState.TORN


@given(histories, st.sampled_from([PipeEvent.DELIVERED, PipeEvent.REFUSED]))
def test_every_pipe_that_is_not_torn_ends_with_its_source(
    events: list[PipeEvent], last: PipeEvent
) -> None:
    if after(events) is not PipeState.TORN:
        assert after([*events, PipeEvent.END, last]) in OVER


@given(histories)
def test_a_torn_pipe_waits_for_a_decision(events: list[PipeEvent]) -> None:
    if after(events) is PipeState.TORN:
        assert after([*events, PipeEvent.REFUSED, PipeEvent.END]) is PipeState.TORN
        assert after([*events, PipeEvent.DELIVERED]) is PipeState.FINISHED


@pytest.mark.parametrize("up", PipeState, ids=lambda state: state.name)
@pytest.mark.parametrize("down", PipeState, ids=lambda state: state.name)
def test_a_connection_is_closed_when_both_pipes_are_over_and_not_before(
    up: PipeState, down: PipeState
) -> None:
    assert (next_step(up, down) is NextStep.CLOSE) is ({up, down} <= OVER)


@pytest.mark.parametrize("up", PipeState, ids=lambda state: state.name)
@pytest.mark.parametrize("down", PipeState, ids=lambda state: state.name)
def test_a_connection_lingers_only_for_a_side_whose_bytes_are_discarded(
    up: PipeState, down: PipeState
) -> None:
    lingers = PipeState.DISCARDING in {up, down} and bool({up, down} & OVER)

    assert (next_step(up, down) is NextStep.LINGER) is lingers


@pytest.mark.parametrize("up", PipeState, ids=lambda state: state.name)
@pytest.mark.parametrize("down", PipeState, ids=lambda state: state.name)
def test_a_client_is_hung_up_on_only_after_it_got_the_upstreams_end(
    up: PipeState, down: PipeState
) -> None:
    waits = (up, down) == (PipeState.FLOWING, PipeState.FINISHED)

    assert (next_step(up, down) is NextStep.AWAIT_HANG_UP) is waits


@pytest.mark.parametrize("up", PipeState, ids=lambda state: state.name)
def test_a_reset_upstream_counts_as_closed_early_only_if_it_left_bytes_unread(
    up: PipeState,
) -> None:
    assert is_early_close(up, holds_bytes=True)
    refused = up in {PipeState.DISCARDING, PipeState.UNHEARD}
    assert is_early_close(up, holds_bytes=False) is refused
