"""COMMAND gets no file and no directory as a standard stream, and its files get all it wrote."""

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import open_log
from claude_proxy.sandbox.standard_streams import Streams


@contextmanager
def as_stream(number: int, path: Path | str, flags: int) -> Iterator[None]:
    """Make a file one of our own standard streams for a while."""
    kept, descriptor = os.dup(number), os.open(path, flags | (os.O_CREAT if flags else 0), 0o600)
    os.dup2(descriptor, number)
    os.close(descriptor)
    try:
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


@contextmanager
def streams_of(tmp_path: Path) -> Iterator[Streams]:
    with (
        RunDirectory.make(("true",)) as directory,
        closing(open_log(tmp_path / "state", directory.name)) as log,
        Streams.of((None, None, None), directory, log) as made,
    ):
        yield made


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory for runs whose path is short enough for the name of a socket."""
    with tempfile.TemporaryDirectory(prefix="run-") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield


def kinds(streams: Streams) -> list[bool | None]:
    """Return for each stream whether it is a pipe of COMMAND's; None: the caller's own."""
    return [
        None if one is None else stat.S_ISFIFO(os.fstat(one).st_mode)  # type: ignore[arg-type]
        for one in streams.of_command
    ]


def test_a_file_is_a_pipe_inside_and_the_null_device_itself(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"text")

    with as_stream(0, tmp_path / "in", os.O_RDONLY), streams_of(tmp_path) as made:
        assert kinds(made)[0] is True
    with as_stream(0, os.devnull, os.O_RDONLY), streams_of(tmp_path) as made:
        assert kinds(made)[0] is None


def test_a_pipe_stays_as_it_is_unless_it_has_a_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reading, writing = os.pipe()

    with as_stream(0, tmp_path / "fifo", os.O_RDWR), streams_of(tmp_path) as made:
        assert kinds(made)[0] is True
    with as_stream(0, f"/proc/self/fd/{reading}", os.O_RDONLY), streams_of(tmp_path) as made:
        assert kinds(made)[0] is None
    os.close(reading)
    os.close(writing)


def test_one_file_for_output_and_errors_is_one_pipe(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        as_stream(1, out, os.O_WRONLY),
        as_stream(2, out, os.O_WRONLY),
        streams_of(tmp_path) as made,
    ):
        _, output, errors = made.of_command
        script = "echo one; echo two >&2; echo three"
        subprocess.run(["sh", "-c", script], stdout=output, stderr=errors, check=True)
        code = made.finish(0, pytest.fail)

    assert code == 0
    assert out.read_bytes() == b"one\ntwo\nthree\n"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with (
        as_stream(0, tmp_path, os.O_RDONLY),
        pytest.raises(ConfigError, match="standard input is a directory"),
        streams_of(tmp_path),
    ):
        pass


@pytest.mark.parametrize(("code", "expected"), [(0, 74), (141, 74), (3, 3)])
def test_lost_output_is_said_and_is_no_success(tmp_path: Path, code: int, expected: int) -> None:
    said: list[str] = []
    # Opened for reading, so that nothing can be written.
    (tmp_path / "out").touch()
    with as_stream(1, tmp_path / "out", os.O_RDONLY), streams_of(tmp_path) as made:
        subprocess.run(["echo", "lost"], stdout=made.of_command[1], check=True)
        ended = made.finish(code, said.append)

    assert ended == expected
    assert said == ["warning: the output of COMMAND is not complete: bad file descriptor"]
