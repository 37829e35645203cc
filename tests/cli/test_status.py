"""`claude-proxy status` shows what runs, and what each proxy allows."""

import json
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.cli import main, status
from claude_proxy.control import protocol, used_up
from claude_proxy.sandbox.run_directory import RunDirectory
from tests.support.control import Running, facts, says

GRANT: dict[str, Any] = {
    "number": 3,
    "kind": "allow",
    "allows": ["a.example"],
    "run": "web",
    "project": None,
    "seconds_left": 90,
    "uses_left": 1,
    "reason": "docs",
}
OPENED = {"kind": "open", "allows": ["every public host"], "run": None, "uses_left": None}


def told(**changes: Any) -> dict[str, Any]:
    policy = {"name": "own", "file": None, "version": "abc", "rules": 2, "rejected": False}
    return {
        "worker": 0,
        "process": 7,
        "time": 1.0,
        "policy": policy | changes.pop("policy", {}),
        "listeners": [],
        "connections": 1,
        "tunnels": [],
        "tunnels_not_listed": 0,
        "memory": 2048,
    } | changes


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main.main(["status", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_proxy_is_shown_with_its_policy_and_its_version(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.starts(facts("web", project="/code"), says(**told()))

    code, out, _ = shown(capsys)

    assert code == 0
    assert out.startswith("web  run, process 7, for ")
    assert "sh in /code" in out
    assert "own, version abc, 2 rules" in out
    assert "1 connection, 0 tunnels" in out


def test_open_tunnels_are_shown_with_their_run(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    tunnels = [{"run": "web", "target": "a.example:443", "count": 3}]
    machine.starts(facts("proxy-1"), says(**told(tunnels=tunnels)))

    _, out, _ = shown(capsys)

    assert "3 tunnels" in out
    assert "a.example:443 x 3 (run web)" in out


def test_what_workers_say_is_added_up(machine: Running, capsys: pytest.CaptureFixture[str]) -> None:
    tunnel = {"run": None, "target": "a.example:443", "count": 2}
    answer = says(**told(tunnels=[tunnel]))
    machine.starts(facts("proxy-1", workers=2), answer, answer)

    _, out, _ = shown(capsys, "--json")
    found = json.loads(out)

    assert (found["connections"], found["memory"]) == (2, 4096)
    assert found["tunnels"] == [tunnel | {"count": 4}]
    assert found["versions"] == ["abc"]


def test_workers_that_differ_are_no_secret(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    other = told(policy={"version": "def"})
    machine.starts(facts("proxy-1", workers=2), says(**told()), says(**other))

    _, out, _ = shown(capsys)

    assert "the workers differ just now: abc, def" in out


def test_a_rejected_file_is_no_secret(machine: Running, capsys: pytest.CaptureFixture[str]) -> None:
    machine.starts(facts("proxy-1"), says(**told(policy={"rejected": True})))

    _, out, _ = shown(capsys)

    assert "REJECTED; why: claude-proxy reload proxy-1" in out


def test_one_that_does_not_answer_is_named_beside_the_others(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.starts(facts("api"), lambda _: b"hello\n")
    machine.starts(facts("web"), says(**told()))

    code, out, _ = shown(capsys)

    assert code == 1
    assert "NO ANSWER" in out
    assert "own, version abc" in out


def test_a_proxy_of_another_version_is_no_fault_of_the_command(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.starts(facts("web"), says(policy="own"))

    code, out, _ = shown(capsys)

    assert code == 1
    assert "another version of claude-proxy" in out


def test_a_refusal_is_part_of_the_json(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = protocol.encode_refusal(protocol.ControlError("no", fix="ask again"))
    machine.starts(facts("web"), lambda _: refusal)

    code, out, _ = shown(capsys, "--json")

    assert code == 1
    assert json.loads(out)["error"] == {"what": "no", "where": None, "fix": "ask again"}


def test_a_run_without_a_proxy_is_shown_too(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunDirectory.make(["sleep"], name="lone", above=machine.base, project=Path("/there")):
        _, out, _ = shown(capsys)
        _, rows, _ = shown(capsys, "--json")
        code, one, _ = shown(capsys, "lone")

    assert "lone  run, without a proxy" in out
    assert "sleep in /there" in out
    assert json.loads(rows)["proxy"] is False
    assert (code, one) == (0, out)


def test_one_of_several_is_shown_by_name(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.starts(facts("api"), says(**told()))
    machine.starts(facts("web"), says(**told()))

    _, out, _ = shown(capsys, "web")

    assert out.startswith("web  ")
    assert "api" not in out


def test_an_unknown_name_is_an_error(machine: Running, capsys: pytest.CaptureFixture[str]) -> None:
    machine.starts(facts("web"), says(**told()))

    code, _, err = shown(capsys, "other")

    assert code == 1
    assert 'no proxy called "other" runs' in err


def test_nothing_that_runs_is_no_error(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    assert machine.environ

    code, out, err = shown(capsys)

    assert (code, out) == (0, "")
    assert "nothing runs" in err


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"questions": ["one"]}, "1 question waits: claude-proxy ask"),
        ({"questions": ["one", "two"]}, "2 questions wait: claude-proxy ask"),
        ({"upstream": "https://api.example"}, "gateway    to https://api.example"),
        ({"grants": [GRANT]}, "3  a.example for run web, 1m30s left, 1 use left (docs)"),
        (
            {
                used_up.KEY: [
                    GRANT | {"uses_left": 0, "open_tunnels": 1, "open_requests": 0},
                ]
            },
            "3  a.example for run web, 1m30s left, used up; 1 tunnel open (docs)",
        ),
        ({"grants": [GRANT | OPENED]}, "OPEN: 3  every public host, 1m30s left (docs)"),
    ],
)
def test_what_other_parts_add_is_shown(
    machine: Running, capsys: pytest.CaptureFixture[str], more: dict[str, Any], line: str
) -> None:
    machine.starts(facts("web"), says(**told(**more)))

    _, out, _ = shown(capsys)

    assert line in out


def test_what_a_proxy_says_cannot_control_the_terminal(
    machine: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    tunnels = [{"run": "\x1b[31m", "target": "a\x1b]0;x\x07:443", "count": 1}]
    machine.starts(facts("web", project="/a\x1b[2J"), says(**told(tunnels=tunnels)))

    _, out, _ = shown(capsys)

    assert "\x1b" not in out


def test_a_long_time_is_days() -> None:
    assert [status._ago(seconds) for seconds in (3, 90, 200_000)] == ["3.0s", "1m30s", "2d"]
