"""Files are copied completely, errors are told, and unread input is left for the next program."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from claude_proxy.sandbox import stream_pump


class Pump:
    """The program, with ends of its pipes as COMMAND has them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._words: list[str] = []
        self._passed: list[int] = []
        until, self._lifeline = os.pipe()
        self._until = until

    def input(self, file: int) -> int:
        reading, writing = os.pipe()
        self._words.append(f"in={file},{writing},{reading}")
        self._passed += [file, writing, reading]
        return os.dup(reading)

    def output(self, file: int) -> int:
        reading, writing = os.pipe()
        self._words.append(f"out={reading},{file}")
        self._passed += [reading, file]
        return writing

    def start(self) -> None:
        words = [sys.executable, "-I", "-S", stream_pump.__file__, str(self._until), *self._words]
        self.process = subprocess.Popen(words, pass_fds=(self._until, *self._passed))
        self._stack.callback(self.process.wait)
        self._stack.callback(self.process.kill)
        for descriptor in (self._until, *self._passed):
            os.close(descriptor)

    def end(self) -> int:
        os.close(self._lifeline)
        return self.process.wait(60)


@pytest.fixture
def pump() -> Iterator[Pump]:
    with ExitStack() as stack:
        yield Pump(stack)


def fill(writing: int) -> None:
    """Write until nobody can read it any more."""
    while True:
        os.write(writing, b"more\n" * 1000)


def opened(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o600)


def test_input_is_copied_to_its_end(pump: Pump, tmp_path: Path) -> None:
    content = b"0123456789" * 50_000
    (tmp_path / "in").write_bytes(content)
    reading = pump.input(opened(tmp_path / "in", os.O_RDONLY))
    pump.start()

    with os.fdopen(reading, "rb") as file:
        assert file.read() == content
    assert pump.end() == 0


def test_what_was_not_read_is_left_for_the_next_program(pump: Pump, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"one\n" * 100_000)
    source = opened(tmp_path / "in", os.O_RDONLY)
    kept = os.dup(source)
    reading = pump.input(source)
    pump.start()

    assert os.read(reading, 4) == b"one\n"
    pump.end()

    assert os.lseek(kept, 0, os.SEEK_CUR) == 4
    os.close(kept)
    os.close(reading)


@pytest.mark.parametrize("flags", [os.O_APPEND, 0])
def test_output_is_written_as_the_file_was_opened(pump: Pump, tmp_path: Path, flags: int) -> None:
    (tmp_path / "out").write_bytes(b"before\n")
    writing = pump.output(opened(tmp_path / "out", os.O_WRONLY | flags))
    pump.start()

    os.write(writing, b"x\n")
    os.close(writing)

    assert pump.end() == 0
    expected = b"before\nx\n" if flags else b"x\nfore\n"
    assert (tmp_path / "out").read_bytes() == expected


def test_it_ends_while_an_input_that_is_no_file_keeps_it_waiting(
    pump: Pump, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    source = os.open(tmp_path / "fifo", os.O_RDWR)
    writing = os.dup(source)
    reading = pump.input(source)
    pump.start()
    os.write(writing, b"one\n")

    assert os.read(reading, 10) == b"one\n"
    assert pump.end() == 0
    os.close(reading)
    os.close(writing)


def test_it_does_not_end_before_everything_is_written(pump: Pump, tmp_path: Path) -> None:
    writing = pump.output(opened(tmp_path / "out", os.O_WRONLY))
    pump.start()

    os.close(pump._lifeline)
    pump._lifeline = os.open(os.devnull, os.O_RDONLY)
    os.write(writing, b"late\n")
    os.close(writing)

    assert pump.end() == 0
    assert (tmp_path / "out").read_bytes() == b"late\n"


def test_an_output_that_cannot_be_written_is_an_error(pump: Pump) -> None:
    writing = pump.output(os.open("/dev/full", os.O_WRONLY))
    pump.start()

    os.write(writing, b"lost\n")

    with pytest.raises(BrokenPipeError):
        fill(writing)
    os.close(writing)
    assert pump.end() == errno.ENOSPC
