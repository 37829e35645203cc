"""An age, a day or a time is read as its reader means it."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from claude_proxy.cli import main
from claude_proxy.cli.since import Since, parse_since
from tests.audit.examples import MOMENT

NOW = MOMENT
HOUR = 3600 * 1_000_000_000


@pytest.fixture
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    "text", ["", "h", "1", "5x", "-1h", "1.5h", "tomorrow", "٣h", "9999999999999w\x1b"]
)
def test_a_time_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["log", "--since", text]) == 2

    said = capsys.readouterr().err
    assert "is neither an age nor a time" in said
    assert "--since or CLAUDE_PROXY_LOG_SINCE" in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW - 90_000_000_000),
        ("30m", NOW - HOUR // 2),
        ("1h", NOW - HOUR),
        ("2d", NOW - 48 * HOUR),
        ("1w", NOW - 168 * HOUR),
        ("999999999999d", 0),
        ("2026-01-02T03:04:05.000006Z", NOW),
        ("2026-01-02T05:04:05.000006+02:00", NOW),
        ("1900-01-01T00:00Z", 0),
    ],
)
def test_a_time_is_an_age_or_a_date(text: str, moment: int) -> None:
    assert parse_since(text, NOW) == moment


@pytest.mark.usefixtures("_utc")
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("today", "2026-01-02T00:00Z"),
        ("Yesterday", "2026-01-01T00:00Z"),
    ],
)
def test_a_day_begins_at_midnight(text: str, moment: str) -> None:
    expected = datetime.fromisoformat(moment).timestamp()

    assert parse_since(text, NOW) == int(expected) * 1_000_000_000


@pytest.mark.usefixtures("_utc")
def test_a_date_without_an_offset_is_the_readers_own() -> None:
    expected = datetime(2026, 1, 31, 9, 30, tzinfo=UTC).timestamp()

    assert parse_since("2026-01-31T09:30", NOW) == int(expected) * 1_000_000_000
    assert parse_since("2026-01-31", NOW) == (int(expected) - 9 * 3600 - 1800) * 1_000_000_000


def test_a_time_that_is_one_already_stays() -> None:
    assert Since().convert(5, None, None) == 5
