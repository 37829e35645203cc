"""What was seen is counted over all runs, in the order of the first."""

from claude_proxy.audit.seen import seen_in

ROW = (
    "request",
    "https",
    "a.example:443",
    "GET",
    "/x",
    1,
    "rule-matched",
    None,
    "203.0.113.5:443",
    0,
)


def test_equal_attempts_of_several_runs_are_one() -> None:
    rows = [(1, 7, 2, "one", *ROW), (2, 7, 3, None, *ROW)]

    (found,) = seen_in(rows)

    assert (found.subject, found.times) == ("GET https://a.example/x", 5)
    assert found.allowed is True


def test_a_denial_after_an_allowed_head_is_a_denial() -> None:
    row = (*ROW[:7], "leak-guard", None, 0)
    denied = (*ROW[:7], "foreign-credential", None, 0)

    found = list(seen_in([(1, 7, 1, "one", *row), (2, 7, 1, "one", *denied)]))

    assert [(each.allowed, each.reason) for each in found] == [
        (True, "rule-matched"),
        (False, "foreign-credential"),
    ]


def test_what_a_grant_allowed_is_not_counted_with_what_the_list_allowed() -> None:
    found = list(seen_in([(1, 7, 1, "one", *ROW), (2, 7, 1, "one", *ROW[:-1], 1)]))

    assert [(each.granted, each.listed) for each in found] == [(False, True), (True, False)]


def test_what_was_denied_was_not_granted() -> None:
    (found,) = seen_in([(1, 7, 1, "one", *ROW[:7], "foreign-credential", None, 1)])

    assert (found.allowed, found.granted, found.listed) == (False, False, False)


def test_what_the_owner_refused_is_left_out() -> None:
    refused = (*ROW[:5], 0, "owner-refused", *ROW[7:])

    assert list(seen_in([(1, 7, 1, "one", *refused)])) == []
