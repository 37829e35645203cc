"""States of an HTTP/1.1 connection, and the table of what may follow what.

    state       ASK     HOLD     DIAL       SEND      RESPOND     SWITCH    FINISH  CLOSE
    IDLE        ASKING  HOLDING  DIALLING   AWAITING  -           -         IDLE    CLOSED
    ASKING      ASKING  HOLDING  DIALLING   AWAITING  -           -         IDLE    CLOSED
    HOLDING     -       -        DIALLING   AWAITING  -           -         IDLE    CLOSED
    DIALLING    -       -        -          AWAITING  -           -         IDLE    CLOSED
    AWAITING    -       -        DIALLING   -         RESPONDING  RELAYING  IDLE    CLOSED
    RESPONDING  -       -        -          -         -           -         IDLE    CLOSED
    RELAYING    -       -        -          -         -           -         -       CLOSED
    CLOSED      -       -        -          -         -           -         -       -

There is an exchange in the states from HOLDING to RELAYING, and none in the others. What is not in
the table is a fault, and a fault denies: the connection ends. The request's body has no state of
its own here: `Exchange.body` is what is still to come of it, in any state with an exchange, as an
upstream may respond before it has all of the request.
"""

from enum import IntEnum, auto
from typing import Final

from claude_proxy.proxy.layers.session import Waiting


class State(IntEnum):
    """What a connection is doing."""

    IDLE = auto()  # between requests, or within a request's head
    ASKING = auto()  # the owner is asked about a request; nothing of it has left
    HOLDING = auto()  # the request's body is held until it is whole and judged
    DIALLING = auto()  # the upstream is being connected
    AWAITING = auto()  # the request's head was sent; no final response head has come
    RESPONDING = auto()  # the final response head came; its body may follow
    RELAYING = auto()  # bytes of a WebSocket, both ways
    CLOSED = auto()  # the client gets nothing more


class Step(IntEnum):
    """What moves a connection from one state to another."""

    ASK = auto()  # the owner has to be asked about a request
    HOLD = auto()  # an allowed request's body has to be judged first
    DIAL = auto()  # there is no open connection for the request, or it turned out to be dead
    SEND = auto()  # the request's head goes upstream
    RESPOND = auto()  # the final response head came
    SWITCH = auto()  # the upstream switched to WebSocket
    FINISH = auto()  # the request was answered, and the connection is kept
    CLOSE = auto()


TRANSITIONS: Final[dict[State, dict[Step, State]]] = {
    State.IDLE: {
        Step.ASK: State.ASKING,
        Step.HOLD: State.HOLDING,
        Step.DIAL: State.DIALLING,
        Step.SEND: State.AWAITING,
        Step.FINISH: State.IDLE,
        Step.CLOSE: State.CLOSED,
    },
    State.ASKING: {
        Step.ASK: State.ASKING,
        Step.HOLD: State.HOLDING,
        Step.DIAL: State.DIALLING,
        Step.SEND: State.AWAITING,
        Step.FINISH: State.IDLE,
        Step.CLOSE: State.CLOSED,
    },
    State.HOLDING: {
        Step.DIAL: State.DIALLING,
        Step.SEND: State.AWAITING,
        Step.FINISH: State.IDLE,
        Step.CLOSE: State.CLOSED,
    },
    State.DIALLING: {
        Step.SEND: State.AWAITING,
        Step.FINISH: State.IDLE,
        Step.CLOSE: State.CLOSED,
    },
    State.AWAITING: {
        Step.DIAL: State.DIALLING,
        Step.RESPOND: State.RESPONDING,
        Step.SWITCH: State.RELAYING,
        Step.FINISH: State.IDLE,
        Step.CLOSE: State.CLOSED,
    },
    State.RESPONDING: {Step.FINISH: State.IDLE, Step.CLOSE: State.CLOSED},
    State.RELAYING: {Step.CLOSE: State.CLOSED},
    State.CLOSED: {},
}

# What the connection waits for in a state, from the moment it is entered. In RESPONDING the wait
# of AWAITING goes on.
WAITS: Final[dict[State, Waiting]] = {
    State.IDLE: Waiting.IDLE,
    State.ASKING: Waiting.ANSWER,
    State.HOLDING: Waiting.BODY,
    State.DIALLING: Waiting.UPSTREAM,
    State.AWAITING: Waiting.EXCHANGE,
    State.RELAYING: Waiting.TUNNEL,
}

# Where bytes of the request's body can be used: to be held, or to be sent on.
TAKES_BODY: Final = frozenset({State.HOLDING, State.AWAITING, State.RESPONDING})
# Where bytes of the upstream answer a request. Any others could be made to answer the next one
# (response splitting, RFC 9112 9.2).
TAKES_RESPONSE: Final = frozenset({State.AWAITING, State.RESPONDING})

# What a step leads to, and the wait that begins with it; LookupError: the step is not in the table.
# Both in one look-up, as there are three for each request.
MOVES: Final[dict[State, dict[Step, tuple[State, Waiting | None]]]] = {
    state: {step: (after, WAITS.get(after)) for step, after in steps.items()}
    for state, steps in TRANSITIONS.items()
}
