"""Control operations about questions: list them as they come, and take the owner's answers.

Law kept: only who can reach the control socket answers, which no sandbox shows.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from claude_proxy.control import stored_rules
from claude_proxy.control.answers import (
    AnswerError,
    facts_of_question,
    facts_of_requests,
    reply_of,
    subject_of,
)
from claude_proxy.control.asking import Asking
from claude_proxy.control.protocol import ANSWER_BYTES, Answer
from claude_proxy.control.questions import Question
from claude_proxy.policy.questions import Subject
from claude_proxy.policy.rules import RawScheme, Rule, Tls
from claude_proxy.policy.shown_rules import shown as shown_rule
from claude_proxy.server.control_operations import Engine
from claude_proxy.server.control_server import Call, ControlServer
from claude_proxy.server.lazy_questions import LazyQuestions
from claude_proxy.server.owner_answers import rule_to_open
from claude_proxy.system.users import name_of_user

_MOST_LISTED = 100
_EARLIER = 5
_ANSWER_KEYS = ("answer", "times", "for")
_MOST_BYTES = ANSWER_BYTES * 3 // 4  # of the questions in one line; the rest is listed later


def add_to(server: ControlServer, engine: Engine, questions: LazyQuestions) -> None:
    """Answer what is asked about questions, and show them in the status."""
    options = engine.prepared.settings.list_options

    async def listed(call: Call) -> Answer:
        if call.arguments.get("watch") is not True:
            return {"questions": shown(questions, options)}
        await _watch(call, questions, options)
        return {}

    async def answered(call: Call) -> Answer:
        given = call.arguments
        subject = subject_of(given.get("subject"))
        reply = reply_of({name: given[name] for name in _ANSWER_KEYS if name in given})
        by = name_of_user(call.peer.uid)
        settled = questions.owner.answer(subject, reply, by, _upto(given.get("newest")))
        return {"settled": settled, "still_asked": questions().knows(subject)}

    server.add("questions", listed)
    server.add("answer", answered)
    engine.more_status["questions"] = lambda: shown(questions, options)


def _upto(found: Any) -> int | None:
    if found is None or (isinstance(found, int) and not isinstance(found, bool)):
        return found
    raise AnswerError("newest is no number", fix="leave it out, or give that of the question")


def allow_arguments(rule: Rule, subject: Subject, options: tuple[str, ...]) -> list[str] | None:
    """Return the words of `claude-proxy` that write a rule into the list; None: there are none."""
    if rule.tls is Tls.PASSTHROUGH and rule.scheme is not RawScheme.TCP:
        return None
    words = ["allow", f"{subject.scheme}://{subject.target}"]
    words += [word for method in sorted(rule.methods or ()) for word in ("--method", method)]
    words += [word for glob in rule.paths or () for word in ("--path", glob.text)]
    words += [word for network in rule.addresses for word in ("--address", str(network))]
    return [*words, *options]


async def _watch(call: Call, questions: LazyQuestions, options: tuple[str, ...]) -> None:
    """Send the questions now and whenever they have changed, until the peer is gone."""
    changed = asyncio.Event()
    stop: Callable[[], None] = questions().listen(changed.set)
    try:
        while True:
            changed.clear()
            await call.send({"questions": shown(questions, options)})
            await changed.wait()
    finally:
        stop()


def shown(questions: LazyQuestions, options: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the questions without an answer, as JSON has them.

    `options` name the list that `claude-proxy allow` would write.
    """
    asking = questions.made
    if asking is None:
        return []
    now = asyncio.get_running_loop().time()
    found: list[dict[str, Any]] = []
    size = 0
    for question in asking.desk.questions[:_MOST_LISTED]:
        one = _shown(asking, question, now, options)
        size += len(json.dumps(one))
        if found and size > _MOST_BYTES:
            break
        found.append(one)
    return found


def _shown(
    asking: Asking, question: Question, now: float, options: tuple[str, ...]
) -> dict[str, Any]:
    facts = question.shown
    opens = rule_to_open(facts)
    left_s = min((waiter.deadline - now for waiter in question.waiters), default=0.0)
    return {
        "number": question.number,
        **facts_of_question(facts),
        **facts_of_requests(question.waiting),
        "newest": question.newest,
        "waiting": len(question.waiters),
        "tries": question.tries,
        "asked_s": round(now - question.asked_at, 1),
        "left_s": round(max(left_s, 0.0), 1),
        "opens": None if opens is None else shown_rule(opens),
        "opens_rules": None if opens is None else json.loads(stored_rules.encode([opens])),
        "allow": None if opens is None else allow_arguments(opens, facts.subject, options),
        "earlier": [
            {"answer": each.words, "what": str(each.subject), "ago_s": round(now - each.at, 1)}
            for each in asking.earlier_like(facts.subject)
        ][:_EARLIER],
    }
