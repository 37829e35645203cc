"""Usage is counted once, by all processes that share a log, and a client cannot reset it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claude_proxy.audit import repeats
from claude_proxy.audit.database import database_in
from claude_proxy.audit.queries import AuditReader, RunFilter
from claude_proxy.audit.store import AuditStore
from claude_proxy.audit.usage import (
    MODEL_BOUND,
    MOST_TOKENS,
    REQUESTS_SINCE,
    RESERVED,
    UsageGrouping,
    UsageSum,
)
from claude_proxy.errors import AuditError
from claude_proxy.events import Event, OutcomeSeen, Phase
from tests.audit.examples import MOMENT, a_decision, a_denial, a_usage, an_outcome, rows

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3600 * 1_000_000_000
DAY = 24 * HOUR
FOREVER = 1_000_000  # days
ALL = 12 + 340 + 5 + 6000  # tokens of `a_usage`
GATEWAY = "gateway"

type MakeStore = Callable[..., AuditStore]


@pytest.fixture(autouse=True)
def _one_row_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each denial a row, although they are equal; tests/audit/test_repeats.py counts them."""
    monkeypatch.setattr(repeats, "WINDOW_S", -1)


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


@pytest.fixture
def store(make_store: MakeStore) -> AuditStore:
    return make_store()


def spend(store: AuditStore, number: int, *, usage: Any = None, **decision: Any) -> None:
    """Record a request that the gateway let through, and its answer."""
    given = store.record(a_decision(number, **{"credential": GATEWAY} | decision))
    store.record(an_outcome(given, usage=usage or a_usage()))


def sums(path: Path, per: UsageGrouping, **choice: Any) -> list[UsageSum]:
    with AuditReader(path) as reader:
        return reader.usage(per, **choice)


# What is kept


def test_usage_is_stored_with_its_client(store: AuditStore, path: Path) -> None:
    spend(store, MOMENT)
    store.record(an_outcome(MOMENT + 1))
    store.flush()

    assert rows(path, "SELECT * FROM usage") == [
        (MOMENT, "127.0.0.1:55555", GATEWAY, "claude-opus-4-1", 12, 340, 5, 6000, None, None)
    ]


def test_usage_follows_a_decision_whose_id_was_replaced(
    store: AuditStore, make_store: MakeStore, path: Path
) -> None:
    make_store().record(a_decision())

    spend(store, MOMENT)
    store.flush()

    assert rows(path, "SELECT decision, credential FROM usage") == [(MOMENT + 1, GATEWAY)]


def test_the_last_of_two_usages_counts(store: AuditStore) -> None:
    spend(store, MOMENT)
    store.record(an_outcome(usage=a_usage(tokens_out=341)))

    assert store.used_since(0, GATEWAY) == ALL + 1


def test_usage_from_an_upstream_is_bounded(make_store: MakeStore, path: Path) -> None:
    told: list[Event] = []
    store = make_store(sinks=[told.append])
    hostile = a_usage(model="m\0" * 5000, tokens_in=1 << 100, tokens_out=-7)

    spend(store, MOMENT, usage=hostile)
    store.close()

    (model, tokens_in, tokens_out) = rows(path, "SELECT model, tokens_in, tokens_out FROM usage")[0]
    assert len(model) < 4 * MODEL_BOUND
    assert model.startswith(r"m\x00m\x00")
    assert (tokens_in, tokens_out) == (MOST_TOKENS, 0)
    outcome = told[-1]
    assert isinstance(outcome, OutcomeSeen)
    assert outcome.usage is not None
    assert outcome.usage.model == model


@given(
    st.text(st.characters(exclude_categories=[])),
    st.lists(st.integers(), min_size=4, max_size=4),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=50,
)
def test_no_usage_costs_another_attempt_its_outcome(
    store: AuditStore, path: Path, model: str, numbers: list[int]
) -> None:
    names = ("tokens_in", "tokens_out", "cache_written", "cache_read")
    before = len(rows(path, "SELECT decision FROM outcome"))
    number = MOMENT + 10 * before
    spend(store, number, usage=a_usage(model=model, **dict(zip(names, numbers, strict=True))))
    spend(store, number + 1)
    store.flush()

    assert len(rows(path, "SELECT decision FROM outcome")) == before + 2
    assert store.used_since(0, GATEWAY) >= ALL
    assert sums(path, UsageGrouping.MODEL)


# What ceilings ask


def test_an_answer_counts_at_once(store: AuditStore) -> None:
    assert store.used_since(0, GATEWAY) == 0

    spend(store, MOMENT)

    assert store.used_since(0, GATEWAY) == ALL


def test_what_began_earlier_or_went_otherwise_does_not_count(store: AuditStore) -> None:
    spend(store, MOMENT)
    spend(store, MOMENT + 1, credential=None)
    spend(store, MOMENT + 2, credential="anthropic")
    spend(store, MOMENT + 3)

    assert store.used_since(MOMENT, GATEWAY) == 2 * ALL
    assert store.used_since(MOMENT + 1, GATEWAY) == ALL
    assert store.used_since(MOMENT + 4, GATEWAY) == 0
    assert store.requests_since(MOMENT, GATEWAY) == 2
    assert store.requests_since(MOMENT + 1, GATEWAY) == 1


def test_sums_survive_a_restart(store: AuditStore, make_store: MakeStore) -> None:
    spend(store, MOMENT)
    store.close()

    again = make_store()

    assert again.used_since(0, GATEWAY) == ALL
    assert again.requests_since(0, GATEWAY) == 1


def test_sums_survive_a_process_that_is_killed(make_store: MakeStore, path: Path) -> None:
    text = (
        "import os, sys\n"
        "from tests.audit.test_usage import *\n"
        "store = AuditStore(Path(sys.argv[1]), retention_days=FOREVER)\n"
        "spend(store, MOMENT)\n"
        "store.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", text, path], cwd=ROOT, check=False)

    assert killed.returncode == -signal.SIGKILL
    assert make_store().used_since(0, GATEWAY) == ALL


def test_all_who_write_to_one_log_count_together(store: AuditStore, make_store: MakeStore) -> None:
    other = make_store()
    spend(store, MOMENT)
    spend(other, MOMENT + 1)
    other.flush()

    assert store.used_since(0, GATEWAY) == 2 * ALL
    assert store.requests_since(0, GATEWAY) == other.requests_since(0, GATEWAY) == 2


def test_denials_steps_and_contents_are_no_requests(store: AuditStore) -> None:
    store.record(a_denial(MOMENT, credential=GATEWAY))
    store.record(a_decision(MOMENT + 1, phase=Phase.CONNECT, credential=GATEWAY))
    store.record(a_denial(MOMENT + 2, phase=Phase.CONTENT, credential=GATEWAY))

    assert store.requests_since(0, GATEWAY) == 0


def test_requests_are_counted_without_a_look_at_the_others(store: AuditStore) -> None:
    values: dict[str, int | str] = {"since": 0, "credential": GATEWAY}
    plan = store._execute(f"EXPLAIN QUERY PLAN {REQUESTS_SINCE}", values).fetchall()

    assert "INDEX request_by_credential (credential=? AND id>?)" in plan[0][3]


def test_usage_without_its_decision_counts_for_every_credential(store: AuditStore) -> None:
    store.record(an_outcome(usage=a_usage()))

    assert store.used_since(0, GATEWAY) == store.used_since(0, "anthropic") == ALL


def test_a_flood_of_decisions_does_not_delete_usage(make_store: MakeStore, path: Path) -> None:
    store = make_store(max_bytes=200_000)
    now = time.time_ns()
    spend(store, now)

    for number in range(1, 3000):
        store.record(a_denial(now + number))

    assert rows(path, "SELECT min(id) FROM decision")[0] > now
    assert store.used_since(now, GATEWAY) == ALL


def test_old_usage_goes_when_no_ceiling_counts_it_any_more(
    make_store: MakeStore, path: Path
) -> None:
    store = make_store(retention_days=1)
    now = time.time_ns()
    store._trim = lambda: None  # type: ignore[method-assign] # until all are written
    for age in (3 * DAY, 25 * HOUR, HOUR):
        spend(store, now - age)
    store.flush()
    del store._trim

    store.flush()

    assert rows(path, "SELECT id FROM decision") == [now - HOUR]
    assert rows(path, "SELECT decision FROM usage") == [now - 25 * HOUR, now - HOUR]


def test_a_sum_that_cannot_be_known_is_an_error(store: AuditStore) -> None:
    spend(store, MOMENT)
    store._execute("DROP TABLE usage")

    with pytest.raises(AuditError, match="no such table"):
        store.used_since(0, GATEWAY)


def test_a_closed_log_counts_nothing(store: AuditStore) -> None:
    store.close()

    with pytest.raises(AuditError, match="closed"):
        store.requests_since(0, GATEWAY)


# What a person asks


@pytest.fixture
def _tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_tokyo")
def test_a_day_is_one_of_the_readers_own(store: AuditStore, path: Path) -> None:
    # 12:04, 23:04 and 00:04 there; the first two are of one day here and there, the last is not.
    for hours in (0, 11, 12):
        spend(store, MOMENT + hours * HOUR)
    store.flush()

    assert [(one.name, one.requests) for one in sums(path, UsageGrouping.DAY)] == [
        ("2026-01-02", 2),
        ("2026-01-03", 1),
    ]


def test_runs_and_models_are_added_up(store: AuditStore, path: Path) -> None:
    for at, run in enumerate(("one", "two", "one", None)):
        spend(store, MOMENT + at, run=run, usage=a_usage(model="b" if at else ""))
    store.flush()

    assert sums(path, UsageGrouping.RUN) == [
        UsageSum("two", MOMENT + 1, MOMENT + 1, 1, 12, 340, 5, 6000),
        UsageSum("one", MOMENT, MOMENT + 2, 2, 24, 680, 10, 12000),
        UsageSum(None, MOMENT + 3, MOMENT + 3, 1, 12, 340, 5, 6000),
    ]
    assert [(one.name, one.requests, one.tokens) for one in sums(path, UsageGrouping.MODEL)] == [
        (None, 1, ALL),
        ("b", 3, 3 * ALL),
    ]


def test_a_run_and_a_time_narrow_the_sums(store: AuditStore, path: Path) -> None:
    for at, name in enumerate(("one", "two", "one")):
        spend(store, MOMENT + at, run=name)
    store.flush()

    assert [one.requests for one in sums(path, UsageGrouping.MODEL, run=RunFilter("one"))] == [2]
    assert [one.first for one in sums(path, UsageGrouping.MODEL, since_ns=MOMENT + 1)] == [
        MOMENT + 1
    ]
    assert sums(path, UsageGrouping.RUN, run=RunFilter("on")) == []


def test_a_run_is_still_named_when_its_decision_is_gone(store: AuditStore, path: Path) -> None:
    spend(store, MOMENT, run="one")
    store.flush()
    store._execute("DELETE FROM decision")

    assert [one.name for one in sums(path, UsageGrouping.RUN)] == ["one"]


def test_nothing_used_is_no_sum(store: AuditStore, path: Path) -> None:
    store.record(a_decision())
    store.record(an_outcome())
    store.flush()

    assert [sums(path, per) for per in UsageGrouping] == [[], [], []]


def test_a_log_can_be_added_up_beside_its_writer(store: AuditStore, path: Path) -> None:
    spend(store, MOMENT)
    store.flush()

    with AuditReader(path) as reader, closing(reader._connection.cursor()):
        reader.usage(UsageGrouping.DAY)
        spend(store, MOMENT + 1)
        store.flush()

        assert reader.usage(UsageGrouping.DAY)[0].requests == 2


# --- tokens that are reserved

MORE = a_usage(tokens_in=100, tokens_out=900, cache_written=0, cache_read=0)


def begin(store: AuditStore, number: int, most: int = 1500) -> bool:
    store.record(a_decision(number, credential=GATEWAY))
    return store.reserve(number, MORE, 0, most)


def test_what_is_reserved_counts_until_its_outcome(store: AuditStore) -> None:
    assert begin(store, MOMENT)
    assert store.used_since(0, GATEWAY) == store.reserved_since(0, GATEWAY) == 1000

    store.record(an_outcome(MOMENT, usage=a_usage()))

    assert (store.used_since(0, GATEWAY), store.reserved_since(0, GATEWAY)) == (ALL, 0)


def test_what_a_request_did_not_use_is_free_again(store: AuditStore, path: Path) -> None:
    begin(store, MOMENT)
    store.record(an_outcome(MOMENT))

    assert store.used_since(0, GATEWAY) == 0
    assert rows(path, "SELECT * FROM usage") == []


def test_requests_at_once_do_not_find_the_same_tokens(
    store: AuditStore, make_store: MakeStore
) -> None:
    """A worker has a store of its own on the same file."""
    stores = (store, make_store())

    assert [begin(stores[at % 2], MOMENT + at) for at in range(60)] == [True, True] + [False] * 58


def test_tokens_of_another_credential_or_of_yesterday_leave_room(store: AuditStore) -> None:
    spend(store, MOMENT, credential="another")
    spend(store, MOMENT + 1)
    store.record(a_decision(MOMENT + 2, credential=GATEWAY))

    assert store.reserve(MOMENT + 2, MORE, MOMENT + 2, 1)


def test_what_was_reserved_when_a_process_was_killed_stays_counted(
    store: AuditStore, make_store: MakeStore
) -> None:
    begin(store, MOMENT)

    assert make_store().used_since(0, GATEWAY) == 1000


@pytest.mark.parametrize("per", UsageGrouping)
def test_what_is_reserved_is_not_shown_as_used(
    store: AuditStore, path: Path, per: UsageGrouping
) -> None:
    begin(store, MOMENT)
    spend(store, MOMENT + 1)
    store.flush()

    assert [(each.requests, each.tokens) for each in sums(path, per)] == [(1, ALL)]


def test_no_model_of_an_upstream_looks_reserved(store: AuditStore) -> None:
    spend(store, MOMENT, usage=a_usage(model=RESERVED))

    assert store.reserved_since(0, GATEWAY) == 0
    assert store.used_since(0, GATEWAY) == ALL


def test_nothing_is_reserved_where_nothing_can_be_recorded(store: AuditStore) -> None:
    store.close()

    with pytest.raises(AuditError):
        store.reserve(MOMENT, MORE, 0, 1500)
