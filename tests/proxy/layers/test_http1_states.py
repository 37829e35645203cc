"""The table of states: what may follow what on an HTTP/1.1 connection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.proxy.layers import http1_states
from claude_proxy.proxy.layers.http1_states import (
    MOVES,
    TAKES_BODY,
    TAKES_RESPONSE,
    TRANSITIONS,
    WAITS,
    State,
    Step,
)

WITHOUT_EXCHANGE = {State.IDLE, State.CLOSED}


def next_state(state: State, step: Step) -> State:
    return MOVES[state][step][0]


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(State)


def test_the_docstring_shows_the_table_as_it_is() -> None:
    rows = [line.split() for line in (http1_states.__doc__ or "").splitlines()]
    shown = {row[0]: row[1:] for row in rows if row and row[0] in State.__members__}

    for state, steps in TRANSITIONS.items():
        assert shown[state.name] == [steps[s].name if s in steps else "-" for s in Step]


@pytest.mark.parametrize("state", [state for state in State if state is not State.CLOSED])
def test_every_state_can_be_closed(state: State) -> None:
    assert next_state(state, Step.CLOSE) is State.CLOSED


@pytest.mark.parametrize("step", Step)
def test_nothing_follows_the_close(step: Step) -> None:
    with pytest.raises(LookupError):
        next_state(State.CLOSED, step)


@given(st.lists(st.sampled_from(Step), max_size=30))
def test_no_response_begins_before_its_request_was_sent(steps: list[Step]) -> None:
    state, sent = State.IDLE, False
    for step in steps:
        if step not in TRANSITIONS[state]:
            continue
        assert sent or step not in {Step.RESPOND, Step.SWITCH}
        state = next_state(state, step)
        sent = (sent or step is Step.SEND) and state not in WITHOUT_EXCHANGE | {State.DIALLING}


@pytest.mark.parametrize("step", [Step.HOLD, Step.DIAL, Step.SEND])
def test_a_relay_never_serves_another_request(step: Step) -> None:
    with pytest.raises(LookupError):
        next_state(State.RELAYING, step)


def test_only_a_request_that_was_sent_takes_a_response() -> None:
    assert {state for state in State if Step.RESPOND in TRANSITIONS[state]} <= TAKES_RESPONSE
    assert not TAKES_RESPONSE & (WITHOUT_EXCHANGE | {State.HOLDING, State.DIALLING})


def test_a_body_waits_while_its_upstream_is_dialled() -> None:
    assert State.DIALLING not in TAKES_BODY


def test_a_move_is_a_transition_with_the_wait_of_the_state_it_leads_to() -> None:
    moves = {(one, step): move for one, steps in MOVES.items() for step, move in steps.items()}
    steps = {(one, step): after for one, row in TRANSITIONS.items() for step, after in row.items()}

    assert moves == {key: (after, WAITS.get(after)) for key, after in steps.items()}


def test_each_wait_has_a_time_limit_of_its_own() -> None:
    assert len(set(WAITS.values())) == len(WAITS)
