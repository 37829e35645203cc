"""Waiting for the owner's answer: what a layer asks of the driver, and what ends the wait.

Fail closed: a layer that waits has sent nothing on, and after the answer the gate decides again.
Recorded or denied: what ends before there is an answer is recorded as a denial.
The driver holds every wait to its time limit, and takes it back when the connection ends.
"""

from dataclasses import dataclass

from mitmproxy.proxy import commands, events

from claude_proxy.policy.answer import Answer
from claude_proxy.policy.git_push import PUSH_QUERY, push_path
from claude_proxy.policy.questions import Facts
from claude_proxy.proxy.layers.session import Session


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


def ended_unanswered(session: Session, awaited: AwaitAnswer, why: str) -> None:
    """Record that what waited has ended, for `why`: nobody is there any more for an answer."""
    facts = awaited.facts
    path, _, query = facts.path.partition("?")
    if session.record_query:
        path = facts.path
    elif query and push_path(path, query) is not None:
        path = f"{path}?{PUSH_QUERY}"
    session.gate.left_unanswered(session.client_info, facts, path, why)
