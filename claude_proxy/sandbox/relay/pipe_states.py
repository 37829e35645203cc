"""States of a relayed connection: how each of its two pipes ends, and when to close both; pure.

Law kept: a part never passes for the whole. Every byte reaches the other side before an orderly end
does, or the end is a reset. Imports nothing heavy.

A pipe copies one direction, from its source to its sink. `TRANSITIONS` is this table:

    state        END        RESET   REFUSED      DELIVERED
    FLOWING      DRAINING   TORN    DISCARDING   -
    DISCARDING   UNHEARD    TORN    -            -
    DRAINING     -          -       UNHEARD      FINISHED
    TORN         -          -       -            FINISHED
    FINISHED     -          -       UNHEARD      -
    UNHEARD      -          -       -            -

END: the source sends no more. RESET: the source was reset. REFUSED: the sink accepts no more, so
what is held for it is dropped. DELIVERED: the sink has accepted everything, and the end is passed
on to it.

TORN becomes FINISHED only if `is_early_close` holds; any other reset is passed on as a reset. After
both pipes have moved, `next_step` looks up their states in `STEPS`; what is not listed is WAIT:

    client to upstream     upstream to client     step
    FINISHED or UNHEARD    FINISHED or UNHEARD    CLOSE
    DISCARDING             FINISHED or UNHEARD    LINGER
    FINISHED or UNHEARD    DISCARDING             LINGER
    FLOWING                FINISHED               AWAIT_HANG_UP

An upstream that has ended its half may still take bytes, or have closed for good: then it refuses
them, which is REFUSED for a client that only waits as well.
"""

from enum import Enum, auto


class PipeState(Enum):
    """The state of one direction of a connection."""

    FLOWING = auto()  # the source may send, and the sink accepts it
    DISCARDING = auto()  # the source may send, but the sink accepts nothing
    DRAINING = auto()  # the source has ended; what is held goes first, then the end
    TORN = auto()  # the source was reset; what is held goes first
    FINISHED = auto()  # the end was passed on to the sink
    UNHEARD = auto()  # the source has ended, and the sink accepts nothing, not even the end


class PipeEvent(Enum):
    """An event of one direction of a connection."""

    END = auto()
    RESET = auto()
    REFUSED = auto()
    DELIVERED = auto()


class NextStep(Enum):
    """What to do with the connection."""

    WAIT = auto()
    LINGER = auto()  # close soon: the last side that sends may still have to read
    AWAIT_HANG_UP = auto()  # the upstream has ended its half: it may close the other one too
    CLOSE = auto()


_FLOWING, _DISCARDING = PipeState.FLOWING, PipeState.DISCARDING
_FINISHED, _UNHEARD = PipeState.FINISHED, PipeState.UNHEARD

TRANSITIONS = {
    (_FLOWING, PipeEvent.END): PipeState.DRAINING,
    (_FLOWING, PipeEvent.RESET): PipeState.TORN,
    (_FLOWING, PipeEvent.REFUSED): _DISCARDING,
    (_DISCARDING, PipeEvent.END): _UNHEARD,
    (_DISCARDING, PipeEvent.RESET): PipeState.TORN,
    (PipeState.DRAINING, PipeEvent.REFUSED): _UNHEARD,
    (PipeState.DRAINING, PipeEvent.DELIVERED): _FINISHED,
    (PipeState.TORN, PipeEvent.DELIVERED): _FINISHED,
    (_FINISHED, PipeEvent.REFUSED): _UNHEARD,
}

STEPS = {
    (_FINISHED, _FINISHED): NextStep.CLOSE,
    (_FINISHED, _UNHEARD): NextStep.CLOSE,
    (_UNHEARD, _FINISHED): NextStep.CLOSE,
    (_UNHEARD, _UNHEARD): NextStep.CLOSE,
    (_DISCARDING, _FINISHED): NextStep.LINGER,
    (_DISCARDING, _UNHEARD): NextStep.LINGER,
    (_FINISHED, _DISCARDING): NextStep.LINGER,
    (_UNHEARD, _DISCARDING): NextStep.LINGER,
    (_FLOWING, _FINISHED): NextStep.AWAIT_HANG_UP,
}


def next_state(state: PipeState, event: PipeEvent) -> PipeState:
    """Return the state of a pipe after `event`; an event that is not in the table is ignored."""
    return TRANSITIONS.get((state, event), state)


def next_step(up: PipeState, down: PipeState) -> NextStep:
    """Return the step for the states of both pipes: client to upstream, and back."""
    return STEPS.get((up, down), NextStep.WAIT)


def is_early_close(up: PipeState, *, holds_bytes: bool) -> bool:
    """Tell whether an upstream's reset only means that it closed without reading everything.

    A proxy does that when it answers before the end of a request; its answer is then valid. This is
    assumed if bytes for the upstream are still held, or if it has refused some.
    """
    return holds_bytes or up is _DISCARDING or up is _UNHEARD
