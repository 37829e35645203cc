"""What was seen is counted over all runs, in the order of the first."""

from claude_proxy.audit.seen import seen_in

ROW = ("request", "https", "a.example:443", "GET", "/x", 1, "rule-matched", None, "203.0.113.5:443")


def test_equal_attempts_of_several_runs_are_one() -> None:
    rows = [(1, 7, 2, "one", *ROW), (2, 7, 3, None, *ROW)]

    (found,) = seen_in(rows)

    assert (found.subject, found.times) == ("GET https://a.example/x", 5)
    assert found.allowed is True


def test_a_denial_after_an_allowed_head_is_a_denial() -> None:
    row = (*ROW[:7], "leak-guard", None)
    denied = (*ROW[:7], "foreign-credential", None)

    found = list(seen_in([(1, 7, 1, "one", *row), (2, 7, 1, "one", *denied)]))

    assert [(each.allowed, each.reason) for each in found] == [
        (True, "rule-matched"),
        (False, "foreign-credential"),
    ]
