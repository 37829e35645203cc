"""Questions as text for a terminal, and what a person types as an answer.

A text of a client cannot leave its line, nor push others off the screen: it is escaped and cut,
and its runs of spaces are one. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from claude_proxy.audit.escape import escape_text
from claude_proxy.config.option_values import parse_duration
from claude_proxy.control.answers import (
    LONGEST_S,
    MOST_REQUESTS,
    MOST_TIMES,
    AnswerError,
    Reply,
    Verdict,
)

CHOICES = (
    "[o]nce, N times (such as 5), for a time (such as 1h), this [r]un, [a]lways, [n]o, ne[v]er, "
    "[s]kip"
)
HELP = """\
  once     what waits now; if nothing waits any more, the next try of what is shown
  5        this many requests
  1h       for this long (30s, 10m, 2d)
  run      until the run ends
  always   written to the list
  no       deny what waits now
  never    deny it as long as the run lasts
  skip     do not answer (Enter does the same)"""

_WORDS = {
    "o": Verdict.ONCE,
    "once": Verdict.ONCE,
    "y": Verdict.ONCE,
    "yes": Verdict.ONCE,
    "r": Verdict.RUN,
    "run": Verdict.RUN,
    "this run": Verdict.RUN,
    "a": Verdict.ALWAYS,
    "always": Verdict.ALWAYS,
    "n": Verdict.NO,
    "no": Verdict.NO,
    "v": Verdict.NEVER,
    "never": Verdict.NEVER,
}
_DAY_S = 86400.0
_FIX = "type once, 5, 1h, run, always, no, never or skip"
_LABEL = 12
# Characters: of what asks first, of what else waits, of what a client calls itself.
_MOST_OF_PATH, _MOST_OF_OTHERS, _MOST_OF_AGENT = 800, 160, 50


def reply_of_words(text: str) -> Reply | None:
    """Return the answer that a person typed; None: none. AnswerError if it cannot be understood."""
    words = " ".join(text.lower().split())
    if words in {"", "s", "skip"}:
        return None
    if (verdict := _WORDS.get(words)) is not None:
        return Reply(verdict)
    number = words.removesuffix(" times").removesuffix(" time").removesuffix("x")
    if number.isascii() and number.isdecimal():
        if 1 <= int(number[:9]) <= MOST_TIMES and len(number) < len("1000000000"):
            return Reply(Verdict.TIMES, times=int(number))
        raise AnswerError(f"that is no number from 1 to {MOST_TIMES}", fix=_FIX)
    seconds = _seconds_of(words.removeprefix("for "))
    if seconds is None or not 0 < seconds <= LONGEST_S:
        raise AnswerError("that is no answer", fix=_FIX)
    return Reply(Verdict.FOR, seconds=seconds)


def _seconds_of(text: str) -> float | None:
    days = text.removesuffix("d")
    if days != text and days.isascii() and days.isdecimal() and len(days) <= len("365"):
        return int(days) * _DAY_S
    try:
        return parse_duration(text)
    except ValueError:
        return None


def said_of(reply: Reply) -> str:
    """Return an answer as what has become of it: "Allowed: for 1h"."""
    if reply.verdict is Verdict.NO:
        return "Denied"
    return f"{'Allowed' if reply.allows else 'Denied'}: {reply}"


def lines_of(
    question: Mapping[str, Any], proxy: str, presets: list[str], opened: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the lines that show a question; `opened` says what an answer that lasts would add."""
    what = f"{question['method']} {_url(question)}"
    run = question["run"]
    whose = f"run {run}" if run else "a client"
    where = whose if run == proxy else f"{whose} of {proxy}"
    yield f"Question {question['number']}: {escape_text(where)} wants"
    yield f"  {_cut(escape_text(what), _MOST_OF_PATH)}"
    yield from _other_requests(question)
    called = _cut(" ".join(filter(None, question["user_agent"].split(" "))), _MOST_OF_AGENT)
    agent = f", which calls itself {called}" if called else ""
    yield _line("program", f"{question['program'] or 'unknown'}{agent}")
    yield _line("waiting", _waiting(question))
    if question["rule"] is not None:
        yield _line("asked by", f"{question['rule']} ({question['rule_source']})")
    if presets:
        yield _line("covered by", f"preset {', '.join(presets)}")
    opens = question["opens"]
    if opens is None:
        yield _line("would open", "this request alone, as no rule can say it")
    else:
        scope = f"for run {run}" if run else "for every proxy of yours"
        yield _line("would open", f"{opens}, {scope}")
    for at, line in enumerate(opened):
        yield _line("" if at else "difference", line)
    for each in question["earlier"]:
        yield _line("earlier", f"{each['answer']} to {each['what']}, {_ago(each['ago_s'])} ago")


def _other_requests(question: Mapping[str, Any]) -> Iterator[str]:
    """Yield what else waits for the same answer, each method and path once."""
    others = question.get("requests", ())[1:]
    for each in others[: MOST_REQUESTS - 1]:
        yield f"  {escape_text(each['method'])} {_cut(escape_text(each['path']), _MOST_OF_OTHERS)}"
    more = question.get("more_requests", 0) + max(0, len(others) - MOST_REQUESTS + 1)
    if more:
        yield f"  and {more} more: {'it waits' if more == 1 else 'they wait'} for this answer, too"


def _cut(text: str, most: int) -> str:
    more = len(text) - most
    return text if more <= 0 else f"{text[:most]}... ({more} more characters, see --json)"


def _url(question: Mapping[str, Any]) -> str:
    text: str = question["question"]
    return text.partition(" ")[2]


def _waiting(question: Mapping[str, Any]) -> str:
    count, tries = question["waiting"], question["tries"]
    if not count:
        return f"nothing any more ({_times(tries)} asked); an answer serves its next try"
    return f"{_times(count)}, for {question['left_s']:.0f} s more"


def _times(count: int) -> str:
    return "1 request" if count == 1 else f"{count} requests"


def _ago(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL}}{escape_text(text)}"
