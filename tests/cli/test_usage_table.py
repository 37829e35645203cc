"""Usage is printed as a table with a total, or as JSON, and no model's name can draw on it."""

import json

from claude_proxy.audit.usage import UsageGrouping, UsageSum
from claude_proxy.cli.usage_table import json_lines_of, lines_of

SECOND = 1_000_000_000


def usage(name: str | None, requests: int = 1, tokens: int = 1) -> UsageSum:
    return UsageSum(name, SECOND, 2 * SECOND, requests, tokens, tokens, tokens, tokens)


def test_the_last_line_is_the_total_of_each_column() -> None:
    heading, *_, total = lines_of(UsageGrouping.RUN, [usage("a", 2, 1000), usage("b", 3, 5)])

    assert heading.split()[:2] == ["RUN", "REQUESTS"]
    assert total.split() == ["total", "5", *["1,005"] * 4, "4,020"]


def test_every_number_is_below_its_heading() -> None:
    lines = list(lines_of(UsageGrouping.DAY, [usage("2026-01-01", 10**6, 10**9), usage(None)]))

    assert len({len(line) for line in lines}) == 1
    assert lines[2].startswith("- ")


def test_a_models_name_cannot_send_control_codes() -> None:
    text = "\n".join(lines_of(UsageGrouping.MODEL, [usage("\x1b[31mred\n")]))

    assert "\x1b" not in text
    assert len(text.splitlines()) == 3


def test_json_has_one_object_for_each_group() -> None:
    lines = [json.loads(line) for line in json_lines_of(UsageGrouping.RUN, [usage("a", 2, 3)])]

    assert lines == [
        {
            "run": "a",
            "requests": 2,
            **dict.fromkeys(("tokens_in", "tokens_out", "cache_written", "cache_read"), 3),
            "tokens": 12,
            "first": "1970-01-01T00:00:01.000000Z",
            "last": "1970-01-01T00:00:02.000000Z",
        }
    ]
