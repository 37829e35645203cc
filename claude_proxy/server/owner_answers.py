"""Answers of the owner to a running proxy: what one answer does, and who is asked for it.

Recorded: each question and each answer is a notice. Fail closed: an answer that cannot be carried
out (a grant that cannot be stored) leaves what waits waiting, and the command says why.
"""

import asyncio
import contextlib
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from claude_proxy.audit.escape import escape_text
from claude_proxy.control.answers import (
    AnswerError,
    Reply,
    Verdict,
    facts_of_question,
    facts_of_requests,
)
from claude_proxy.control.ask_command import ask_program
from claude_proxy.control.asking import Asking
from claude_proxy.control.questions import DeskLimits, Question
from claude_proxy.errors import AuditError, ClaudeProxyError
from claude_proxy.events import Notice
from claude_proxy.policy.answer import Answer
from claude_proxy.policy.location import Location
from claude_proxy.policy.questions import Facts, Subject, rule_of_answer
from claude_proxy.policy.rules import Rule
from claude_proxy.server import desktop_notices
from claude_proxy.server.prepared import Prepared

if TYPE_CHECKING:
    from claude_proxy.config.settings import Settings

logger = logging.getLogger(__name__)

QUESTION, ANSWER = "question", "answer"  # kinds of notices
_FROM_PROGRAM = "--ask-command"
_MOST_PROGRAMS = 32
_PAUSE_S = 2.0  # between two notifications of the desktop
_PLACE = Location("answer", 1, 1)


class GrantMaker(Protocol):
    """Makes a grant of an answer, and has this process know of it."""

    def __call__(self, subject: Subject, rule: Rule, reply: Reply, by: str) -> int:
        """Return the number of the grant; ClaudeProxyError if there can be none."""


class OwnerAnswers:
    """The questions of one process, made when the first is asked."""

    def __init__(self, prepared: Prepared, make_grant: GrantMaker | None = None) -> None:
        self._prepared = prepared
        self._settings: Settings = prepared.settings
        self._make_grant = make_grant
        self.made: Asking | None = None
        self._last_notified = -_PAUSE_S
        self._programs = 0  # that are asked at the moment

    def __call__(self) -> Asking:
        """Return the questions; they are kept from the first on."""
        if self.made is None:
            self.made = Asking(DeskLimits(wait_s=self._settings.ask_timeout_s))
            self.made.tell(self._note)
            if self._settings.ask_command is not None:
                self.made.tell(self._ask_program)
        return self.made

    def ask_again(self) -> None:
        """Have what waits judged again, as the rules have changed."""
        if self.made is not None:
            self.made.desk.ask_again()

    def close(self) -> None:
        """Settle everything as not answered."""
        if self.made is not None:
            self.made.close()

    # --- what one answer does

    def answer(self, subject: Subject, reply: Reply, by: str, upto: int | None = None) -> int:
        """Do what the owner said; return how many attempts it settled.

        ClaudeProxyError if it cannot be done. `by` says who answered, and `upto` which requests
        were shown (see `Desk.answer`): `once` and `no` are for these alone.
        """
        asking = self()
        question = asking.desk.about(subject)
        if question is None and reply.verdict is not Verdict.NEVER:
            raise AnswerError("nothing asks this any more", fix="see `claude-proxy ask --list`")
        if reply.verdict is Verdict.ALWAYS and by == _FROM_PROGRAM:
            raise AnswerError("a program cannot write the list", fix="let it answer run, or for")
        number = None
        if reply.lasts and reply.verdict is not Verdict.ALWAYS and question is not None:
            number = self._grant(question.facts, reply, by)
        settled = _settle(asking, subject, reply, upto)
        asking.answered(subject, str(reply))
        grant = "" if number is None else f" (grant {number})"
        self._record(ANSWER, f"{reply} to {subject}{grant}, by {by}", subject.run)
        return settled

    def _grant(self, facts: Facts, reply: Reply, by: str) -> int:
        rule = rule_to_open(facts)
        if rule is None or self._make_grant is None:
            raise AnswerError("this cannot be allowed for longer", fix="answer once, or never")
        return self._make_grant(facts.subject, rule, reply, by)

    # --- who is asked

    async def _note(self, question: Question) -> None:
        facts = question.facts
        # The owner may see the query in a question, but what is printed may be kept, too.
        what = facts.what if self._settings.record_query else facts.what_without_query
        text = f"{what} of {facts.program or 'an unknown program'} waits for an answer"
        self._record(QUESTION, escape_text(text), facts.subject.run)
        self._prepared.announce(f"Question: {escape_text(text)}; answer with: claude-proxy ask")
        environ = dict(os.environ)
        program = desktop_notices.program_for(environ)
        if program is not None and self._last_notified + _PAUSE_S < time.monotonic():
            self._last_notified = time.monotonic()
            await desktop_notices.notify(program, facts, environ)

    async def _ask_program(self, question: Question) -> None:
        program, facts = self._settings.ask_command, question.facts
        if program is None:
            return
        if self._programs >= _MOST_PROGRAMS:
            # Whoever asks may be gone: without a bound a client could start any number of them.
            self().desk.give_up(facts.subject)
            return
        self._programs += 1
        try:
            while True:
                await self._ask_once(program, question)
                if self().desk.about(facts.subject) is not question or not question.waiters:
                    break  # else what came meanwhile, for other paths, has not been shown
        except asyncio.CancelledError:
            raise
        except ClaudeProxyError as error:
            self._program_failed(facts.subject, error)
        except Exception:
            logger.exception("asking by a program failed")
            self().desk.give_up(facts.subject)
        finally:
            self._programs -= 1

    async def _ask_once(self, program: Path, question: Question) -> None:
        newest = question.newest
        asked = facts_of_question(question.shown) | facts_of_requests(question.waiting)
        limit_s = self._settings.ask_timeout_s
        reply = await ask_program(program, asked, dict(os.environ), limit_s)
        self.answer(question.facts.subject, reply, _FROM_PROGRAM, newest)

    def _program_failed(self, subject: Subject, error: ClaudeProxyError) -> None:
        if self().desk.give_up(subject):
            logger.warning("%s", "; ".join(line.strip() for line in error.lines()))

    def _record(self, kind: str, text: str, run: str | None) -> None:
        with contextlib.suppress(AuditError):  # it shows at the next decision
            self._prepared.store.record(Notice(0, kind, text, run=run))


def rule_to_open(facts: Facts) -> Rule | None:
    """Return the rule that a lasting yes would add; None: there can be none."""
    return None if facts.asking is None else rule_of_answer(facts.subject, facts.asking, _PLACE)


def _settle(asking: Asking, subject: Subject, reply: Reply, upto: int | None) -> int:
    desk = asking.desk
    if reply.verdict is Verdict.NEVER:
        return desk.refuse(subject)
    if reply.verdict is Verdict.NO:
        return desk.answer(subject, Answer.NO, upto)
    if reply.verdict is Verdict.ONCE:
        return desk.answer(subject, Answer.YES, upto)
    return desk.answer(subject, Answer.AGAIN)  # by the grant, or by the list
