"""A program that answers for the owner: whatever it does wrong, it has not answered."""

import asyncio
import json
import os
from pathlib import Path

import pytest
import uvloop

from claude_proxy.control.answers import Reply, Verdict
from claude_proxy.control.ask_command import AskCommandError, ask_program
from tests.support.waiting import until

ENVIRON = {"PATH": os.environ["PATH"]}
QUESTION = {"host": "a.test"}


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o700)
    return path


def ask(program: Path, limit_s: float = 60.0) -> Reply:
    return asyncio.run(
        ask_program(program, QUESTION, ENVIRON, limit_s), loop_factory=uvloop.new_event_loop
    )


def test_a_program_reads_the_question_and_prints_the_answer(tmp_path: Path) -> None:
    program = script(
        tmp_path / "answer",
        f'cat > {tmp_path}/question; pwd > {tmp_path}/where; echo \'{{"answer": "once"}}\'',
    )

    assert ask(program) == Reply(Verdict.ONCE)

    assert json.loads((tmp_path / "question").read_text(encoding="utf-8")) == QUESTION
    assert (tmp_path / "where").read_text(encoding="utf-8") == "/\n"


def test_a_program_need_not_read_the_question(tmp_path: Path) -> None:
    assert ask(script(tmp_path / "answer", 'echo \'{"answer": "no"}\'')) == Reply(Verdict.NO)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not one answer in JSON"),
        ("echo once", "not one answer in JSON"),
        ('echo \'{"answer": "once"} {"answer": "once"}\'', "not one answer in JSON"),
        ('echo \'{"answer": "no", "answer": "once"}\'', "not one answer in JSON"),
        ('echo \'{"answer": "once", "host": "*"}\'', "a key too many"),
        ('echo \'{"answer": "everything"}\'', "the answer is unknown"),
        ('echo \'{"answer": "once"}\'; exit 3', "exit code 3"),
        ('echo \'{"answer": "once"}\'; kill -9 $$', "signal 9"),
        ("yes", "more than 64 KiB"),
        ("head -c 70000 /dev/zero", "more than 64 KiB"),
        ("exec /nothing/there", "exit code 127"),
    ],
)
def test_anything_else_is_no_answer(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(AskCommandError, match=why):
        ask(script(tmp_path / "answer", text))


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    program = script(tmp_path / "answer", f"sleep 1000 & echo $! > {tmp_path}/child; wait")

    with pytest.raises(AskCommandError, match="no answer within"):
        ask(program, 2.0)

    child = int((tmp_path / "child").read_text(encoding="ascii"))
    until(lambda: not is_alive(child))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0]
    except OSError:
        return False
    return state != "Z"


def test_a_program_that_leaves_its_output_open_is_ended(tmp_path: Path) -> None:
    program = script(tmp_path / "answer", 'echo \'{"answer": "once"}\'; sleep 1000 &')

    with pytest.raises(AskCommandError, match="no answer within"):
        ask(program, 1.0)


@pytest.mark.parametrize("mode", [0o600, None])
def test_what_cannot_be_started_has_not_answered(tmp_path: Path, mode: int | None) -> None:
    program = tmp_path / "answer"
    if mode is not None:
        program.write_text("", encoding="utf-8")
        program.chmod(mode)

    with pytest.raises(AskCommandError, match="cannot be started"):
        ask(program)


def test_a_question_that_is_given_up_ends_the_program(tmp_path: Path) -> None:
    program = script(tmp_path / "answer", f"echo $$ > {tmp_path}/pid; exec sleep 1000")

    def has_begun() -> bool:
        pid = tmp_path / "pid"
        return pid.exists() and bool(pid.read_text(encoding="ascii"))

    async def give_up() -> None:
        asking = asyncio.ensure_future(ask_program(program, QUESTION, ENVIRON, 600.0))
        await asyncio.to_thread(until, has_begun)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(give_up(), loop_factory=uvloop.new_event_loop)

    until(lambda: not is_alive(int((tmp_path / "pid").read_text(encoding="ascii"))))
