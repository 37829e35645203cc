"""Recorded or denied: once `record` returns, the decision is in the file, whatever happens."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claude_proxy.audit import repeats
from claude_proxy.audit import store as store_module
from claude_proxy.audit.database import connect, database_in, wal_of
from claude_proxy.audit.sinks import JsonlSink
from claude_proxy.audit.store import AuditStore
from claude_proxy.config.settings import AuditFailure
from claude_proxy.errors import AuditError
from claude_proxy.events import DecisionMade, Event, Notice, Phase
from claude_proxy.policy.reason import Reason
from tests.audit.examples import MOMENT, a_decision, a_denial, an_outcome, rows
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
FOREVER = 1_000_000  # days
ANY_TEXT = st.text(st.characters(exclude_categories=[]))

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
        made.append(open_store(path, **settings))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> AuditStore:
    return make_store()


def open_store(path: Path, **settings: Any) -> AuditStore:
    """Open a log that keeps what is dated long ago, unless a test is about just that."""
    return AuditStore(path, **{"retention_days": FOREVER} | settings)


def kept(path: Path) -> list[Any]:
    return rows(path, "SELECT id FROM decision")


def notices(path: Path) -> list[Any]:
    return rows(path, "SELECT kind, text FROM notice")


def program(text: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python program that writes into an audit log of its own accord."""
    head = (
        "import sys\nfrom claude_proxy.audit.store import *\nfrom tests.audit.examples import *\n"
        # Two of them may have to wait for each other, on a disk that may be slow.
        "import claude_proxy.audit.store\nclaude_proxy.audit.store.BUSY_S = 60\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(text), *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# Decisions


def test_a_recorded_decision_is_in_the_file(store: AuditStore, path: Path) -> None:
    store.record(a_decision())
    store.record(a_denial(MOMENT + 1, phase=Phase.CONNECT, scheme="", method="CONNECT", path=""))

    assert rows(path, "SELECT * FROM decision") == [
        (
            MOMENT,
            7,
            "127.0.0.1:55555",
            "127.0.0.1:9051",
            "request",
            "https",
            "example.com:443",
            "GET",
            "/path",
            1,
            "rule-matched",
            "example.com",
            "allowlist.yaml:12",
            *(None,) * 6,
        ),
        (
            MOMENT + 1,
            7,
            "127.0.0.1:55555",
            "127.0.0.1:9051",
            "connect",
            "",
            "example.com:443",
            "CONNECT",
            "",
            0,
            "no-rule",
            None,
            None,
            *(None,) * 6,
        ),
    ]


def test_a_recorded_decision_outlives_a_process_that_is_killed(path: Path) -> None:
    killed = program(
        """
        import os, signal
        store = AuditStore(Path(sys.argv[1]), retention_days=1_000_000)
        store.record(a_decision())
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        path,
    )

    with killed:
        assert killed.wait() == -signal.SIGKILL
    assert kept(path) == [MOMENT]


def test_the_log_of_a_killed_process_is_written_on(path: Path, make_store: MakeStore) -> None:
    test_a_recorded_decision_outlives_a_process_that_is_killed(path)

    make_store().record(a_decision(MOMENT + 1))

    assert kept(path) == [MOMENT, MOMENT + 1]


def test_two_processes_write_one_log(path: Path) -> None:
    text = """
        store = AuditStore(Path(sys.argv[1]), retention_days=1_000_000)
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(300):
            # The same ids in both: the second to come must make way.
            given = store.record(a_decision(MOMENT + 10 * number, client=sys.argv[2]))
            store.record(an_outcome(given, upstream=sys.argv[2]))
        store.close()
        """
    writers = [program(text, path, name) for name in ("one", "two")]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"

    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda writer: writer.communicate("go\n"), writers))

    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(kept(path)) == 600
    pairs = "SELECT client = upstream FROM decision JOIN outcome ON decision = id"
    assert rows(path, pairs) == [1] * 600


def test_a_decision_with_an_id_in_use_gets_the_next_id(
    store: AuditStore, make_store: MakeStore, path: Path
) -> None:
    make_store().record(a_decision())

    number = store.record(a_denial())
    store.record(an_outcome(number, status=403))
    store.flush()

    both = "SELECT id, at, allowed, status FROM decision LEFT JOIN outcome ON decision = id"
    assert rows(path, both) == [(MOMENT, None, 1, None), (MOMENT + 1, MOMENT, 0, 403)]


def test_the_order_of_recording_outlives_a_clock_that_is_set_back(
    store: AuditStore, path: Path
) -> None:
    for moment in (MOMENT, MOMENT - 10**15, MOMENT - 10**15 + 1):
        store.record(a_decision(moment))
        store.record(Notice(moment, "limit", "text"))

    times = "SELECT coalesce(at, id) FROM"
    assert rows(path, f"{times} decision ORDER BY id") == rows(path, f"{times} notice ORDER BY id")
    assert rows(path, f"{times} decision ORDER BY id")[1:] == [MOMENT - 10**15, MOMENT - 10**15 + 1]


# What clients send


@given(st.lists(ANY_TEXT, min_size=8, max_size=8))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=50,
)
def test_any_text_can_be_recorded(store: AuditStore, texts: list[str]) -> None:
    names = ["client", "listener", "target", "method", "path", "reason", "rule", "rule_source"]

    store.record(a_decision(time.time_ns(), **dict(zip(names, texts, strict=True))))

    assert store.failure is None


def test_hostile_text_is_kept_readable(store: AuditStore, path: Path) -> None:
    store.record(a_denial(target="evil\udc80", method="G\0T", path="/\x1b[31m\0end"))

    kept = "SELECT target, method, path, instr(path, 'end') FROM decision"
    assert rows(path, kept) == [(r"evil\udc80", r"G\x00T", "/\x1b[31m" + r"\x00end", 11)]


def test_a_lone_surrogate_in_our_own_names_is_recorded(store: AuditStore, path: Path) -> None:
    # A file name that is not UTF-8 comes to us so.
    store.record(a_decision(rule_source="lists\udcff.yaml:1", rule=None))

    assert rows(path, "SELECT rule_source, rule FROM decision") == [(r"lists\udcff.yaml:1", None)]


def test_what_is_overlong_is_cut(store: AuditStore, path: Path) -> None:
    store.record(a_denial(target="t" * 65_536, method="M" * 65_536, path="/" * 65_536))

    assert rows(path, "SELECT length(target), length(method), length(path) FROM decision") == [
        (512 + 15, 64 + 15, 1024 + 15)
    ]
    assert rows(path, "SELECT substr(path, -15) FROM decision") == ["...[64512 more]"]


# Outcomes and notices


def test_an_outcome_joins_its_decision(store: AuditStore, path: Path) -> None:
    store.record(a_decision())
    store.record(an_outcome())
    store.flush()

    assert rows(path, "SELECT * FROM outcome") == [
        (MOMENT, 200, 10, 2000, 12.5, 3.25, "203.0.113.5:443", None)
    ]


def test_outcomes_are_written_together(store: AuditStore, path: Path) -> None:
    for number in range(63):
        store.record(an_outcome(number))
    assert rows(path, "SELECT count(*) FROM outcome") == [0]

    store.record(an_outcome(63))

    assert rows(path, "SELECT count(*) FROM outcome") == [64]


def test_the_last_of_two_outcomes_counts(store: AuditStore, path: Path) -> None:
    store.record(an_outcome(status=None))
    store.record(an_outcome(status=502))
    store.flush()

    assert rows(path, "SELECT status FROM outcome") == [502]


def test_an_outcome_that_cannot_be_written_costs_no_other(store: AuditStore, path: Path) -> None:
    store.record(an_outcome(1, bytes_up=1 << 64))
    store.flush()
    store.record(an_outcome(2, duration_ms=float("nan")))
    store.flush()
    store.record(an_outcome(3))
    store.record(a_decision())
    store.flush()

    assert rows(path, "SELECT decision FROM outcome") == [3]
    lost = "the audit log is incomplete; the outcomes of 1 attempts are lost"
    assert notices(path) == [("audit-recovered", lost)] * 2


def test_a_notice_is_written_at_once(store: AuditStore, path: Path) -> None:
    store.record(Notice(MOMENT, "policy-applied", "+ example.com\udc80"))

    assert rows(path, "SELECT * FROM notice") == [
        (MOMENT, "policy-applied", r"+ example.com\udc80", None, None)
    ]


def test_a_notice_without_an_id_is_of_now(store: AuditStore, path: Path) -> None:
    before = time.time_ns()

    store.record(Notice(0, "start", "listening"))

    assert before <= rows(path, "SELECT id FROM notice")[0] <= time.time_ns()


# Failures


def test_on_a_full_disk_decisions_fail_until_there_is_space(path: Path) -> None:
    full = program(
        """
        import resource
        from claude_proxy.errors import AuditError
        from claude_proxy.audit.database import wal_of

        path = Path(sys.argv[1])
        store = AuditStore(path, retention_days=1_000_000)
        store.record(a_decision(1))
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal_of(path).stat().st_size, most))
        for number in range(2, 100):
            try:
                store.record(a_decision(number))
                raise SystemExit("recorded on a full disk")
            except AuditError as error:
                print(error.what)
            store.record(an_outcome(number))
            store.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        store.flush()
        store.record(a_decision(100))
        store.close()
        """,
        path,
    )

    said, _ = full.communicate()

    assert full.returncode == 0
    assert set(said.splitlines()) <= {
        "the audit log cannot be written: disk I/O error",
        "the audit log cannot be used: disk I/O error",
        "the audit log cannot be written: database or disk is full",
    }
    assert kept(path) == [1, 100]
    assert rows(path, "SELECT count(*) FROM outcome") == [98]
    assert notices(path) == [("audit-recovered", "decisions are recorded again")]


def no_more_pages(store: AuditStore) -> None:
    """Make the file full: SQLite has a bound of its own and says the same beyond it."""
    pages = store._number("PRAGMA page_count")
    store._execute(f"PRAGMA max_page_count={pages}").fetchall()


def more_pages(store: AuditStore) -> None:
    store._execute("PRAGMA max_page_count=100000").fetchall()


def fill(store: AuditStore) -> AuditError:
    no_more_pages(store)
    events = [a_denial(MOMENT + number, path="/" * 1000) for number in range(1000)]
    with pytest.raises(AuditError) as caught:
        list(map(store.record, events))
    return caught.value


def test_a_full_file_is_said_with_the_fix(store: AuditStore, path: Path) -> None:
    error = fill(store)

    assert error.lines() == [
        "error: the audit log cannot be written: database or disk is full",
        f"  where: {path}",
        "  fix:   free some disk space; recording resumes automatically",
    ]
    assert store.failure is error


def test_recording_goes_on_by_itself_with_the_next_decision(store: AuditStore, path: Path) -> None:
    fill(store)
    more_pages(store)

    number = store.record(a_decision())

    assert number in kept(path)
    assert store.failure is None
    assert notices(path) == [("audit-recovered", "decisions are recorded again")]


def test_outcomes_wait_for_space_and_the_oldest_are_lost_in_the_end(
    store: AuditStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_OUTCOMES_KEPT", 100)
    fill(store)
    for number in range(130):
        store.record(an_outcome(number))
    store.flush()
    assert store.failure is not None

    more_pages(store)
    store.flush()

    assert rows(path, "SELECT decision FROM outcome") == list(range(30, 130))
    assert notices(path) == [
        (
            "audit-recovered",
            "decisions are recorded again; the outcomes of 30 attempts are lost",
        )
    ]


def test_decisions_that_were_not_recorded_are_counted(store: AuditStore) -> None:
    store.record(a_decision())
    before = store.unrecorded
    failure = fill(store)
    first = store.unrecorded
    with pytest.raises(AuditError):
        store.record(a_denial(MOMENT, path="/" * 1000))
    more_pages(store)
    store.flush()

    assert before is None
    assert first == (1, failure)
    assert store.unrecorded is not None
    assert store.unrecorded[0] == 2


def test_a_notice_that_cannot_be_written_says_so(store: AuditStore) -> None:
    fill(store)

    with pytest.raises(AuditError, match="full"):
        store.record(Notice(0, "policy-applied", "x" * 4000))


def test_a_log_that_another_program_holds_is_waited_for_once(
    store: AuditStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(store_module, "BUSY_S", 0.01)
    monkeypatch.setattr(time, "sleep", slept.append)
    with closing(connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(AuditError, match="locked"):
            store.record(a_decision())
        assert slept
        slept.clear()
        with pytest.raises(AuditError, match="locked"):
            store.record(a_decision())
        assert not slept
    store.record(a_decision())

    assert kept(path) == [MOMENT]
    assert store.failure is None


def test_a_log_that_another_writer_gives_back_in_time_is_no_failure(
    store: AuditStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(time, "sleep", lambda _: other.rollback())
        store.record(a_decision())

    assert kept(path) == [MOMENT]


def test_a_failure_in_the_middle_of_outcomes_leaves_nothing_open(
    store: AuditStore, path: Path
) -> None:
    def refuse_outcomes(action: int, table: str | None, *_: str | None) -> int:
        refused = action == sqlite3.SQLITE_INSERT and table == "outcome"
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

    store.record(an_outcome())
    store._connection.set_authorizer(refuse_outcomes)
    store.flush()

    assert store.failure is not None
    assert not store._connection.in_transaction
    store.flush()
    assert rows(path, "SELECT count(*) FROM outcome") == [1]


def test_a_read_only_log_is_an_error(store: AuditStore) -> None:
    store._execute("PRAGMA query_only=1")

    with pytest.raises(AuditError, match="readonly"):
        store.record(a_decision())


def gone(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    shutil.copyfile(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


def without_its_log(path: Path) -> None:
    wal_of(path).unlink()


def without_its_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("happens", [gone, replaced, without_its_log, without_its_directory])
def test_a_log_that_is_gone_fails_and_is_created_again(
    store: AuditStore, path: Path, happens: Callable[[Path], None]
) -> None:
    store.record(a_decision(1))
    happens(path)
    store.flush()

    with pytest.raises(AuditError, match="deleted or replaced"):
        store.record(a_decision(2))
    store.flush()
    store.record(a_decision(3))

    assert 2 not in kept(path)
    assert 3 in kept(path)
    assert ("audit-recovered", "decisions are recorded again") in notices(path)


def test_nothing_is_lost_with_the_write_ahead_log_alone(store: AuditStore, path: Path) -> None:
    store.record(a_decision(1))
    without_its_log(path)
    store.flush()
    store.flush()

    assert kept(path) == [1]


def test_decisions_notice_by_themselves_that_the_log_is_gone(
    store: AuditStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_CHECK_EVERY_S", -1)
    gone(path)

    with pytest.raises(AuditError, match="deleted or replaced"):
        store.record(a_decision(1))
    store.record(a_decision(2))

    assert kept(path) == [2]


def test_another_file_at_the_path_of_the_log_stays_an_error(store: AuditStore, path: Path) -> None:
    gone(path)
    path.mkdir()
    for _ in range(3):
        store.flush()

    with pytest.raises(AuditError, match="not a regular file") as caught:
        store.record(a_decision())
    assert caught.value.fix is not None

    path.rmdir()
    store.flush()
    assert store.failure is None


def test_an_invalid_row_does_not_affect_others(store: AuditStore, path: Path) -> None:
    with pytest.raises(AuditError, match="NOT NULL"):
        store.record(a_decision(client=None))
    with pytest.raises(AuditError, match="type 'list' is not supported"):
        store.record(a_decision(client=[]))

    assert store.failure is None
    store.record(a_decision())
    assert kept(path) == [MOMENT]


# Sinks


def test_the_sinks_get_what_was_recorded(make_store: MakeStore) -> None:
    told: list[Event] = []
    events: list[Event] = [a_decision(), an_outcome(), Notice(5, "limit", "full")]
    store = make_store(sinks=[told.append])
    for event in events:
        store.record(event)

    store.close()

    assert told == events


@pytest.mark.parametrize(
    ("failure", "allowed", "reason"),
    [
        (AuditFailure.DENY, False, Reason.AUDIT_FAILED.value),
        (AuditFailure.ALLOW, True, "rule-matched"),
    ],
)
def test_the_sinks_get_the_denial_of_a_decision_that_is_not_recorded(
    make_store: MakeStore, failure: AuditFailure, reason: str, *, allowed: bool
) -> None:
    told: list[Event] = []
    store = make_store(sinks=[told.append], audit_failure=failure)
    store._execute("PRAGMA query_only=1")

    with suppress(AuditError):
        store.record(a_decision())
    store.close()

    decision = next(event for event in told if isinstance(event, DecisionMade))
    assert (decision.allowed, decision.reason) == (allowed, reason)


def test_the_sinks_get_the_id_under_which_an_outcome_is_kept(make_store: MakeStore) -> None:
    told: list[Event] = []
    store = make_store(sinks=[told.append])
    store.record(a_decision())
    number = store.record(a_denial())
    store.close()

    _, decision = told
    assert isinstance(decision, DecisionMade)
    assert decision.id == number == MOMENT + 1
    assert decision.time_ns == MOMENT


def test_a_log_that_a_reader_makes_grow_is_reported_once(
    store: AuditStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_HELD_BYTES", 20_000)
    for number in range(100):
        store.record(a_decision(MOMENT + number))
    store.flush()
    store.flush()

    (notice,) = notices(path)
    assert notice[0] == "log-held"
    assert f"`fuser {path}` finds it" in notice[1]


def test_lines_that_a_sink_lost_are_in_the_log(path: Path) -> None:
    class Full:
        def write(self, _: bytes, /) -> None:
            raise OSError(28, "No space left on device")

    store = open_store(path, sinks=[JsonlSink(Full(), "file.jsonl")])
    store.record(a_decision())
    until(lambda: store._printer is not None and store._printer._line_sinks[0].reports)
    store.close()

    (notice,) = notices(path)
    assert notice[0] == "lines-lost"
    assert "file.jsonl (no space left on device)" in notice[1]


# Repeated denials


def test_a_repeated_denial_raises_the_count_of_its_row(
    make_store: MakeStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "WINDOW_S", 60)
    store = make_store()
    first = store.record(a_denial())
    store.record(an_outcome(first, status=403))

    again = [store.record(a_denial(MOMENT + number)) for number in range(1, 1000)]
    for number in again:
        store.record(an_outcome(number, status=None))
    store.close()

    assert set(again) == {first}
    assert rows(path, "SELECT id, count, last FROM decision") == [(first, 1000, MOMENT + 999)]
    assert rows(path, "SELECT decision, status FROM outcome") == [(first, 403)]


def test_a_count_whose_row_is_gone_begins_a_new_row(
    make_store: MakeStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "WINDOW_S", 60)
    store = make_store()
    store.record(a_denial())
    store.record(a_denial(MOMENT + 1))
    store._execute("DELETE FROM decision")
    store.flush()

    store.record(a_denial(MOMENT + 2))

    assert kept(path) == [MOMENT + 2]


def test_a_repeated_denial_is_not_counted_in_a_log_that_fails(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "WINDOW_S", 60)
    store = make_store()
    store.record(a_denial())
    store._execute("PRAGMA query_only=1")
    store.record(a_denial())
    store.flush()
    assert store.failure is not None

    with pytest.raises(AuditError, match="readonly"):
        store.record(a_denial())


# The end


def test_a_closed_log_is_one_file(path: Path) -> None:
    store = open_store(path)
    store.record(a_decision())
    store.record(an_outcome())

    store.close()

    assert list(path.parent.iterdir()) == [path]
    assert rows(path, "SELECT decision FROM outcome") == [MOMENT]


def test_a_closed_log_takes_nothing_more(path: Path) -> None:
    store = open_store(path)
    store.close()
    store.close()
    store.flush()

    with pytest.raises(AuditError, match="closed"):
        store.record(a_decision())


def test_closing_waits_for_no_reader(path: Path) -> None:
    store = open_store(path)
    store.record(a_decision())
    with closing(connect(path, mode="ro")) as reader:
        reading = reader.execute("SELECT 1 FROM decision UNION ALL SELECT 2")
        assert reading.fetchone() == (1,)

        store.close()

        assert reading.fetchone() == (2,)
    assert kept(path) == [MOMENT]


def test_a_failed_log_can_be_closed(store: AuditStore, path: Path) -> None:
    without_its_directory(path)

    store.close()

    with pytest.raises(sqlite3.ProgrammingError):
        store._connection.execute("SELECT 1")


def test_a_growing_log_is_checkpointed(store: AuditStore, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[bool] = []
    monkeypatch.setattr(store_module, "ENOUGH_BYTES", 20_000)
    monkeypatch.setattr(store._checkpointer, "wake", lambda: woken.append(True))
    store.record(a_decision())
    store.flush()
    assert woken == []

    for number in range(50):
        store.record(a_decision(number))
    store.flush()

    assert woken == [True]


def test_another_thread_can_write_the_gathered_outcomes_before_a_forced_end(
    store: AuditStore, path: Path
) -> None:
    store.record(a_decision())
    store.record(an_outcome())
    rescuer = threading.Thread(target=store.rescue)
    rescuer.start()
    rescuer.join()

    assert len(rows(path, "SELECT decision FROM outcome")) == 1
    store.flush()  # once more, as it is not known whether the own thread gets to it
    assert len(rows(path, "SELECT decision FROM outcome")) == 1
