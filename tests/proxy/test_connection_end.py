"""A client connection ends once, forwards only, and always."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.proxy import connection_end
from claude_proxy.proxy.connection_end import TRANSITIONS, EndEvent, EndState, next_state

ORDER = list(EndState)

histories = st.lists(st.sampled_from(EndEvent), max_size=10)


def states_of(history: list[EndEvent]) -> list[EndState]:
    states = [EndState.OPEN]
    for event in history:
        states.append(next_state(states[-1], event))
    return states


def test_the_docstring_shows_the_table_as_it_is() -> None:
    lines = [line.split() for line in (connection_end.__doc__ or "").splitlines()]
    heading = next(line for line in lines if line[:1] == ["state"])
    events = [EndEvent[name] for name in heading[1:]]
    rows = [line for line in lines if line and line[0] in EndState.__members__ and len(line) == 6]

    shown = {
        (EndState[row[0]], event): EndState[cell]
        for row in rows
        for event, cell in zip(events, row[1:], strict=True)
        if cell != "-"
    }

    assert events == list(EndEvent)
    assert [row[0] for row in rows] == [state.name for state in EndState]
    assert shown == TRANSITIONS


def test_every_cause_in_the_docstring_makes_an_event_that_ends_an_open_connection() -> None:
    text = connection_end.__doc__ or ""
    causes = re.findall(r"^    [a-z].*[a-z] +([A-Z_]+(?: or [A-Z_]+)?)$", text, re.MULTILINE)

    assert len(causes) == 9
    for cause in causes:
        for name in cause.split(" or "):
            assert next_state(EndState.OPEN, EndEvent[name]) is not EndState.OPEN


@given(histories)
def test_an_end_never_goes_back(history: list[EndEvent]) -> None:
    places = [ORDER.index(state) for state in states_of(history)]

    assert places == sorted(places)


@given(histories)
def test_a_connection_whose_transport_is_gone_is_over_whatever_comes(
    history: list[EndEvent],
) -> None:
    if EndEvent.LOST in history:
        assert states_of(history)[-1] is EndState.GONE
    else:
        assert EndState.GONE not in states_of(history)


@pytest.mark.parametrize("state", EndState, ids=lambda state: state.name)
def test_every_state_but_the_last_can_be_cut_short(state: EndState) -> None:
    assert next_state(state, EndEvent.ABORT) in {EndState.RESET, EndState.GONE}


@pytest.mark.parametrize("event", EndEvent, ids=lambda event: event.name)
def test_an_end_of_stream_alone_leaves_a_connection_open(event: EndEvent) -> None:
    """A client that has sent everything may still read; anything else ends the connection."""
    is_open = next_state(EndState.OPEN, event) is EndState.OPEN

    assert is_open is (event is EndEvent.EOF)


def test_the_last_bytes_of_an_ending_connection_are_not_cut_off_by_another_close() -> None:
    for close in (EndEvent.CLOSE, EndEvent.CLOSE_AT_EOF):
        for state in (EndState.LINGERING, EndState.FLUSHING):
            assert next_state(state, close) is state
