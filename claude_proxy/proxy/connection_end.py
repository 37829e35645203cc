"""End states of a client connection: every way in which one ends, as one table; pure.

Law kept: fail closed. Once a connection has left OPEN, no byte of its client reaches a layer, its
layers have been notified, and its upstream connections are released.

`TRANSITIONS` is this table:

    state        CLOSE        CLOSE_AT_EOF   EOF          ABORT    LOST
    OPEN         LINGERING    FLUSHING       -            RESET    GONE
    LINGERING    -            -              FLUSHING     RESET    GONE
    FLUSHING     -            -              -            RESET    GONE
    RESET        -            -              -            -        GONE
    GONE         -            -              -            -        -

The cause of each event:

    the client closes or resets                             LOST
    a layer closes the client, which may still be sending   CLOSE
    a layer closes the client after its end of stream       CLOSE_AT_EOF
    a time limit passes, or the rule of a tunnel is gone    CLOSE or CLOSE_AT_EOF
    the proxy stops while the connection is idle            CLOSE or CLOSE_AT_EOF
    a layer, a hook or a dial raises                        ABORT
    room is needed for another client                       ABORT
    the client reset while it was not read from             ABORT
    lingering or flushing takes too long, or too many bytes ABORT

An end of stream in OPEN does not end the connection: the layers get it, and may still respond.
"""

from enum import IntEnum, auto
from typing import Final


class EndState(IntEnum):
    """The state of a connection, from open to gone."""

    OPEN = auto()
    LINGERING = auto()  # the response is sent, our half is closed, received bytes are discarded
    FLUSHING = auto()  # the client has ended; the transport closes once everything is written
    RESET = auto()  # the transport was aborted, and has not reported yet that it is gone
    GONE = auto()  # the transport is gone


class EndEvent(IntEnum):
    """An event that ends a connection, or advances its end."""

    CLOSE = auto()
    CLOSE_AT_EOF = auto()
    EOF = auto()
    ABORT = auto()
    LOST = auto()


TRANSITIONS: Final = {
    (EndState.OPEN, EndEvent.CLOSE): EndState.LINGERING,
    (EndState.OPEN, EndEvent.CLOSE_AT_EOF): EndState.FLUSHING,
    (EndState.OPEN, EndEvent.ABORT): EndState.RESET,
    (EndState.OPEN, EndEvent.LOST): EndState.GONE,
    (EndState.LINGERING, EndEvent.EOF): EndState.FLUSHING,
    (EndState.LINGERING, EndEvent.ABORT): EndState.RESET,
    (EndState.LINGERING, EndEvent.LOST): EndState.GONE,
    (EndState.FLUSHING, EndEvent.ABORT): EndState.RESET,
    (EndState.FLUSHING, EndEvent.LOST): EndState.GONE,
    (EndState.RESET, EndEvent.LOST): EndState.GONE,
}


def next_state(state: EndState, event: EndEvent) -> EndState:
    """Return the state after `event`; an event that is not in the table is ignored."""
    return TRANSITIONS.get((state, event), state)
