"""Old rows go a slice at a time, those of the greediest first, and never because of a clock."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.audit import repeats
from claude_proxy.audit import retention as retention_module
from claude_proxy.audit.clock import ClockWatch
from claude_proxy.audit.database import database_in
from claude_proxy.audit.store import AuditStore
from claude_proxy.events import Notice
from tests.audit.examples import a_decision, a_denial, an_outcome, rows
from tests.support.waiting import until

FOREVER = 1_000_000  # days
DAY = 86_400 * 1_000_000_000

type MakeStore = Callable[..., AuditStore]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return database_in(tmp_path / "state")


@pytest.fixture
def make_store(path: Path) -> Iterator[MakeStore]:
    made: list[AuditStore] = []

    def make(**settings: Any) -> AuditStore:
        made.append(AuditStore(path, **{"retention_days": FOREVER} | settings))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture(autouse=True)
def _one_row_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "WINDOW_S", -1)


def kept(path: Path) -> list[Any]:
    return rows(path, "SELECT id FROM decision")


def flush(store: AuditStore) -> None:
    """Flush, and wait for the thread that adds up shares: a flood here is faster than the disk."""
    store.flush()
    planner = store._retention._planner
    until(lambda: planner._thread is None or not planner._thread.is_alive())
    store.flush()


# By age


def test_what_is_too_old_goes(make_store: MakeStore, path: Path) -> None:
    store = make_store(retention_days=1)
    now = time.time_ns()
    for moment in (now - 2 * DAY, now - DAY - 1, now - DAY // 2, now):
        store.record(Notice(moment, "limit", "text"))
        store.record(a_decision(moment))
        store.record(an_outcome(moment))

    store.flush()

    assert kept(path) == [now - DAY // 2, now]
    assert rows(path, "SELECT decision FROM outcome") == [now - DAY // 2, now]
    assert rows(path, "SELECT id FROM notice") == [now - DAY // 2, now]


def test_old_decisions_go_a_slice_at_a_time(make_store: MakeStore, path: Path) -> None:
    store = make_store(retention_days=1)
    store._trim = lambda: None  # type: ignore[method-assign] # to have many of them
    for number in range(500):
        store.record(a_decision(number))
    del store._trim

    left = []
    for _ in range(3):
        store.flush()
        left.append(len(kept(path)))

    assert left == [308, 116, 0]


def test_a_clock_that_jumps_forward_deletes_nothing(make_store: MakeStore, path: Path) -> None:
    wall, boot = [time.time_ns()], [0]
    store = make_store(retention_days=30)
    clock = ClockWatch([], wall=lambda: wall[0], boot=lambda: boot[0])
    store._retention._clock = clock
    store.record(a_decision(wall[0]))

    wall[0] += 40 * DAY
    store.record(a_decision(wall[0]))
    store.flush()
    wall[0] -= 40 * DAY
    store.record(a_decision(wall[0] + 5))
    store.flush()

    times = "SELECT coalesce(at, id) FROM decision ORDER BY id"
    assert rows(path, times) == [wall[0], wall[0] + 40 * DAY, wall[0] + 5]


def test_rows_behind_one_that_is_dated_in_the_future_go_too(
    make_store: MakeStore, path: Path
) -> None:
    store = make_store(retention_days=1)
    now = time.time_ns()
    for moment in (now + 40 * DAY, now - 2 * DAY, now):
        store.record(a_decision(moment))

    store.flush()
    store.flush()

    assert rows(path, "SELECT coalesce(at, id) FROM decision ORDER BY id") == [now + 40 * DAY, now]


# By size


def test_the_log_stays_within_its_size(make_store: MakeStore, path: Path) -> None:
    store = make_store(max_bytes=200_000)
    now = time.time_ns()
    for number in range(3000):
        store.record(a_decision(now + number))
        store.record(an_outcome(now + number))
        if number % 100 == 0:
            flush(store)

    assert path.stat().st_size < 400_000
    assert kept(path)[-1] == now + 2999
    assert kept(path)[0] > now + 1000


def test_a_flood_of_one_run_pushes_out_no_row_of_another(make_store: MakeStore, path: Path) -> None:
    store = make_store(max_bytes=400_000)
    now = time.time_ns()
    for number in range(100):
        store.record(a_denial(now + number, run="quiet"))
    for number in range(100, 4000):
        store.record(a_denial(now + number, run="loud", path="/" * 900))
        if number % 100 == 0:
            flush(store)

    assert rows(path, "SELECT count(*) FROM decision WHERE run = 'quiet'") == [100]
    assert rows(path, "SELECT max(id) FROM decision WHERE run = 'loud'") == [now + 3999]
    assert path.stat().st_size < 800_000


def test_rows_that_go_before_their_age_are_reported_now_and_then(
    make_store: MakeStore, path: Path
) -> None:
    store = make_store(max_bytes=200_000, retention_days=30)
    now = time.time_ns()
    for number in range(3000):
        store.record(a_denial(now + number, run="loud"))
        if number % 100 == 0:
            flush(store)

    (text,) = rows(path, "SELECT text FROM notice WHERE kind = 'rows-dropped'")
    assert text.startswith(
        "the audit log has reached its size of 0 MiB, so events younger than 30 days were removed: "
    )
    assert "of run loud (" in text
    assert text.endswith("a larger --audit-size keeps more")


def test_a_log_without_decisions_is_left_alone(make_store: MakeStore, path: Path) -> None:
    store = make_store(max_bytes=1, retention_days=1)
    now = time.time_ns()
    store.record(Notice(now, "start", "listening"))

    store.flush()

    assert rows(path, "SELECT id FROM notice") == [now]


def test_notices_are_bounded_by_their_number(
    make_store: MakeStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "_MOST_NOTICES", 5)
    store = make_store(max_bytes=1)
    now = time.time_ns()
    for number in range(9):
        store.record(Notice(now + number, "limit", "text"))
    store.record(a_decision(now + 9))

    for _ in range(3):
        flush(store)

    assert len(rows(path, "SELECT id FROM notice WHERE kind = 'limit'")) == 5


def test_without_shares_the_oldest_rows_go_from_a_hard_bound_on(
    make_store: MakeStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "_LEAST_EXCESS", 10_000)
    store = make_store(max_bytes=200_000)
    store._retention._planner.plan = lambda kept: None  # type: ignore[method-assign]  # noqa: ARG005
    now = time.time_ns()

    for number in range(3000):
        store.record(a_denial(now + number, run=str(number % 2)))

    assert path.stat().st_size < 500_000
    assert kept(path)[0] > now + 500
