"""A migration that was shipped stays as it is, and an older file stays readable."""

import hashlib
from contextlib import closing
from pathlib import Path

import pytest

from claude_proxy.audit.database import database_in, open_for_writing
from claude_proxy.audit.queries import AuditReader, LogEntry, RunFilter, Selection
from claude_proxy.audit.schema import MIGRATIONS, VIEWS_OF_OLDER
from claude_proxy.audit.usage import UsageGrouping
from claude_proxy.events import Notice
from tests.audit.examples import rows

PEER = "pid 4711 uid 1000 /usr/bin/python3.12"
SECRET = "sk-secret"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return database_in(tmp_path / "state")


def old_file(path: Path, version: int) -> None:
    """Write what a program of that version wrote about a run with a secret in its command."""
    with closing(open_for_writing(path, migrations=MIGRATIONS[:version])) as old:
        clients = (f"{PEER}, run one: /usr/bin/git fetch --token={SECRET}, run two: x", PEER)
        for number, client in enumerate(clients, 1):
            old.execute(
                "INSERT INTO decision(id, connection, client, listener, phase, scheme, target,"
                " method, path, allowed, reason) VALUES(?, 1, ?, 'run', 'request', 'https',"
                " 'example.com:443', 'GET', '/', 1, 'rule-matched')",
                (number, client),
            )
        old.execute("INSERT INTO outcome VALUES(1, 200, 1, 2, 3.0, 4.0, NULL, NULL)")
        text = f"run one: git fetch --token={SECRET}"
        old.execute("INSERT INTO notice VALUES(3, 'run-start', ?)", (text,))
        old.execute("INSERT INTO notice VALUES(4, 'run-end', 'run one: exit code 1')")
        if version > 1:
            old.execute("INSERT INTO usage VALUES(1, ?, 'gateway', 'm', 1, 2, 3, 4)", clients[:1])


def newest(path: Path) -> list[LogEntry]:
    with AuditReader(path) as reader:
        return reader.newest(Selection(), 9)


def test_a_migration_that_was_shipped_is_never_edited() -> None:
    digests = [hashlib.sha256(script.encode()).hexdigest()[:16] for script in MIGRATIONS]

    assert digests == ["b727ca1e21b8e9d4", "f4ba843a23db7778", "a97bbcbdaf1aee60"]


def test_every_older_version_has_its_views() -> None:
    assert list(VIEWS_OF_OLDER) == list(range(1, len(MIGRATIONS)))


@pytest.mark.parametrize("version", VIEWS_OF_OLDER)
def test_an_older_file_reads_like_the_migrated_one(path: Path, version: int) -> None:
    old_file(path, version)
    before = newest(path)

    open_for_writing(path).close()

    assert newest(path) == before
    assert len(before) == 4
    with AuditReader(path) as reader:
        sums = reader.usage(UsageGrouping.RUN, run=RunFilter("one"))
    assert [one.name for one in sums] == ["one"] * (version - 1)


def test_usage_of_an_older_file_is_added_up_by_run(path: Path) -> None:
    old_file(path, 2)

    with AuditReader(path) as reader:
        assert [(one.name, one.tokens) for one in reader.usage(UsageGrouping.RUN)] == [("one", 10)]


def test_the_arguments_of_runs_are_removed_from_an_older_file(path: Path) -> None:
    old_file(path, 2)

    open_for_writing(path).close()

    assert rows(path, "SELECT client, run FROM decision") == [
        (f"{PEER}, run one: git", "one"),
        (PEER, None),
    ]
    assert rows(path, "SELECT text, run FROM notice") == [
        ("run one: git", "one"),
        ("run one: exit code 1", "one"),
    ]
    assert rows(path, f"SELECT count(*) FROM usage WHERE instr(client, '{SECRET}')") == [0]


@pytest.mark.parametrize("version", VIEWS_OF_OLDER)
def test_the_arguments_of_runs_are_not_shown_of_an_older_file(path: Path, version: int) -> None:
    old_file(path, version)

    entries = newest(path)

    assert SECRET not in str(entries)
    assert [entry.text for entry in entries if isinstance(entry, Notice)] == [
        "run one: git",
        "run one: exit code 1",
    ]
