"""Tallies are a table whose names cannot harm the terminal."""

import json

from claude_proxy.audit.tally import Grouping, Tally
from claude_proxy.cli.tally_table import json_lines_of, lines_of
from tests.audit.examples import MOMENT

REASONS = {"a": 1, "b": 3, "c": 2, "d": 1, "e": 1}


def test_the_commonest_reasons_come_first() -> None:
    heading, row = lines_of(Grouping.HOST, [Tally("a.test", 1234, 1, 0, MOMENT, REASONS)])

    assert heading.split() == ["HOST", "DENIED", "FAILED", "ALLOWED", "LAST", "REASONS"]
    assert row.split()[:4] == ["a.test", "1,234", "1", "0"]
    assert row.endswith("b, c, a and 2 more")


def test_no_name_is_shown_as_none() -> None:
    _, row = lines_of(Grouping.RUN, [Tally(None)])

    assert row.startswith("- ")


def test_reasons_by_reason_are_not_said_twice() -> None:
    heading, row = lines_of(Grouping.REASON, [Tally("no-rule", 1, 0, 0, MOMENT, {"no-rule": 1})])

    assert heading.endswith("LAST")
    assert row.count("no-rule") == 1


def test_a_name_cannot_move_the_cursor() -> None:
    tally = Tally("\x1b[2J\r\n\u202e" + "x" * 100)
    lines = [*lines_of(Grouping.HOST, [tally]), *json_lines_of(Grouping.HOST, [tally])]

    assert all(" " <= character <= "~" for line in lines for character in line)


def test_json_has_stable_names() -> None:
    (line,) = json_lines_of(Grouping.HOST, [Tally("a.test", 2, 1, 0, MOMENT, {"no-rule": 2})])

    assert json.loads(line) == {
        "host": "a.test",
        "denied": 2,
        "failed": 1,
        "allowed": 0,
        "last": "2026-01-02T03:04:05.000006Z",
        "reasons": {"no-rule": 2},
    }
