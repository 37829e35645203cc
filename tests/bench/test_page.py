"""The performance page is made from the rows of a run."""

from typing import Any

import pytest

from bench import catalogue, page

ROWS: list[dict[str, Any]] = [
    {"about": {"machine": "Linux 6, 2 cores", "how": "2 rounds of 1 s", "versions": "squid 5.7"}},
    {"test": "requests-1", "proxy": "claude-proxy", "round": 0, "value": 100.0, "others_cores": 0},
    {"test": "requests-1", "proxy": "squid", "round": 0, "value": 50.0},
    {"test": "requests-1", "proxy": "claude-proxy", "round": 1, "value": 300.0},
    {"test": "requests-1", "proxy": "squid", "round": 1, "value": 100.0},
    {"test": "requests-1", "proxy": "claude-proxy in before", "round": 0, "value": 25.0},
    {"test": "start-run", "proxy": "claude-proxy", "round": 0, "value": None, "errors": 1},
]


def test_a_line_has_the_median_and_the_median_of_the_ratios_within_each_round() -> None:
    lines = page.table(ROWS).splitlines()

    assert lines[0] == "| what | claude-proxy | × squid |"
    assert lines[2].endswith("| 200 requests/s | 2.50 |")


def test_what_gave_no_figure_has_no_line() -> None:
    assert len(page.table(ROWS).splitlines()) == 3


def test_other_trees_are_in_the_table_only_where_they_are_named() -> None:
    assert "before" not in page.table(ROWS)
    assert page.table(ROWS, others=["claude-proxy in before"]).splitlines()[2].endswith("| 4.00 |")


def test_the_remarks_say_where_it_was_measured() -> None:
    said = page.remarks(ROWS)

    assert said.startswith("Linux 6, 2 cores; 2 rounds of 1 s; squid 5.7; ")
    assert "other programs took 0.00 cores" in said


def test_only_what_is_between_the_marks_is_replaced() -> None:
    before = f"A.\n\n{page.BEGIN}\nold\n{page.END}\n\nB.\n"

    after = page.put(before, "new")

    assert after == f"A.\n\n{page.BEGIN}\n\nnew\n\n{page.END}\n\nB.\n"


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no lines"):
        page.put("A page.\n", "new")


def test_the_page_has_a_place_for_the_table() -> None:
    page.put(page.PAGE.read_text(), "")


def test_every_measurement_has_a_name_of_its_own() -> None:
    names = [line.test for line in page.lines()]

    assert len(names) == len(set(names)) > len(catalogue.ALL)
