"""A program that answers for the owner: one question in, one answer out, both JSON.

Fail closed: a program that hangs, dies, prints anything but one answer, or too much of it, has not
answered. It is run outside any sandbox, without a shell, in `/`, and ended with all its children.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from claude_proxy.control.answers import AnswerError, Reply, reply_of
from claude_proxy.errors import ClaudeProxyError

_MOST_BYTES = 64 * 1024
_END_S = 5.0  # for the kernel to end what was killed


class AskCommandError(ClaudeProxyError):
    """The program has not answered."""


async def ask_program(
    program: Path, question: Mapping[str, Any], environ: Mapping[str, str], limit_s: float
) -> Reply:
    """Return what a program answers to a question; AskCommandError if it does not answer."""
    loop = asyncio.get_running_loop()
    talk = _Talk(json.dumps(question).encode() + b"\n")
    try:
        transport, _ = await loop.subprocess_exec(
            lambda: talk,
            program,
            stderr=asyncio.subprocess.DEVNULL,  # a terminal may be the agent's
            env=dict(environ),
            cwd="/",  # not the project, in which an agent may have left modules and settings
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = (error.strerror or "").lower() if isinstance(error, OSError) else str(error)
        raise _failed(program, f"it cannot be started: {why}") from error
    try:
        async with asyncio.timeout(limit_s):
            await talk.over.wait()
        code = transport.get_returncode()
    except TimeoutError:
        raise _failed(program, f"no answer within {limit_s:g} s") from None
    finally:
        await _end(transport, talk)
    if talk.is_too_long:
        raise _failed(program, f"it prints more than {_MOST_BYTES // 1024} KiB")
    if code:
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise _failed(program, f"it failed ({ended})")
    try:
        return reply_of(_parsed(bytes(talk.output)))
    except AnswerError as error:
        raise _failed(program, error.what) from error


class _Talk(asyncio.SubprocessProtocol):
    """Gives a program its question, and keeps what it prints until it has ended."""

    def __init__(self, question: bytes) -> None:
        self._question = question
        self.output = bytearray()
        self.over = asyncio.Event()
        self.exited = asyncio.Event()
        self._has_closed = False

    @property
    def is_too_long(self) -> bool:
        """Whether it has printed more than an answer may have."""
        return len(self.output) > _MOST_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Write the question, whether or not it is read."""
        pipe = cast("asyncio.SubprocessTransport", transport).get_pipe_transport(0)
        stdin = cast("asyncio.WriteTransport", pipe)
        with contextlib.suppress(RuntimeError):  # of uvloop: it has ended without reading
            stdin.write(self._question)
            stdin.close()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keep what is printed; too much of it ends the talk."""
        if fd != 1 or self.over.is_set():
            return
        self.output += data
        if self.is_too_long:
            self.over.set()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Note the end of the output."""
        self._has_closed = self._has_closed or fd == 1
        self._end_if_done()

    def process_exited(self) -> None:
        """Note the end of the program."""
        self.exited.set()
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self.exited.is_set() and self._has_closed:
            self.over.set()


async def _end(transport: asyncio.SubprocessTransport, talk: _Talk) -> None:
    # With its children, which may keep its output open.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(transport.get_pid(), signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            await talk.exited.wait()
    transport.close()


def _parsed(output: bytes) -> Any:
    try:
        return json.loads(output, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise AnswerError("what it prints is not one answer in JSON") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")  # of which only one would count
    return found


def _failed(program: Path, why: str) -> AskCommandError:
    return AskCommandError(
        f"the program of --ask-command has not answered: {why}", where=str(program)
    )
