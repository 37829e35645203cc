"""Laws of notices of denials: a summary now and then, and none when nothing was denied."""

from collections.abc import Iterator

import pytest

from claude_proxy.audit.denial_notices import DenialNotices
from claude_proxy.events import Phase
from tests.audit.examples import a_decision, a_denial, an_outcome
from tests.support.waiting import until

NEVER_S = 3600.0


class Terminal:
    """Keeps what is printed."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.broken = False

    def write(self, data: bytes) -> None:
        if self.broken:
            raise BrokenPipeError
        self.texts.append(data.decode())


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest.fixture
def notices(terminal: Terminal) -> Iterator[DenialNotices]:
    now = iter(range(100))
    sink = DenialNotices(
        terminal, ("--policy", "acme"), gather_s=NEVER_S, clock=lambda: float(next(now))
    )
    yield sink
    sink.close()


def test_denials_are_printed_together_with_their_commands(
    notices: DenialNotices, terminal: Terminal
) -> None:
    for number in range(3):
        notices(a_denial(number + 1, target="evil.test:443"))

    notices.print_summary()

    (text,) = terminal.texts
    assert text.splitlines() == [
        "Denied in the last 1 s: 3 attempts",
        "  3x https://evil.test (no-rule): claude-proxy allow evil.test --policy acme",
    ]


def test_what_is_allowed_is_not_spoken_of(notices: DenialNotices, terminal: Terminal) -> None:
    notices(a_decision())
    notices(an_outcome())

    notices.print_summary()

    assert terminal.texts == []


def test_a_denial_is_printed_once(notices: DenialNotices, terminal: Terminal) -> None:
    notices(a_denial())

    notices.print_summary()
    notices.print_summary()

    assert len(terminal.texts) == 1


def test_what_is_left_is_printed_at_the_end(terminal: Terminal) -> None:
    notices = DenialNotices(terminal, (), gather_s=NEVER_S)
    notices(a_denial())

    notices.close()

    assert len(terminal.texts) == 1


def test_a_summary_comes_by_itself(terminal: Terminal) -> None:
    notices = DenialNotices(terminal, (), gather_s=0.0, pause_s=0.0)
    notices(a_denial())

    until(lambda: terminal.texts, "the summary")

    notices.close()


def test_a_flood_of_names_is_counted_and_not_kept(
    notices: DenialNotices, terminal: Terminal
) -> None:
    for number in range(5000):
        notices(a_denial(number + 1, target=f"h{number}.test:443"))

    notices.print_summary()

    assert terminal.texts[0].startswith("Denied in the last 1 s: 5000 attempts\n  2952x other")
    assert terminal.texts[0].count("\n") == 7


def test_a_terminal_that_is_gone_is_no_error(notices: DenialNotices, terminal: Terminal) -> None:
    terminal.broken = True
    notices(a_denial())

    notices.print_summary()


def test_the_address_that_was_denied_is_named(notices: DenialNotices, terminal: Terminal) -> None:
    reason = "address-not-allowed"
    notices(a_decision(1, target="git.test:443"))
    notices(a_denial(2, phase=Phase.DIAL, target="git.test:443", reason=reason, attempt=1))
    notices(an_outcome(1, status=403, upstream="10.1.2.3:443", error=reason))

    notices.print_summary()

    assert "claude-proxy allow git.test --address 10.1.2.3 --policy acme" in terminal.texts[0]
