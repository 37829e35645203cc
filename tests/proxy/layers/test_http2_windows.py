"""The laws of receive windows: what was passed on comes back, and only what is taken grows."""

from claude_proxy.proxy.layers.http2_windows import (
    FIRST_WINDOW,
    LARGEST_WINDOW,
    ReceiveWindow,
    WindowBudget,
)


def test_what_was_passed_on_is_given_back_half_a_window_at_a_time() -> None:
    window = ReceiveWindow(WindowBudget())

    early = window.passed_on(FIRST_WINDOW // 2 - 1, at_once=False)
    later = window.passed_on(1, at_once=False)

    assert (early, later) == (0, FIRST_WINDOW // 2)


def test_a_window_that_is_taken_at_once_doubles_up_to_the_largest() -> None:
    window, budget = FIRST_WINDOW, WindowBudget()
    receive = ReceiveWindow(budget)
    before = budget.left
    for _ in range(1000):
        window = receive.passed_on(window, at_once=True)

    assert window == LARGEST_WINDOW
    assert before - budget.left == LARGEST_WINDOW - FIRST_WINDOW


def test_a_window_that_waits_does_not_grow() -> None:
    window, given = ReceiveWindow(WindowBudget()), 0
    for _ in range(100):
        given += window.passed_on(FIRST_WINDOW // 2, at_once=False)

    assert given == 100 * (FIRST_WINDOW // 2)


def test_all_windows_grow_within_one_budget_and_give_it_back() -> None:
    budget = WindowBudget(FIRST_WINDOW)
    first, second = ReceiveWindow(budget), ReceiveWindow(budget)
    grown = first.passed_on(FIRST_WINDOW, at_once=True)
    refused = second.passed_on(FIRST_WINDOW, at_once=True)
    first.close()
    again = second.passed_on(FIRST_WINDOW, at_once=True)

    assert (grown, refused, again) == (2 * FIRST_WINDOW, FIRST_WINDOW, 2 * FIRST_WINDOW)
    assert budget.left == 0
