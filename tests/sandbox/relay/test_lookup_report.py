"""A report of looked-up names is read completely, or refused."""

import pytest

from claude_proxy.sandbox.relay.lookup_report import parse_report


def test_a_report_has_the_names_and_the_number_of_others() -> None:
    assert parse_report(b"2\n3 a.example sh\n1 b.example two words") == (
        2,
        [("a.example", 3, "sh"), ("b.example", 1, "two words")],
    )


def test_a_report_that_is_cut_short_is_refused() -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_report(b"0\n3 a.exam")
