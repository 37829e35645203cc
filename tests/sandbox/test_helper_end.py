"""The end of a helper process is told with its exit code or signal, and with a log that says it."""

import signal
from pathlib import Path

import pytest

from claude_proxy.sandbox import helper_end


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended (exit code 0)"),
        (70, "ended (exit code 70)"),
        (-9, "was killed by signal 9 (SIGKILL)"),
        (-11, "was killed by signal 11 (SIGSEGV)"),
        (-(signal.SIGRTMIN + 3), f"was killed by signal {signal.SIGRTMIN + 3}"),
        (None, "neither answered nor ended"),
    ],
)
def test_an_end_is_told_by_its_exit_code_or_signal(code: int | None, words: str) -> None:
    assert helper_end.words_of(code) == words


@pytest.mark.parametrize("content", [None, ""])
@pytest.mark.parametrize("code", [3, -9, None])
def test_a_log_that_says_nothing_is_not_named(
    tmp_path: Path, content: str | None, code: int | None
) -> None:
    log = tmp_path / "tried.log"
    if content is not None:
        log.write_text(content, encoding="utf-8")

    error = helper_end.error("it ended", code=code, log=log)

    assert "log" not in " ".join(error.lines())
    assert error.fix is not None
    assert helper_end.place_of(log, "process 7") == "process 7"


def test_a_log_that_says_something_is_the_place(tmp_path: Path) -> None:
    log = tmp_path / "tried.log"
    log.write_text("a line\n", encoding="utf-8")

    error = helper_end.error("it ended", code=3, log=log)

    assert (error.where, helper_end.place_of(log)) == (str(log), str(log))
    assert error.fix is not None
    assert "read the log" in error.fix


def test_a_signal_is_no_bug_and_an_exit_may_be_one(tmp_path: Path) -> None:
    fixes = [
        helper_end.error("it ended", code=code, log=tmp_path / "none", instead="report it").fix
        for code in (-9, 3)
    ]

    assert fixes[0] is not None
    assert "dmesg" in fixes[0]
    assert fixes[1] == "report it"
