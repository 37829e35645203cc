"""Answers: what became of a question to the owner about one attempt. Pure."""

from enum import Enum, auto


class Answer(Enum):
    """What the owner said about an attempt that waits; only a yes can allow it."""

    NO = auto()
    YES = auto()
    NONE = auto()  # nobody has said anything in time
    NO_ROOM = auto()  # more wait than may be held
    AGAIN = auto()  # the rules have changed: they are to be asked again
