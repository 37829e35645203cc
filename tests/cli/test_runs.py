"""`claude-proxy runs` lists the runs that were recorded."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from claude_proxy.audit.database import database_in
from claude_proxy.audit.store import AuditStore
from claude_proxy.audit.tally import LoggedRun
from claude_proxy.cli import main
from claude_proxy.cli.runs import lines_of
from claude_proxy.events import Notice
from tests.audit.examples import MOMENT, a_denial

RUN = LoggedRun("blue", "git", MOMENT, MOMENT + 90_000_000_000, 3, 1234)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def test_a_run_is_a_row() -> None:
    heading, row = lines_of([RUN], set())

    assert heading.split() == ["NAME", "PROGRAM", "START", "TOOK", "EXIT", "DENIED"]
    assert row.split() == ["blue", "git", "2026-01-02", "03:04:05", "1m30s", "3", "1,234"]


@pytest.mark.parametrize(("living", "took"), [({"blue"}, "running"), (set(), "-")])
def test_a_run_without_an_end_goes_on_only_if_it_lives(living: set[str], took: str) -> None:
    lost = LoggedRun("blue", "git", MOMENT - 1, None, None, 0)
    newest = LoggedRun("blue", "git", MOMENT, None, None, 0)

    _, first, second = lines_of([lost, newest], living)

    assert first.split()[4:] == ["-", "-", "0"]
    assert second.split()[4:] == [took, "-", "0"]


def test_what_was_recorded_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    statedir = tmp_path / "state"
    with closing(AuditStore(database_in(statedir), retention_days=1_000_000)) as store:
        store.record(Notice(MOMENT, "run-start", "run blue: git", run="blue"))
        store.record(a_denial(MOMENT + 1, run="blue"))

    assert main.main(["runs", "--json", "--statedir", str(statedir)]) == 0

    assert json.loads(capsys.readouterr().out) == {
        "run": "blue",
        "program": "git",
        "start": "2026-01-02T03:04:05.000006Z",
        "end": None,
        "exit_code": None,
        "denied": 1,
    }


def test_no_runs_is_said_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    AuditStore(database_in(tmp_path)).close()

    assert main.main(["runs", "--statedir", str(tmp_path)]) == 0

    assert capsys.readouterr() == ("", "claude-proxy: no runs recorded\n")
