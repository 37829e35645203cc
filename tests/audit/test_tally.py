"""Attempts are counted with their repeats, and each run has its own denials."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from claude_proxy.audit.database import database_in
from claude_proxy.audit.queries import AuditReader, RunFilter, Selection
from claude_proxy.audit.store import AuditStore
from claude_proxy.audit.tally import Grouping, Tally
from claude_proxy.events import Notice
from tests.audit.examples import MOMENT, a_decision, a_denial, an_outcome


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return database_in(tmp_path / "state")


@pytest.fixture
def store(path: Path) -> Iterator[AuditStore]:
    with closing(AuditStore(path, retention_days=1_000_000)) as store:
        yield store


def tallies(path: Path, per: Grouping, **selection: object) -> list[Tally]:
    with AuditReader(path) as reader:
        return reader.tallies(Selection(**selection), per)  # type: ignore[arg-type]


def record(store: AuditStore) -> None:
    for number in range(5):
        store.record(a_denial(MOMENT + number, target="evil.example:443", run="blue"))
    store.record(a_denial(MOMENT + 5, target="evil.example:80", reason="scheme-not-allowed"))
    store.record(a_denial(MOMENT + 6, target="a bad target", reason="invalid-target"))
    for number, error in enumerate((None, "dns-failed"), 7):
        store.record(a_decision(MOMENT + number, run="blue"))
        store.record(an_outcome(MOMENT + number, error=error))
    store.flush()


def test_attempts_are_counted_by_host(store: AuditStore, path: Path) -> None:
    record(store)

    assert tallies(path, Grouping.HOST) == [
        Tally("evil.example", 6, 0, 0, MOMENT + 5, {"no-rule": 5, "scheme-not-allowed": 1}),
        Tally("a bad target", 1, 0, 0, MOMENT + 6, {"invalid-target": 1}),
        Tally("example.com", 0, 1, 1, MOMENT + 8, {"dns-failed": 1}),
    ]


def test_attempts_are_counted_by_run_and_by_reason(store: AuditStore, path: Path) -> None:
    record(store)

    assert [(one.name, one.denied) for one in tallies(path, Grouping.RUN)] == [
        ("blue", 5),
        (None, 2),
    ]
    assert {one.name: one.denied for one in tallies(path, Grouping.REASON)} == {
        "no-rule": 5,
        "scheme-not-allowed": 1,
        "invalid-target": 1,
        "dns-failed": 0,
        "rule-matched": 0,
    }


def test_what_is_counted_can_be_narrowed(store: AuditStore, path: Path) -> None:
    record(store)

    (one, two) = tallies(path, Grouping.HOST, run=RunFilter("blue"))

    assert (one.name, one.denied, two.name, two.allowed) == ("evil.example", 5, "example.com", 1)


# Runs


def begin(store: AuditStore, number: int, run: str) -> None:
    store.record(Notice(number, "run-start", f"run {run}: git", run=run))


def end(store: AuditStore, number: int, run: str, code: int) -> None:
    store.record(Notice(number, "run-end", f"run {run}: exit code {code}", run=run))


def test_each_run_has_its_own_denials_even_under_the_same_name(
    store: AuditStore, path: Path
) -> None:
    begin(store, MOMENT, "nightly")
    store.record(a_denial(MOMENT + 10, run="nightly"))
    store.record(a_denial(MOMENT + 11, run="nightly"))
    begin(store, MOMENT + 15, "other")
    end(store, MOMENT + 20, "nightly", 3)
    begin(store, MOMENT + 30, "nightly")
    store.record(a_denial(MOMENT + 40, run="nightly", path="/new"))
    store.record(a_denial(MOMENT + 41))
    store.flush()

    with AuditReader(path) as reader:
        runs = reader.runs(9)
        assert reader.last_run() == "nightly"
        assert reader.runs(1) == runs[-1:]

    assert [
        (run.name, run.program, run.start, run.end, run.exit_code, run.denied) for run in runs
    ] == [
        ("nightly", "git", MOMENT, MOMENT + 20, 3, 2),
        ("other", "git", MOMENT + 15, None, None, 0),
        ("nightly", "git", MOMENT + 30, None, None, 1),
    ]


def test_an_end_without_a_start_is_no_run(store: AuditStore, path: Path) -> None:
    end(store, MOMENT, "lost", 0)

    with AuditReader(path) as reader:
        assert reader.runs(9) == []
        assert reader.last_run() is None
