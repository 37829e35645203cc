"""Findings of checks: the worst one decides the exit code."""

import pytest

from claude_proxy.doctor.finding import EXIT_CODES, Finding, Level, error, exit_code, ok, warning


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([], 0),
        ([ok("a", "x")], 0),
        ([ok("a", "x"), Finding("b", Level.NOTE, "y", "z")], 0),
        ([ok("a", "x"), warning("b", "y")], 1),
        ([warning("b", "y"), error("c", "z"), ok("a", "x")], 2),
    ],
)
def test_the_worst_finding_decides_the_exit_code(findings: list[Finding], code: int) -> None:
    assert exit_code(findings) == code


def test_every_level_has_an_exit_code() -> None:
    assert set(EXIT_CODES) == set(Level)


def test_a_finding_that_is_ok_needs_no_fix() -> None:
    assert ok("a", "x") == Finding("a", Level.OK, "x", fix=None)
