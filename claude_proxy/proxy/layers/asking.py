"""Waiting for the owner's answer: what a layer asks of the driver, and what ends the wait.

Fail closed: a layer that waits has sent nothing on, and after the answer the gate decides again.
The driver holds every wait to its time limit, and takes it back when the connection ends.
"""

from dataclasses import dataclass

from mitmproxy.proxy import commands, events

from claude_proxy.policy.answer import Answer
from claude_proxy.policy.questions import Facts


class AwaitAnswer(commands.Command):
    """Ask the owner about an attempt; an `AnswerCame` follows, unless the wait is taken back.

    `before` is the wait that this one goes on from: together they have one time limit.
    """

    def __init__(self, facts: Facts, before: "AwaitAnswer | None" = None) -> None:
        self.facts = facts
        # By the clock of the event loop, once it waits.
        self.deadline: float | None = None if before is None else before.deadline


class StopAwaiting(commands.Command):
    """Take a wait back: nobody is there any more for what would follow."""

    def __init__(self, awaited: AwaitAnswer) -> None:
        self.awaited = awaited


@dataclass(repr=False)
class AnswerCame(events.CommandCompleted):
    """The owner has answered, or the wait is over for another reason."""

    command: AwaitAnswer
    reply: Answer
