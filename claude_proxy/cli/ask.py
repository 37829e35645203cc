"""The command `ask`: shows the requests that wait for an answer, and takes the answers.

Line by line, so that it works over ssh, in tmux and in a pipe. Law kept: an answer is said to be
applied only when the proxy has it, and one for always only when the list has it.
"""

import math
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, auto

import click

from claude_proxy.audit.escape import escape_text
from claude_proxy.audit.sinks import encoded
from claude_proxy.cli import running
from claude_proxy.cli.ask_texts import CHOICES, HELP, lines_of, reply_of_words, said_of
from claude_proxy.cli.question_streams import (
    Asked,
    QuestionStreams,
    listed,
    most_urgent,
    with_others,
)
from claude_proxy.control.answers import (
    AnswerError,
    Reply,
    Verdict,
    facts_of_reply,
    facts_of_subject,
    subject_of,
)
from claude_proxy.control.client import Proxy
from claude_proxy.control.protocol import ControlError
from claude_proxy.errors import ClaudeProxyError

EPILOG = """\b
Examples:
  claude-proxy ask                          answer, of all proxies, as they ask
  claude-proxy ask web                      those of one run, container or proxy
  claude-proxy ask --list                   show what waits
  claude-proxy ask web --answer 3 once      answer question 3
  claude-proxy ask web --answer 3 1h

A proxy asks with --ask, for entries with `ask: true`, or by a policy with `default: ask`. A request
waits for --ask-timeout; then it is denied, and the question stays open for ten minutes: a late
answer serves the next try of the same request.
"""

_LOOK_S = 2.0
_REACTION_S = 1.0  # until a person has seen that the question is another one
_RELOAD_S = 15.0
_ALLOW_S = 60.0


@click.command(name="ask", epilog=EPILOG)
@running.name_argument
@click.option("--list", "only_list", is_flag=True, help="Show what waits, and end.")
@click.option(
    "--answer",
    "given",
    type=(int, str),
    metavar="NUMBER ANSWER",
    help="Answer one question, and end: once, 5 (times), 1h, run, always, no or never.",
)
@running.json_option
def command(
    *, name: str | None, only_list: bool, given: tuple[int, str] | None, as_json: bool
) -> int:
    """Answer what running proxies ask: let a request through, or not."""
    if given is not None:
        return _answer_one(name, *given)
    if only_list or as_json:
        return _list(name, as_json=as_json)
    try:
        _converse(name)
    except EOFError:
        click.echo()
    return 0


def _proxies(name: str | None) -> list[Proxy]:
    known = running.proxies()
    return known if name is None else [running.meant(name, known)]


def _list(name: str | None, *, as_json: bool) -> int:
    for asked in listed(_proxies(name)):
        if as_json:
            click.echo(encoded({"proxy": asked.proxy.name, "worker": asked.worker, **asked.facts}))
        else:
            click.echo("\n".join(_shown(asked)))
    return 0


def _answer_one(name: str | None, number: int, words: str) -> int:
    reply = reply_of_words(words)
    if reply is None:
        raise AnswerError("no answer was given", where="--answer", fix="write `--answer 3 once`")
    open_now = listed(_proxies(name))
    several = [each for each in open_now if each.facts["number"] == number]
    if not several:
        raise ControlError(
            f"no question {number} is open",
            where="--answer",
            fix="see `claude-proxy ask --list`",
        )
    if len(several) > 1:
        raise ControlError(
            f"several proxies ask a question {number}",
            where=", ".join(sorted({each.proxy.name for each in several})),
            fix="name one of them",
        )
    click.echo(_answer(with_others(several[0], open_now), reply))
    return 0


# --- at a terminal


# Up to which of its requests a question was shown, or that it is to be shown no more.
type _Shown = dict[tuple[str, int, int], float]


def _to_put(known: Iterable[Asked], done: _Shown) -> list[Asked]:
    return [each for each in known if each.newest > done.get(each.key, -1.0)]


def _converse(name: str | None) -> None:
    streams = QuestionStreams(lambda: _running(name))
    told, end = False, _End.ANSWERED
    done: _Shown = {}
    while True:
        count = streams.look()
        if not told:
            told = True
            _say(f"Waiting for questions of {_counted(count)}; Ctrl+C ends this, not them.")
        known = streams.open
        waiting = _to_put(known, done)
        if not waiting:
            streams.wait(_LOOK_S)
            if _has_ended():
                return
            continue
        asked = with_others(most_urgent(waiting), known)
        end = _put(asked, streams, done, is_surprise=end is _End.CHANGED)
        if end is not _End.CHANGED:
            for each in (asked, *asked.others):
                done[each.key] = each.newest if end is _End.ANSWERED else math.inf


def _has_ended() -> bool:
    """Tell whether nobody will answer: standard input is no terminal, and at its end."""
    if sys.stdin.isatty() or not select.select([sys.stdin], [], [], 0)[0]:
        return False
    return not sys.stdin.buffer.peek(1)  # type: ignore[union-attr]


def _running(name: str | None) -> list[Proxy]:
    try:
        return _proxies(name)
    except ControlError:
        return []  # it may start later


def _counted(count: int) -> str:
    return {0: "proxies that will start", 1: "1 proxy"}.get(count, f"{count} proxies")


class _End(Enum):
    """Why a question is put no longer."""

    ANSWERED = auto()
    SKIPPED = auto()
    CHANGED = auto()  # it has an answer, or nothing waits for one any more


def _put(asked: Asked, streams: QuestionStreams, done: _Shown, *, is_surprise: bool) -> _End:
    """Show a question until it is answered or skipped, or has changed.

    What is typed about the question before must not answer this one, if it comes as a surprise.
    """
    _say("", *_shown(asked), f"  {CHOICES}")
    if is_surprise:
        time.sleep(_REACTION_S)
        termios.tcflush(sys.stdin, termios.TCIFLUSH)
    while True:
        line = _typed(asked, streams, done)
        if line is None:
            return _End.CHANGED
        if line.strip() in {"?", "help"}:
            _say(HELP)
            continue
        try:
            reply = reply_of_words(line)
            _say("Not answered." if reply is None else _answer(asked, reply))
        except ClaudeProxyError as error:
            _say(*error.lines())
            if not streams.is_open(asked):
                return _End.SKIPPED
        else:
            return _End.SKIPPED if reply is None else _End.ANSWERED


def _typed(asked: Asked, streams: QuestionStreams, done: _Shown) -> str | None:
    """Return the line that is typed at the prompt; None: meanwhile another question is to be put.

    EOFError if there is no more to come.
    """
    click.echo("> ", nl=False)
    while sys.stdin.isatty() and not select.select([sys.stdin], [], [], _LOOK_S)[0]:
        streams.look()
        if not streams.is_as_shown(asked):
            _say("", "Nothing waits for this answer any more.")
            return None
        if not asked.is_live and any(each.is_live for each in _to_put(streams.open, done)):
            _say("", "Another question is more urgent:")
            return None
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _shown(asked: Asked) -> Iterator[str]:
    opened = _opened_by(asked)
    return lines_of(asked.facts, asked.proxy.name, _presets_for(asked), opened)


def _say(*lines: str) -> None:
    click.echo("\n".join(lines))


# --- one answer


def _answer(asked: Asked, reply: Reply) -> str:
    """Give an answer; return what became of it."""
    if reply.verdict is Verdict.ALWAYS:
        _allow_always(asked)
    subject = facts_of_subject(subject_of(asked.facts))
    found = asked.proxy.ask(
        "answer",
        worker=asked.worker,
        subject=subject,
        newest=asked.newest or None,
        **facts_of_reply(reply),
    )
    if not reply.lasts:
        _tell_other_workers(asked, subject, reply)
    settled = found["settled"]
    if found.get("still_asked") and not reply.lasts and reply.verdict is not Verdict.NEVER:
        return _partly(reply, settled)
    is_late = reply.verdict is Verdict.ONCE and not settled
    late = " (nothing waits any more: it serves the next try of this request)" if is_late else ""
    return f"{said_of(reply)}{late}."


def _partly(reply: Reply, settled: int) -> str:
    """Return what an answer did while requests for other paths have come that were not shown."""
    if not settled:
        return "Nothing was answered: what was shown waits no longer, and others ask the same now."
    return f"{said_of(reply)}; meanwhile others ask the same."


def _tell_other_workers(asked: Asked, subject: dict[str, object], reply: Reply) -> None:
    """Have the other workers of the proxy do the same; most of them were not asked."""
    shown = {each.worker: each.newest for each in asked.others}
    for worker in range(asked.proxy.facts.workers):
        if worker != asked.worker:
            given = {"newest": shown.get(worker, 0), **facts_of_reply(reply)}
            try:
                asked.proxy.ask("answer", worker=worker, subject=subject, **given)
            except ControlError:
                continue  # nothing asks there


def _allow_always(asked: Asked) -> None:
    """Write the entry into the list, and wait until the proxy has it."""
    arguments: Sequence[str] | None = asked.facts.get("allow")
    if arguments is None:
        raise AnswerError(
            "an entry for always cannot be written by this",
            fix="edit the list, or answer for a time",
        )
    done = subprocess.run(  # noqa: S603 - this program, with words that the proxy has checked
        [sys.executable, "-m", "claude_proxy", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_ALLOW_S,
        check=False,
    )
    text = "\n".join(escape_text(line) for line in (done.stdout + done.stderr).splitlines())
    if done.returncode:
        raise AnswerError(f"the entry was not written: {text}", fix="answer for a time")
    _say(text)
    asked.proxy.ask_workers("reload", patience_s=_RELOAD_S)


def _opened_by(asked: Asked) -> list[str]:
    """Return what an answer that lasts would open."""
    from claude_proxy.cli.grant_openings import lines_of_question  # noqa: PLC0415 - compares

    return lines_of_question(asked.proxy, asked.facts)


def _presets_for(asked: Asked) -> list[str]:
    """Return the presets that would cover what is asked."""
    from claude_proxy.cli.covering_presets import presets_for  # noqa: PLC0415 - reads them all

    return presets_for(asked.facts, asked.proxy.facts.confdir)
