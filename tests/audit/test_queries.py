"""What was recorded can be read back, beside a running proxy and after a crash."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import product
from pathlib import Path

import pytest

from claude_proxy.audit import queries, repeats
from claude_proxy.audit.database import connect, database_in, open_for_writing, shm_of, wal_of
from claude_proxy.audit.queries import (
    AuditReader,
    Follower,
    HostFilter,
    ListenerFilter,
    LogEntry,
    LoggedAttempt,
    NoAuditLogError,
    RunFilter,
    Selection,
    Show,
)
from claude_proxy.audit.state import is_shown
from claude_proxy.audit.store import AuditStore
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.events import PASSTHROUGH_SCHEME, Notice, Phase
from tests.audit.examples import MOMENT, a_decision, a_denial, a_usage, an_outcome

ROOT = Path(__file__).resolve().parents[2]
SECOND = 1_000_000_000
FOREVER = 1_000_000  # days


@pytest.fixture(autouse=True)
def _one_row_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each denial a row, although they are equal; tests/audit/test_repeats.py counts them."""
    monkeypatch.setattr(repeats, "WINDOW_S", -1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return database_in(tmp_path / "state")


@pytest.fixture
def store(path: Path) -> Iterator[AuditStore]:
    with closing(AuditStore(path, retention_days=FOREVER)) as store:
        yield store


def newest(path: Path, limit: int = 50, **selection: object) -> list[LogEntry]:
    with AuditReader(path) as reader:
        return reader.newest(Selection(**selection), limit)  # type: ignore[arg-type]


def ids(entries: list[LogEntry]) -> list[int]:
    return [entry.id for entry in entries]


# What is asked


def test_an_attempt_comes_back_as_it_was_recorded(store: AuditStore, path: Path) -> None:
    decisions = [a_decision(1), a_denial(2, phase=Phase.CONNECT)]
    for decision in decisions:
        store.record(decision)
    store.record(an_outcome(1))
    store.flush()

    assert newest(path) == [
        LoggedAttempt(decisions[0], an_outcome(1)),
        LoggedAttempt(decisions[1], None),
    ]


def test_a_credential_and_usage_come_back_as_they_were_recorded(
    store: AuditStore, path: Path
) -> None:
    decision = a_decision(1, credential="anthropic")
    outcome = an_outcome(1, usage=a_usage())
    store.record(decision)
    store.record(outcome)
    store.flush()

    assert newest(path) == [LoggedAttempt(decision, outcome)]


def test_the_newest_come_last_and_no_more_than_asked(store: AuditStore, path: Path) -> None:
    for number in range(10):
        store.record(a_decision(2 * number))
        store.record(Notice(2 * number + 1, "limit", "text"))

    assert ids(newest(path, 5)) == [15, 16, 17, 18, 19]


def test_the_next_after_one_come_first(store: AuditStore, path: Path) -> None:
    for number in range(10):
        store.record(a_decision(2 * number))
        store.record(Notice(2 * number + 1, "limit", "text"))

    with AuditReader(path) as reader:
        assert [entry.id for entry in reader.attempts_after(Selection(), 4, 2)] == [6, 8]
        assert [entry.id for entry in reader.notices_after(Selection(), 4, 2)] == [5, 7]
        since = Selection(since_ns=17)
        assert [entry.id for entry in reader.attempts_after(since, 4, 9)] == [18]


def test_denied_and_allowed_are_told_apart(store: AuditStore, path: Path) -> None:
    store.record(a_decision(1))
    store.record(a_denial(2))
    store.record(Notice(3, "start", "listening"))

    assert ids(newest(path, show=Show.ALLOWED)) == [1]
    assert ids(newest(path, show=Show.DENIED)) == [2]
    assert ids(newest(path)) == [1, 2, 3]


def test_what_is_older_is_left_out(store: AuditStore, path: Path) -> None:
    for number in range(5):
        store.record(a_decision(number))

    assert ids(newest(path, since_ns=3)) == [3, 4]


def test_steps_are_left_out_as_the_console_leaves_them_out(store: AuditStore, path: Path) -> None:
    kinds = product(Phase, ["", "https", "http", PASSTHROUGH_SCHEME], [True, False])
    events = [
        a_decision(number, phase=phase, scheme=scheme, allowed=allowed)
        for number, (phase, scheme, allowed) in enumerate(kinds)
    ]
    for event in events:
        store.record(event)

    most = len(events)
    assert ids(newest(path, most)) == [event.id for event in events if is_shown(event)]
    assert ids(newest(path, most, steps=True)) == [event.id for event in events]


TARGETS = [
    "example.com:443",
    "EXAMPLE.com:443",
    "a.example.com:443",
    "a.b.example.com:8443",
    "notexample.com:443",
    "example.com.evil.net:443",
    "[2001:db8::1]:443",
    "xn--bcher-kva.example:443",
    "example.com",
    "bad host%:1",
    ".example.com:443",
]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("example.com", [0, 1, 8]),
        ("Example.COM.", [0, 1, 8]),
        ("*.example.com", [2, 3]),
        (".example.com", [0, 1, 2, 3, 8]),
        ("2001:DB8::1", [6]),
        ("bücher.example", [7]),
        ("*.example", [7]),
        ("bad host%", [9]),
        ("BAD HOST%:1", [9]),
        ("*.com", [0, 1, 2, 3, 4]),
        ("%", []),
        ("' OR 1=1 --", []),
    ],
)
def test_hosts_are_found(store: AuditStore, path: Path, pattern: str, found: list[int]) -> None:
    for number, target in enumerate(TARGETS):
        store.record(a_denial(number, target=target))

    got = ids(newest(path, host=HostFilter.parse(pattern)))

    assert [number for number in got if number != 10] == found


# When it can be asked


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tcp 127.0.0.1:9051", [1]),
        ("127.0.0.1:9051", [1]),
        ("http://127.0.0.1:9051", [1]),
        ("unix /run/a b.sock", [2]),
        ("unix:/run/a b.sock", [2]),
        ("/run/a b.sock", [2]),
        ("web.socket", [3]),
        ("127.0.0.1:905", []),
        ("%", []),
        ("", []),
    ],
)
def test_one_listener_is_found_however_it_is_spelled(
    store: AuditStore, path: Path, text: str, found: list[int]
) -> None:
    for at, name in enumerate(("tcp 127.0.0.1:9051", "unix /run/a b.sock", "web.socket"), 1):
        store.record(a_denial(MOMENT + at, listener=name))
    store.record(Notice(MOMENT + 9, "start", "listening on tcp 127.0.0.1:9051"))

    got = ids(newest(path, listener=ListenerFilter.parse(text)))

    assert [number - MOMENT for number in got] == found


@pytest.mark.parametrize(
    ("name", "found"),
    [("one", [1, 3]), ("two", [2]), ("on", []), ("%", []), ("", [])],
)
def test_what_one_run_did_is_found(
    store: AuditStore, path: Path, name: str, found: list[int]
) -> None:
    for at, run in enumerate(("one", "two", "one", None), 1):
        store.record(a_denial(MOMENT + at, run=run, client="127.0.0.1:50000, claims run one: git"))

    got = ids(newest(path, run=RunFilter(name)))

    assert [number - MOMENT for number in got] == found


@pytest.mark.usefixtures("store")
def test_nothing_recorded_is_nothing_found(path: Path) -> None:
    assert newest(path) == []


def test_the_log_of_a_killed_proxy_can_be_read(path: Path) -> None:
    text = (
        "import os, sys\n"
        "from tests.audit.test_queries import *\n"
        "AuditStore(Path(sys.argv[1]), retention_days=FOREVER).record(a_decision())\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", text, path], cwd=ROOT, check=False)

    assert killed.returncode == -signal.SIGKILL
    assert ids(newest(path)) == [MOMENT]


def test_a_closed_log_can_be_read(store: AuditStore, path: Path) -> None:
    store.record(a_decision())
    store.close()

    assert ids(newest(path)) == [MOMENT]
    assert ids(newest(path)) == [MOMENT]


def test_reading_leaves_nothing_that_holds_up_the_writer(store: AuditStore, path: Path) -> None:
    store.record(a_decision())
    with AuditReader(path) as reader, closing(connect(path)) as other:
        reader.newest(Selection(), 50)
        reader.attempts_after(Selection(), 0, 1)

        busy, _, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    assert busy == 0


def test_a_reader_cannot_write(store: AuditStore, path: Path) -> None:
    store.record(a_decision())
    with AuditReader(path) as reader, pytest.raises(ClaudeProxyError, match="readonly"):
        reader._rows("DELETE FROM decision")


def refusal(path: Path) -> ClaudeProxyError:
    with pytest.raises(ClaudeProxyError) as caught:
        AuditReader(path)
    assert caught.value.where == str(path)
    assert caught.value.fix
    return caught.value


def test_before_the_first_start_there_is_no_log(path: Path) -> None:
    error = refusal(path)

    assert error.exit_code == 1
    assert error.lines() == [
        "error: there is no audit log yet",
        f"  where: {path}",
        "  fix:   start claude-proxy first, or name its state directory with --statedir",
    ]


def test_a_log_that_is_being_created_does_not_exist_yet(path: Path) -> None:
    path.parent.mkdir()
    path.touch()

    assert isinstance(refusal(path), NoAuditLogError)


def test_what_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 1000)

    assert "cannot be read" in refusal(path).what


def test_a_directory_in_its_place_is_refused(path: Path) -> None:
    path.mkdir(parents=True)

    assert "cannot be read" in refusal(path).what


def test_a_database_of_something_else_is_refused(path: Path) -> None:
    with closing(open_for_writing(path)) as connection:
        connection.execute("PRAGMA application_id=1")

    assert "not an audit log" in refusal(path).what


def test_another_schema_is_refused(path: Path) -> None:
    with closing(open_for_writing(path)) as connection:
        connection.execute("PRAGMA user_version=99")

    assert "schema 99" in refusal(path).what


# Following


@pytest.fixture
def follower(store: AuditStore, path: Path) -> Follower:
    store.record(a_decision(MOMENT))
    shown = newest(path)
    assert ids(shown) == [MOMENT]
    return Follower(path, Selection(), shown)


def test_each_new_entry_is_returned_once(store: AuditStore, follower: Follower) -> None:
    assert follower.news(MOMENT) == []
    store.record(a_denial(MOMENT + 1))
    store.record(Notice(MOMENT + 2, "limit", "text"))

    assert ids(follower.news(MOMENT + SECOND)) == [MOMENT + 1, MOMENT + 2]
    assert follower.news(MOMENT + 2 * SECOND) == []
    store.record(a_denial(MOMENT + 3))
    assert ids(follower.news(MOMENT + 3 * SECOND)) == [MOMENT + 3]


def test_the_outcome_is_waited_for_but_not_for_long(store: AuditStore, follower: Follower) -> None:
    store.record(a_decision(MOMENT + 1))
    store.record(a_decision(MOMENT + 2))
    assert follower.news(MOMENT + 3) == []

    store.record(an_outcome(MOMENT + 2))
    store.flush()

    first, second = follower.news(MOMENT + 4), follower.news(MOMENT + 2 * SECOND)
    assert first == [LoggedAttempt(a_decision(MOMENT + 2), an_outcome(MOMENT + 2))]
    assert second == [LoggedAttempt(a_decision(MOMENT + 1), None)]


def test_what_another_proxy_writes_late_is_not_missed(
    store: AuditStore, follower: Follower
) -> None:
    store.record(a_denial(MOMENT + 10))
    assert ids(follower.news(MOMENT + SECOND)) == [MOMENT + 10]

    number = store.record(a_denial(MOMENT + 5))

    assert ids(follower.news(MOMENT + 2 * SECOND)) == [number]


def test_entries_between_two_calls_are_not_missed(
    store: AuditStore, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_PAGE_ROWS", 3)
    follower.news(MOMENT)
    late = [MOMENT + number * SECOND for number in range(1, 20)]
    for number in late:
        store.record(a_denial(number))

    assert ids(follower.news(MOMENT + 1000 * SECOND)) == late


def test_returned_entries_are_not_remembered_forever(store: AuditStore, follower: Follower) -> None:
    for number in range(1, 100):
        store.record(a_denial(MOMENT + number * SECOND))
        follower.news(MOMENT + number * SECOND)

    assert len(follower._trail) < 100
    assert (follower._late, follower._awaited) == (set(), {})


def removed(path: Path) -> None:
    for file in (path, wal_of(path), shm_of(path)):
        file.unlink()


def replaced_by_a_new_one(path: Path) -> None:
    removed(path)
    path.touch()


@pytest.mark.parametrize("happens", [removed, replaced_by_a_new_one])
def test_a_log_that_goes_away_and_comes_back_is_followed(
    store: AuditStore, follower: Follower, path: Path, happens: Callable[[Path], None]
) -> None:
    happens(path)
    assert follower.news(MOMENT + 1) == []

    store.flush()
    store.flush()
    store.record(a_denial(MOMENT + 2))

    assert MOMENT + 2 in ids(follower.news(MOMENT + SECOND))


def test_nothing_shown_yet_is_followed_from_the_time_asked_for(
    store: AuditStore, path: Path
) -> None:
    store.record(a_denial(MOMENT))
    selection = Selection(since_ns=MOMENT + 1)

    follower = Follower(path, selection, [])
    store.record(a_denial(MOMENT + 1))

    assert ids(follower.news(MOMENT + 2)) == [MOMENT + 1]


# Denials of a run


def test_the_denials_of_a_run_are_counted_by_kind(store: AuditStore, path: Path) -> None:
    store.record(a_denial(MOMENT - 1, run="mine", target="old.test:443"))
    for number, target in enumerate(["a.test:443", "b.test:443", "a.test:443"]):
        store.record(a_denial(MOMENT + number, run="mine", target=target))
    store.record(a_denial(MOMENT + 10, run="other"))
    store.record(a_decision(MOMENT + 11, run="mine"))
    store.close()

    with AuditReader(path) as reader:
        rows = reader.denials(RunFilter("mine"), since_ns=MOMENT)

    assert [(row.target, row.times) for row in rows] == [("a.test:443", 2), ("b.test:443", 1)]


def test_a_denied_address_of_a_run_is_one_denial_with_its_address(
    store: AuditStore, path: Path
) -> None:
    reason = "address-not-allowed"
    store.record(a_decision(MOMENT, run="mine"))
    store.record(a_denial(MOMENT + 1, run="mine", phase=Phase.DIAL, reason=reason, attempt=MOMENT))
    store.record(an_outcome(MOMENT, error=reason, upstream="10.1.2.3:443"))
    store.close()

    with AuditReader(path) as reader:
        (row,) = reader.denials(RunFilter("mine"))

    assert (row.reason, row.address, row.times) == (reason, "10.1.2.3:443", 1)


def test_a_run_is_known_by_its_name_from_its_start(tmp_path: Path) -> None:
    with closing(AuditStore(database_in(tmp_path), retention_days=FOREVER)) as store:
        store.record(Notice(MOMENT, "run-start", "run blue: git", run="blue"))
        with AuditReader(database_in(tmp_path)) as reader:
            assert reader.has_run("blue")
            assert not reader.has_run("red")
