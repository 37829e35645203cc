"""Control protocol: JSON lines between a command of the owner and a running proxy. Pure.

A command sends one line, an object with `op` and arguments, and the proxy answers with one:
`{"ok": true, …}` or `{"ok": false, "what": …, "where": …, "fix": …}`. Before it, lines of a stream
may come, which have `"more": true`. Fail closed: every line is bounded, and what is not understood
is refused.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError, ConfigError, ConfigErrors

REQUEST_BYTES = 64 * 1024
ANSWER_BYTES = 1024 * 1024

OK, MORE = "ok", "more"
_OP = "op"
_WHAT, _WHERE, _FIX, _CODE, _PROBLEMS = "what", "where", "fix", "code", "problems"
OTHER_VERSION = "restart the proxy, so that it is of the same version as this command"
_SHOWN = 40  # characters of an operation that is unknown

type Answer = Mapping[str, Any]


class ControlError(ClaudeProxyError):
    """A running proxy could not be asked, or refused what was asked of it."""


class RefusedError(ControlError):
    """A running proxy refused what was asked of it, for one reason or several."""

    def __init__(self, problems: Sequence[ControlError], *, is_config: bool) -> None:
        first = problems[0]
        super().__init__(first.what, where=first.where, fix=first.fix)
        self.problems = tuple(problems)
        self.exit_code = ConfigError.exit_code if is_config else ControlError.exit_code

    def lines(self) -> list[str]:
        """Return the lines of all problems."""
        return [line for problem in self.problems for line in ClaudeProxyError.lines(problem)]


@dataclass(frozen=True, slots=True)
class Request:
    """What a command asks of a proxy."""

    op: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ProxyFacts:
    """What is known of a running proxy without asking it."""

    name: str
    kind: str  # "serve", "gateway", "run" or "container"
    pid: int  # of its main process
    started: float  # seconds since 1970
    workers: int = 1
    run: str = ""
    program: str = ""  # of the run's COMMAND
    project: str = ""  # the directory that the run works in
    listens: tuple[str, ...] = ()
    statedir: str = ""
    confdir: str = ""


def encode_request(op: str, arguments: Mapping[str, Any]) -> bytes:
    """Return a request as a line; ControlError if it is too long."""
    line = _line({_OP: op, **arguments})
    if len(line) > REQUEST_BYTES:
        raise ControlError(
            "this is more than a running proxy takes in one request",
            where=f"{len(line)} bytes, of {REQUEST_BYTES} at most",
            fix="ask for less at once",
        )
    return line


def decode_request(line: bytes) -> Request:
    """Return a request that arrived; ControlError if it is none."""
    found = _object(line, "the request is not a JSON object on one line")
    op = found.pop(_OP, None)
    if not isinstance(op, str):
        raise ControlError("the request names no operation", fix='send {"op": "status"}')
    return Request(op, found)


def encode_answer(answer: Answer) -> bytes:
    """Return an answer as a line; a refusal in place of one that is too long."""
    line = _line({OK: True, **answer})
    if len(line) <= ANSWER_BYTES:
        return line
    return encode_refusal(ControlError("the answer is too long", fix="ask for less at once"))


def encode_refusal(error: ClaudeProxyError) -> bytes:
    """Return a refusal as a line, with as many of its problems as fit."""
    problems: Sequence[ClaudeProxyError] = (error,)
    if isinstance(error, ConfigErrors):
        problems = error.problems
    while True:
        first, *more = (problem_of(one) for one in problems)
        line = _line({OK: False, **first, _CODE: error.exit_code, _PROBLEMS: more})
        if len(line) <= ANSWER_BYTES or not more:
            return line
        problems = problems[: len(problems) // 2]


def problem_of(error: ClaudeProxyError) -> dict[str, str | None]:
    """Return the parts of an error, as JSON has them."""
    return {_WHAT: error.what, _WHERE: error.where, _FIX: error.fix}


def decode_answer(line: bytes) -> dict[str, Any]:
    """Return an answer that arrived; ControlError if it is a refusal, or no answer."""
    found = _object(line, "the proxy's answer is not a JSON object on one line")
    if found.pop(OK, None) is True:
        return found
    more = found.get(_PROBLEMS)
    told = [found, *(more if isinstance(more, list) else ())]
    problems = [one for one in map(_problem_in, told) if one is not None]
    if not problems:
        raise ControlError("the proxy's answer says neither yes nor no", fix=OTHER_VERSION)
    raise RefusedError(problems, is_config=found.get(_CODE) == ConfigError.exit_code)


def _problem_in(found: object) -> ControlError | None:
    what = found.get(_WHAT) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(what, str):
        return None
    return ControlError(what, where=_text(found.get(_WHERE)), fix=_text(found.get(_FIX)))


def unknown(op: str, known: Mapping[str, object]) -> ControlError:
    """Return the refusal of an operation that a proxy does not know."""
    return ControlError(
        f"the proxy does not know the operation {op[:_SHOWN]!r}",
        where=f"it knows {', '.join(sorted(known))}",
        fix="use the claude-proxy that started it, or start it again",
    )


def encode_facts(facts: ProxyFacts) -> bytes:
    """Return the facts about a proxy as a line."""
    return _line({name: getattr(facts, name) for name in _KINDS})


def decode_facts(line: bytes) -> ProxyFacts | None:
    """Return the facts about a proxy; None if they cannot be read."""
    try:
        found = _object(line, "")
    except ControlError:
        return None
    values: dict[str, Any] = {}
    for name, kind in _KINDS.items():
        value = found.get(name)
        if kind is tuple and isinstance(value, list):
            values[name] = tuple(one for one in value if isinstance(one, str))
        elif isinstance(value, kind) and not isinstance(value, bool):
            values[name] = value
        else:
            return None
    return ProxyFacts(**values)


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "name": str,
    "kind": str,
    "pid": int,
    "started": (int, float),
    "workers": int,
    "run": str,
    "program": str,
    "project": str,
    "listens": tuple,
    "statedir": str,
    "confdir": str,
}


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _object(line: bytes, problem: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise ControlError(problem, fix=OTHER_VERSION) from None
    if not isinstance(found, dict):
        raise ControlError(problem, fix=OTHER_VERSION)
    return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
