"""The audit file belongs to its owner only and has the right schema, or the start is refused."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from claude_proxy.audit import database
from claude_proxy.audit.database import (
    connect,
    database_in,
    open_for_writing,
    shm_of,
    shrink,
    wal_of,
)
from claude_proxy.audit.queries import AuditReader, LoggedAttempt, Selection
from claude_proxy.audit.schema import APPLICATION_ID, MIGRATIONS
from claude_proxy.errors import ConfigError
from claude_proxy.events import DecisionMade, Notice, OutcomeSeen, Phase
from tests.audit.examples import rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return database_in(tmp_path / "state" / "claude-proxy")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        open_for_writing(path, patience_s=0.02)
    assert caught.value.where
    assert caught.value.fix
    return caught.value


@pytest.fixture
def free_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("free_umask")
def test_new_files_are_readable_by_their_owner_only(path: Path) -> None:
    with closing(open_for_writing(path)):
        made = [path, wal_of(path), shm_of(path)]

        assert [mode_of(file) for file in made] == [0o600] * 3
        assert [mode_of(place) for place in path.parents[:2]] == [0o700] * 2


def test_a_file_that_others_could_read_is_closed_to_them(path: Path) -> None:
    open_for_writing(path).close()
    path.chmod(0o644)

    open_for_writing(path).close()

    assert mode_of(path) == 0o600


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_directory_that_others_can_write_is_refused(path: Path, mode: int) -> None:
    path.parent.mkdir(parents=True)
    path.parent.chmod(mode)

    assert "others than its owner" in refusal(path).what


@pytest.mark.parametrize("name", ["audit.sqlite3", "audit.sqlite3-wal", "audit.sqlite3-shm"])
def test_a_file_that_others_can_write_is_refused(path: Path, name: str) -> None:
    open_for_writing(path).close()
    file = path.with_name(name)
    file.touch()
    file.chmod(0o620)

    assert "others than its owner" in refusal(path).what


@pytest.mark.parametrize("name", ["audit.sqlite3", "audit.sqlite3-wal", "audit.sqlite3-shm"])
def test_a_link_in_place_of_a_file_is_refused(path: Path, tmp_path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, mode=0o700)
    path.with_name(name).symlink_to(tmp_path / "elsewhere")

    assert "not a regular file" in refusal(path).what
    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir(parents=True, mode=0o700)

    assert "not a regular file" in refusal(path).what


def test_what_belongs_to_another_user_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_for_writing(path).close()
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)

    assert "another user" in refusal(path).what


def test_a_file_of_another_user_in_our_directory_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_for_writing(path).close()
    owners = iter([path.stat().st_uid, path.stat().st_uid + 1])
    monkeypatch.setattr(os, "geteuid", lambda: next(owners))

    assert "the audit log belongs to another user" in refusal(path).what


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert "cannot be created" in refusal(database_in(tmp_path / "file" / "state")).what


def test_a_directory_that_cannot_be_written_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere

    assert "not writable" in refusal(path).what


def test_a_file_that_cannot_be_made_is_refused(path: Path) -> None:
    too_long = path.with_name("a" * 300)

    assert "cannot be created" in refusal(too_long).what


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_bytes(b"not a database" * 1000)
    path.chmod(0o600)

    assert "not a database" in refusal(path).what
    assert path.read_bytes().startswith(b"not a database")


def test_a_database_of_something_else_is_refused(path: Path) -> None:
    path.parent.mkdir(parents=True, mode=0o700)
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE cookies(secret)")
    path.chmod(0o600)

    assert "another program" in refusal(path).what
    assert rows(path, "SELECT name FROM sqlite_schema") == ["cookies"]


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    with closing(open_for_writing(path)) as connection:
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")

    assert "newer" in refusal(path).what


def test_an_older_file_is_migrated_and_keeps_its_rows(path: Path) -> None:
    first = "CREATE TABLE old(a); INSERT INTO old VALUES(1)"
    open_for_writing(path, migrations=[first]).close()

    second = "CREATE TABLE new(b); INSERT INTO new SELECT a + 1 FROM old; DROP TABLE old"
    open_for_writing(path, migrations=[first, second]).close()

    assert rows(path, "PRAGMA user_version") == [2]
    assert rows(path, "SELECT b FROM new") == [2]
    assert rows(path, "PRAGMA application_id") == [APPLICATION_ID]


def test_a_file_of_the_first_schema_keeps_its_rows_and_learns_the_rest(path: Path) -> None:
    with closing(open_for_writing(path, migrations=MIGRATIONS[:1])) as old:
        old.execute(
            "INSERT INTO decision VALUES(7, 1, 'client', 'listener', 'request', 'https',"
            " 'example.com:443', 'GET', '/', 1, 'rule-matched', 'example.com', 'list.yaml:1')"
        )
        old.execute("INSERT INTO outcome VALUES(7, 200, 1, 2, 3.0, 4.0, '203.0.113.5:443', NULL)")
        old.execute("INSERT INTO notice VALUES(8, 'start', 'listening')")

    open_for_writing(path).close()

    assert rows(path, "PRAGMA user_version") == [len(MIGRATIONS)]
    with AuditReader(path) as reader:
        attempt, notice = reader.newest(Selection(), 9)
    assert attempt == LoggedAttempt(
        DecisionMade(
            7,
            1,
            "client",
            "listener",
            Phase.REQUEST,
            "https",
            "example.com:443",
            "GET",
            "/",
            True,
            "rule-matched",
            "example.com",
            "list.yaml:1",
            None,
        ),
        OutcomeSeen(7, 200, 1, 2, 3.0, 4.0, "203.0.113.5:443", None, None),
    )
    assert notice == Notice(8, "start", "listening")


def test_an_older_program_says_that_the_file_is_newer(path: Path) -> None:
    open_for_writing(path).close()

    with pytest.raises(ConfigError, match="newer claude-proxy"):
        open_for_writing(path, migrations=MIGRATIONS[:1])


def test_no_column_has_room_for_a_header_a_body_or_the_value_of_a_credential(path: Path) -> None:
    open_for_writing(path).close()

    columns = "SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c"
    found: dict[str, list[str]] = {}
    for table, column in rows(path, f"{columns} WHERE m.type = 'table'"):
        found.setdefault(table, []).append(column)
    # Whoever adds one here says what keeps a secret out of it.
    attempt = ["id", "connection", "client", "listener", "phase", "scheme", "target", "method"]
    tokens = ["tokens_in", "tokens_out", "cache_written", "cache_read"]
    assert found == {
        "decision": [
            *attempt,
            *("path", "allowed", "reason", "rule", "rule_source", "credential"),
            *("run", "attempt", "at", "count", "last"),
        ],
        "outcome": [
            "decision",
            "status",
            "bytes_up",
            "bytes_down",
            "duration_ms",
            "first_byte_ms",
            "upstream",
            "error",
        ],
        "notice": ["id", "kind", "text", "run", "at"],
        "checkpoint": ["at"],
        "usage": ["decision", "client", "credential", "model", *tokens, "run", "at"],
    }


def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    first = "CREATE TABLE old(a)"
    open_for_writing(path, migrations=[first]).close()

    with pytest.raises(ConfigError, match="cannot be used"):
        open_for_writing(path, migrations=[first, "CREATE TABLE new(b); CREATE TABLE old(a)"])

    assert rows(path, "PRAGMA user_version") == [1]
    assert rows(path, "SELECT name FROM sqlite_schema") == ["old"]


def test_a_file_system_without_a_write_ahead_log_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SQLite's own case of one: a database in memory.
    monkeypatch.setattr(
        database, "connect", lambda *_, **__: sqlite3.connect(":memory:", isolation_level=None)
    )

    assert "write-ahead log" in refusal(path).what


def test_a_file_that_cannot_be_opened_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        database, "connect", lambda *_, **__: connect(path.with_name("absent"), mode="ro")
    )

    assert "cannot be used" in refusal(path).what


def test_a_file_that_another_program_holds_is_refused_in_the_end(path: Path) -> None:
    path.parent.mkdir(parents=True, mode=0o700)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        path.chmod(0o600)
        other.execute("BEGIN EXCLUSIVE")

        assert "locked" in refusal(path).what


def test_a_file_whose_mode_cannot_be_changed_is_tried_again_and_refused_in_the_end(
    path: Path,
) -> None:
    path.parent.mkdir(parents=True, mode=0o700)
    path.touch()
    with closing(connect(path)) as other, closing(connect(path, timeout_s=0)) as connection:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(sqlite3.OperationalError, match="locked"):
            database._set_wal(connection, path, 0.02)


def test_many_that_start_at_once_all_succeed(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for connection in pool.map(lambda _: open_for_writing(path), range(16)):
            connection.close()

    assert rows(path, "PRAGMA journal_mode") == ["wal"]
    assert rows(path, "SELECT count(*) FROM decision") == [0]


def test_a_name_with_what_uris_treat_specially_is_a_name(tmp_path: Path) -> None:
    path = database_in(tmp_path / "a?mode=memory#b%41")

    open_for_writing(path).close()

    assert path.exists()


def filled(path: Path, monkeypatch: pytest.MonkeyPatch) -> sqlite3.Connection:
    """Return a connection to a file of which retention has freed nearly everything."""
    monkeypatch.setattr(database, "_WORTH_SHRINKING_BYTES", 100_000)
    connection = open_for_writing(path)
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
        " INSERT INTO notice(id, kind, text) SELECT i, 'kind', hex(zeroblob(300)) FROM n"
    )
    connection.execute("DELETE FROM notice WHERE id > 1")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return connection


def test_unused_space_is_returned_to_the_file_system(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(filled(path, monkeypatch)) as connection:
        before = path.stat().st_size

        shrink(connection, path)

        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert path.stat().st_size < before / 5
        assert rows(path, "SELECT id FROM notice") == [1]
        assert rows(path, "PRAGMA journal_mode") == ["wal"]
        assert wal_of(path).exists()


def test_another_proxy_at_work_is_not_held_up_for_space(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(filled(path, monkeypatch)) as connection, closing(connect(path)) as other:
        other.execute("INSERT INTO notice(id, kind, text) VALUES(2, 'kind', 'text')")
        before = rows(path, "PRAGMA page_count")

        shrink(connection, path)

        assert rows(path, "PRAGMA page_count") == before
        assert rows(path, "SELECT id FROM notice") == [1, 2]
        assert rows(path, "PRAGMA journal_mode") == ["wal"]


def test_a_file_that_is_well_filled_is_not_rewritten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_for_writing(path)) as connection:
        before = rows(path, "PRAGMA schema_version")

        shrink(connection, path)
        monkeypatch.setattr(database, "_WORTH_SHRINKING_BYTES", 0)
        connection.execute("INSERT INTO notice(id, kind, text) VALUES(1, 'kind', 'text')")
        shrink(connection, path)

        assert rows(path, "PRAGMA schema_version") == before
