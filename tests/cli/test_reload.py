"""`claude-proxy reload` says "applied" only when every worker judges by the new policy."""

import json
from typing import Any

import pytest

from claude_proxy.cli import main
from claude_proxy.control import protocol
from claude_proxy.errors import ConfigError, ConfigErrors
from tests.support.control import Answers, Running, facts, says

QUIET: dict[str, Any] = {"change": "no rule changed", "changed": False, "complaint": None}
CHANGED: dict[str, Any] = {"change": "+ allow a.example", "changed": True, "complaint": None}


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main.main(["reload", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def in_turn(*answers: dict[str, Any]) -> Answers:
    """Return what gives another answer each time, and then the last one."""
    rest = list(answers)

    def answer(_: dict[str, object]) -> bytes:
        return protocol.encode_answer(rest.pop(0) if len(rest) > 1 else rest[0])

    return answer


def test_what_changed_is_said(machine: Running, capsys: pytest.CaptureFixture[str]) -> None:
    machine.starts(facts("web"), says(**CHANGED, version="b"))

    code, out, _ = told(capsys)

    assert code == 0
    assert out == "web: applied: + allow a.example (version b)\n"


def test_a_worker_that_had_noticed_by_itself_hides_no_change(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = says(**QUIET, version="b"), says(**CHANGED, version="b")
    machine.starts(facts("web", workers=2), *answers)

    _, out, _ = told(capsys)

    assert "+ allow a.example" in out


def test_workers_that_differ_are_asked_again(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = in_turn({**QUIET, "version": "a"}, {**CHANGED, "version": "b"})
    machine.starts(facts("web", workers=2), slow, says(**CHANGED, version="b"))

    code, out, _ = told(capsys)

    assert (code, out) == (0, "web: applied: + allow a.example (version b)\n")


def test_workers_that_keep_differing_are_an_error(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = says(**QUIET, version="a"), says(**QUIET, version="b")
    machine.starts(facts("web", workers=2), *answers)

    code, out, err = told(capsys)

    assert (code, out) == (1, "")
    assert "judge by different policies" in err


def test_a_rejected_list_is_said_with_every_problem_and_its_place(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = ConfigErrors(
        [ConfigError("bad host", where="a.yaml:1"), ConfigError("bad key", where="a.yaml:2")]
    )
    machine.starts(facts("web"), lambda _: protocol.encode_refusal(problems))

    code, out, err = told(capsys)

    assert (code, out) == (2, "")
    assert "web: NOT applied; the last valid policy stays in force" in err
    assert "a.yaml:1" in err
    assert "a.yaml:2" in err


def test_one_worker_that_rejects_is_enough(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = protocol.encode_refusal(ConfigError("bad host"))
    machine.starts(facts("web", workers=2), says(**CHANGED, version="b"), lambda _: refusal)

    code, out, _ = told(capsys)

    assert (code, out) == (2, "")


def test_a_projects_file_that_was_rejected_is_said(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    complaint = {"what": "bad key", "where": ".claude-proxy.yaml:1", "fix": None}
    machine.starts(facts("web"), says(**QUIET | {"complaint": complaint}, version="b"))

    code, _, err = told(capsys)

    assert code == 2
    assert "restrictions file was NOT applied" in err
    assert ".claude-proxy.yaml:1" in err


def test_all_are_reloaded_though_one_rejects(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = protocol.encode_refusal(ConfigError("bad host"))
    machine.starts(facts("api"), lambda _: refusal)
    machine.starts(facts("web"), says(**QUIET, version="b"))

    code, out, _ = told(capsys, "--all", "--json")

    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 2
    assert [(row["name"], row["applied"]) for row in rows] == [("api", False), ("web", True)]
    assert rows[0]["error"]["what"] == "bad host"


@pytest.mark.usefixtures("machine")
def test_nothing_to_reload_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(capsys)

    assert code == 1
    assert "no proxy of this user runs" in err
