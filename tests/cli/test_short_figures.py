"""Figures in tables are short, and a time is one of the reader's clock."""

import time
from collections.abc import Iterator

import pytest

from claude_proxy.cli.short_figures import duration_of, local_clock, local_time, size_of
from tests.audit.examples import MOMENT


@pytest.fixture
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0K"),
        (1536, "1.5K"),
        (23_000_000, "22M"),
        (5 << 30, "5.0G"),
        (1 << 62, "4096P"),
    ],
)
def test_a_size_is_short(count: int, text: str) -> None:
    assert size_of(count) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0.4, "0ms"),
        (999, "999ms"),
        (1500, "1.5s"),
        (59_999, "60.0s"),
        (60_000, "1m00s"),
        (125_400, "2m05s"),
        (12_000_000, "3h20m"),
    ],
)
def test_a_duration_is_short(milliseconds: float, text: str) -> None:
    assert duration_of(milliseconds) == text


@pytest.mark.usefixtures("_utc")
def test_a_time_is_one_of_the_readers_clock() -> None:
    assert local_time(MOMENT) == "2026-01-02 03:04:05"
    assert local_clock(MOMENT) == "03:04:05"


def test_an_impossible_time_is_unknown() -> None:
    assert (local_time(1 << 80), local_clock(1 << 80)) == ("-", "-")
