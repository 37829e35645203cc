"""The write-ahead log is copied into the database without the thread that decides."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection

import pytest

from claude_proxy.audit import checkpoint as checkpoint_module
from claude_proxy.audit.checkpoint import Checkpointer, checkpoint
from claude_proxy.audit.database import connect, database_in, open_for_writing, wal_of
from tests.audit.examples import rows

# A slow disk lets the writer run ahead of the checkpoint: this much of it is some 100 MB.
_AT_MOST = 50_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return database_in(tmp_path / "state")


@pytest.fixture
def writer(path: Path) -> Iterator[Connection]:
    with closing(open_for_writing(path)) as connection:
        write(connection, 1, 100)
        yield connection


def write(connection: Connection, first: int, count: int) -> None:
    for number in range(first, first + count):
        connection.execute(
            "INSERT INTO notice(id, kind, text) VALUES(?, 'kind', 'text')", (number,)
        )


def in_the_database_itself(path: Path) -> list[object]:
    """Return what is there without the write-ahead log."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    return rows(copy, "SELECT count(*) FROM notice")


def header(path: Path) -> bytes:
    """Return the salts of the write-ahead log; they change when it restarts."""
    return wal_of(path).read_bytes()[16:24]


@pytest.mark.usefixtures("writer")
def test_a_checkpoint_copies_everything_into_the_database(path: Path) -> None:
    checkpoint(path)

    assert in_the_database_itself(path) == [100]


def test_the_checkpoint_restarts_the_log_not_the_next_decision(
    writer: Connection, path: Path
) -> None:
    before = header(path)

    checkpoint(path)

    after = header(path)
    assert after != before
    write(writer, 101, 1)
    assert header(path) == after


@pytest.mark.usefixtures("writer")
def test_the_size_of_the_log_says_how_full_it_is(path: Path) -> None:
    before = wal_of(path).stat().st_size

    checkpoint(path)

    assert wal_of(path).stat().st_size < before / 10


@pytest.mark.usefixtures("writer")
def test_a_reader_only_keeps_the_log_from_restarting(path: Path) -> None:
    with closing(connect(path, mode="ro")) as reader:
        reading = reader.execute("SELECT id FROM notice")
        reading.fetchone()
        before = header(path)

        checkpoint(path)

        assert header(path) == before
    assert rows(path, "SELECT count(*) FROM notice") == [100]


def test_a_log_in_constant_use_restarts_when_it_is_too_large(
    writer: Connection, path: Path
) -> None:
    enough, before = threading.Event(), header(path)

    def keep_writing() -> None:
        for number in range(101, _AT_MOST):
            if enough.is_set():
                break
            write(writer, number, 1)

    with ThreadPoolExecutor() as pool:
        written = pool.submit(keep_writing)
        try:
            checkpoint(path, too_much_bytes=1)
        finally:
            enough.set()

    assert written.exception() is None
    assert header(path) != before


def test_a_restart_does_not_wait_for_a_reader_of_older_rows(writer: Connection, path: Path) -> None:
    with closing(connect(path, mode="ro")) as reader:
        reading = reader.execute("SELECT id FROM notice")
        reading.fetchone()
        write(writer, 101, 5)
        before = header(path)

        checkpoint(path, too_much_bytes=1)

        assert header(path) == before
    assert rows(path, "SELECT count(*) FROM notice") == [105]


def test_a_writer_does_not_wait_until_a_reader_leaves(writer: Connection, path: Path) -> None:
    enough = threading.Event()

    def keep_checkpointing() -> None:
        while not enough.is_set():
            checkpoint(path, too_much_bytes=1)

    with closing(connect(path, mode="ro")) as reader, ThreadPoolExecutor() as pool:
        reader.execute("BEGIN")
        reader.execute("SELECT id FROM notice").fetchone()
        restarting = pool.submit(keep_checkpointing)
        try:
            for number in range(101, 301):
                write(writer, number, 1)  # raises if it waits for a second in vain
        finally:
            enough.set()

    assert restarting.exception() is None
    assert rows(path, "SELECT count(*) FROM notice") == [300]


def eventually(holds: Callable[[], bool]) -> None:
    pause = threading.Event()
    assert any(holds() or pause.wait(0.01) for _ in range(6000))


@pytest.fixture
def checkpointer(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkpointer]:
    monkeypatch.setattr(checkpoint_module, "_PAUSE_S", 0.01)
    checkpointer = Checkpointer(path)
    yield checkpointer
    checkpointer.close()
    assert not checkpointer._thread.is_alive()


@pytest.mark.usefixtures("writer")
def test_the_thread_checkpoints_when_woken(path: Path, checkpointer: Checkpointer) -> None:
    before = header(path)

    checkpointer.wake()

    eventually(lambda: header(path) != before)
    assert in_the_database_itself(path) == [100]


def test_the_thread_outlives_a_file_that_is_not_there(
    path: Path, checkpointer: Checkpointer
) -> None:
    checkpointer.wake()
    eventually(lambda: not checkpointer._wake.is_set())

    with closing(open_for_writing(path)) as writer:
        write(writer, 1, 10)
        before = header(path)

        checkpointer.wake()

        eventually(lambda: header(path) != before)


def test_a_thread_that_was_never_woken_ends(checkpointer: Checkpointer) -> None:
    checkpointer.close()

    assert not checkpointer._thread.is_alive()
