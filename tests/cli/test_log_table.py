"""A row says what became of an attempt, and fits the terminal."""

from typing import Any

import pytest

from claude_proxy.audit.queries import LoggedAttempt
from claude_proxy.cli.log_table import Look, fold_repeats
from claude_proxy.events import PASSTHROUGH_SCHEME, TCP_SCHEME, Notice, Phase
from tests.audit.examples import a_decision, a_denial, an_outcome

LONG = a_denial(target="a" * 60 + ".example.com:443", path="/" + "b" * 300, reason="c" * 40)
WIDTHS = range(40, 300, 7)


def cells(attempt: LoggedAttempt, look: Look | None = None) -> list[str]:
    return (look or Look()).entry(attempt).split()[2:]


def test_a_passthrough_tunnel_says_so() -> None:
    tunnel = a_decision(phase=Phase.CONNECT, scheme=PASSTHROUGH_SCHEME, method="CONNECT", path="")

    assert " ".join(cells(LoggedAttempt(tunnel, None))) == (
        "Allowed CONNECT example.com:443 - - - - passthrough allowlist.yaml:12"
    )


def test_a_tunnel_of_any_protocol_says_so() -> None:
    tunnel = a_decision(phase=Phase.CONNECT, scheme=TCP_SCHEME, method="CONNECT", path="")

    assert "tcp allowlist.yaml:12" in " ".join(cells(LoggedAttempt(tunnel, None)))


def test_a_notice_without_a_possible_time_is_shown() -> None:
    assert Look().entry(Notice(1 << 80, "limit", "text")) == "-  Notice   limit: text"


@pytest.mark.parametrize(
    ("error", "state"),
    [
        ("dns-failed", "Failed"),
        ("upstream-cut-short", "Failed"),
        ("address-not-allowed", "Denied"),
    ],
)
def test_what_was_allowed_and_came_to_nothing_says_why(error: str, state: str) -> None:
    row = cells(LoggedAttempt(a_decision(), an_outcome(error=error)))

    assert row[0] == state
    assert row[7] == error


def test_a_repeated_denial_says_how_often() -> None:
    denial = a_denial(count=1234, last=a_denial().id + 30_000_000_000)

    row = Look().entry(LoggedAttempt(denial, None))

    assert "no-rule ×1,234" in row
    assert "1,234 times until " in row


def test_equal_denials_in_a_row_are_one_with_a_count() -> None:
    def denied(seconds: int, **fields: Any) -> LoggedAttempt:
        return LoggedAttempt(
            a_denial(at=1_700_000_000_000_000_000 + seconds * 10**9, **fields), None
        )

    entries = [
        *(denied(second) for second in range(3)),
        denied(4, count=7),
        denied(5, path="/other"),
        denied(6),
        denied(67),
        LoggedAttempt(a_decision(), None),
        LoggedAttempt(a_decision(), None),
    ]

    folded = fold_repeats(entries)

    counts = [entry.decision.count for entry in folded if isinstance(entry, LoggedAttempt)]
    assert counts == [10, 1, 1, 1, 1, 1]


def test_a_run_has_a_column_where_it_matters() -> None:
    attempt = LoggedAttempt(a_denial(run="blue"), None)

    assert "RUN" not in Look().heading()
    assert "RUN" in Look(run=True).heading()
    assert "blue" not in cells(attempt)
    assert "blue" in cells(attempt, Look(run=True))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("run", [True, False])
def test_a_row_fits_the_terminal(width: int, *, run: bool) -> None:
    look = Look(width, run=run)

    for line in (look.heading(), look.entry(LoggedAttempt(LONG, an_outcome()))):
        assert len(line) <= width


def test_a_narrow_terminal_keeps_what_matters_most() -> None:
    row = Look(80).entry(LoggedAttempt(a_denial(), an_outcome(status=403)))

    assert "Denied" in row
    assert "https://example.com/path" in row
    assert "no-rule" in row


def test_a_wide_terminal_shows_everything() -> None:
    row = Look(250, run=True).entry(LoggedAttempt(a_decision(run="blue"), an_outcome()))

    assert row.split()[2:] == [
        *("Allowed", "GET", "https://example.com/path", "200", "10", "2.0K", "12ms"),
        *("rule-matched", "blue", "allowlist.yaml:12"),
    ]


def test_the_state_is_coloured_only_where_it_is_asked_for() -> None:
    attempt = LoggedAttempt(a_denial(), None)

    assert "\x1b[31mDenied" in Look(120, colour=True).entry(attempt)
    assert "\x1b" not in Look(120).entry(attempt)
    assert "\x1b" not in Look(120, colour=True).heading()


class Terminal:
    """Standard output that is a terminal, or not."""

    def __init__(self, *, is_terminal: bool) -> None:
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize(
    ("environ", "colour"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_gets_colour_unless_it_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, Any], *, colour: bool
) -> None:
    monkeypatch.setattr("sys.stdout", Terminal(is_terminal=True))
    monkeypatch.setenv("COLUMNS", "101")

    assert Look.of_output(environ, run=False) == Look(101, colour=colour)


def test_a_file_gets_whole_rows_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Terminal(is_terminal=False))

    assert Look.of_output({}, run=True) == Look(run=True)
