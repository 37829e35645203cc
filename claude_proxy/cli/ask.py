"""The command `ask`: shows the requests that wait for an answer, and takes the answers.

Line by line, so that it works over ssh, in tmux and in a pipe. Law kept: an answer is said to be
applied only when the proxy has it, and one for always only when the list has it.
"""

import select
import subprocess
import sys
from collections.abc import Iterator, Sequence

import click

from claude_proxy.audit.escape import escape_text
from claude_proxy.audit.sinks import encoded
from claude_proxy.cli import running
from claude_proxy.cli.ask_texts import CHOICES, HELP, lines_of, reply_of_words
from claude_proxy.cli.question_streams import Asked, QuestionStreams, listed
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
answer serves the next try.
"""

_LOOK_S = 2.0
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
    several = [each for each in listed(_proxies(name)) if each.facts["number"] == number]
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
    click.echo(_answer(several[0], reply))
    return 0


# --- at a terminal


def _converse(name: str | None) -> None:
    streams = QuestionStreams(lambda: _running(name))
    told, done = False, set[tuple[str, int, int]]()
    while True:
        count = streams.look()
        if not told:
            told = True
            _say(f"Waiting for questions of {_counted(count)}; Ctrl+C ends this, not them.")
        waiting = [each for each in streams.open if each.key not in done]
        if not waiting:
            streams.wait(_LOOK_S)
            if _has_ended():
                return
            continue
        asked = waiting[0]
        done.add(asked.key)
        _put(asked, streams)


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


def _put(asked: Asked, streams: QuestionStreams) -> None:
    """Show a question until it is answered or skipped."""
    _say("", *_shown(asked), f"  {CHOICES}")
    while True:
        click.echo("> ", nl=False)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        if line.strip() in {"?", "help"}:
            _say(HELP)
            continue
        try:
            reply = reply_of_words(line)
            _say("Not answered." if reply is None else _answer(asked, reply))
        except ClaudeProxyError as error:
            _say(*error.lines())
            if streams.is_open(asked):
                continue
        return


def _shown(asked: Asked) -> Iterator[str]:
    return lines_of(asked.facts, asked.proxy.name, _presets_for(asked))


def _say(*lines: str) -> None:
    click.echo("\n".join(lines))


# --- one answer


def _answer(asked: Asked, reply: Reply) -> str:
    """Give an answer; return what became of it."""
    if reply.verdict is Verdict.ALWAYS:
        _allow_always(asked)
    subject = facts_of_subject(subject_of(asked.facts))
    found = asked.proxy.ask("answer", worker=asked.worker, subject=subject, **facts_of_reply(reply))
    if not reply.lasts:
        _tell_other_workers(asked, subject, reply)
    settled = found["settled"]
    what = "Allowed" if reply.allows else "Denied"
    is_late = reply.verdict is Verdict.ONCE and not settled
    late = " (nothing waits any more: it serves the next try)" if is_late else ""
    return f"{what}: {reply}{late}."


def _tell_other_workers(asked: Asked, subject: dict[str, object], reply: Reply) -> None:
    """Have the other workers of the proxy do the same; most of them were not asked."""
    for worker in range(asked.proxy.facts.workers):
        if worker != asked.worker:
            try:
                asked.proxy.ask("answer", worker=worker, subject=subject, **facts_of_reply(reply))
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


def _presets_for(asked: Asked) -> list[str]:
    """Return the presets that would cover what is asked."""
    from claude_proxy.cli.covering_presets import presets_for  # noqa: PLC0415 - reads them all

    return presets_for(asked.facts, asked.proxy.facts.confdir)
