"""A run is named as it is recorded, or as the newest."""

from contextlib import closing
from pathlib import Path

import pytest

from claude_proxy.audit.database import database_in
from claude_proxy.audit.store import AuditStore
from claude_proxy.cli.recorded_run import run_filter
from claude_proxy.errors import ConfigError
from claude_proxy.events import Notice
from tests.audit.examples import MOMENT, a_decision


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return database_in(tmp_path / "state")


def test_last_is_the_newest_run(path: Path) -> None:
    with closing(AuditStore(path, retention_days=1_000_000)) as store:
        for number, name in enumerate(("one", "two")):
            store.record(Notice(MOMENT + number, "run-start", f"run {name}: x", run=name))

    assert run_filter(path, "last").name == "two"
    assert run_filter(path, "one").name == "one"


def test_a_run_of_which_only_requests_are_left_is_found(path: Path) -> None:
    with closing(AuditStore(path, retention_days=1_000_000)) as store:
        store.record(a_decision(run="old"))

    assert run_filter(path, "old").name == "old"


@pytest.mark.parametrize(("name", "what"), [("nobody", "no run"), ("last", "no run yet")])
def test_a_run_that_was_not_is_a_mistake(path: Path, name: str, what: str) -> None:
    with closing(AuditStore(path)):
        pass

    with pytest.raises(ConfigError, match=what):
        run_filter(path, name)
