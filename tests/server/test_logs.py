"""The log has one line per message, and nothing that clients sent."""

import io
import json
import logging
import os
import sys
from collections.abc import Iterator

import pytest

from claude_proxy.config.settings import LogFormat, Verbosity
from claude_proxy.server import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Give pytest its own handlers back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


Lines = pytest.CaptureFixture[str]


def said(capsys: Lines) -> list[str]:
    return capsys.readouterr().err.splitlines()


def fail(message: str) -> None:
    try:
        int("secret" + message)
    except ValueError:
        logging.getLogger("claude_proxy.x").exception(message)


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        (Verbosity.QUIET, ["error"]),
        (Verbosity.NORMAL, ["warning", "error"]),
        (Verbosity.VERBOSE, ["debug", "info", "warning", "error"]),
    ],
)
def test_each_verbosity_shows_its_levels(
    capsys: Lines, verbosity: Verbosity, shown: list[str]
) -> None:
    logs.configure(verbosity, LogFormat.TEXT)
    logger = logging.getLogger("claude_proxy.x")
    for say in (logger.debug, logger.info, logger.warning, logger.error):
        say("words")

    assert said(capsys) == [f"claude-proxy: {level}: words" for level in shown]


@pytest.mark.parametrize("verbosity", Verbosity)
def test_an_exception_is_one_line_with_its_type(capsys: Lines, verbosity: Verbosity) -> None:
    logs.configure(verbosity, LogFormat.TEXT)

    fail("deciding failed")

    assert said(capsys) == ["claude-proxy: error: deciding failed (ValueError)"]


@pytest.mark.parametrize("verbosity", Verbosity)
def test_a_traceback_is_shown_without_the_message_where_it_was_asked_for(
    capsys: Lines, verbosity: Verbosity
) -> None:
    logs.configure(verbosity, LogFormat.TEXT, tracebacks=True)

    fail("deciding failed")

    lines = said(capsys)
    assert lines[0] == "claude-proxy: error: deciding failed"
    assert any("test_logs.py" in line for line in lines)
    assert lines[-1] == "ValueError"
    assert not any("secretdeciding" in line for line in lines)


@pytest.mark.parametrize("exc_info", [False, True])
def test_a_line_without_an_exception_names_none(capsys: Lines, *, exc_info: bool) -> None:
    logs.configure(Verbosity.VERBOSE, LogFormat.TEXT)

    logging.getLogger("claude_proxy.x").error("words", exc_info=exc_info)

    assert said(capsys) == ["claude-proxy: error: words"]


def test_text_from_outside_cannot_move_the_cursor(capsys: Lines) -> None:
    logs.configure(Verbosity.NORMAL, LogFormat.TEXT)

    logging.getLogger("claude_proxy.x").warning("%s", "a\x1b[2J\nb\u202e")

    assert said(capsys) == ["claude-proxy: warning: a\\x1b[2J\\x0ab\\x202e"]


def test_json_has_a_time_a_level_and_the_text(capsys: Lines) -> None:
    logs.configure(Verbosity.NORMAL, LogFormat.JSON)

    logging.getLogger("claude_proxy.x").warning("a\nb")

    (line,) = map(json.loads, said(capsys))
    assert (line["level"], line["text"]) == ("warning", "a\\x0ab")
    assert len(line["ts"]) == len("2026-01-02T03:04:05Z")


@pytest.mark.parametrize("name", ["asyncio", "h2.connection", "hpack.hpack", "mitmproxy.proxy"])
def test_libraries_that_quote_their_peers_stay_silent(capsys: Lines, name: str) -> None:
    logs.configure(Verbosity.VERBOSE, LogFormat.TEXT)

    logging.getLogger(name).info("Authorization: secret")

    assert said(capsys) == []


def test_a_report_is_shown_at_every_verbosity(capsys: Lines) -> None:
    logs.configure(Verbosity.QUIET, LogFormat.TEXT)

    logs.report(["one", "two"])

    assert said(capsys) == ["claude-proxy: one", "claude-proxy: two"]


def test_a_pipe_that_nobody_reads_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "w", encoding="utf-8") as stream:  # noqa: PTH123
        monkeypatch.setattr(sys, "stderr", stream)
        logs.configure(Verbosity.NORMAL, LogFormat.TEXT)

        for _ in range(2000):
            logs.report(["x" * 100])
            logging.getLogger("claude_proxy.x").warning("y" * 100)

        os.set_blocking(reading, False)
        assert reader.read(20).startswith(b"claude-proxy: xxx")


def test_a_reader_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)

    with open(writing, "w", encoding="utf-8") as stream:  # noqa: PTH123 - of a descriptor
        logs.write(stream, "a line\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)


def test_a_stream_that_is_closed_is_no_error() -> None:
    stream = io.StringIO()
    stream.close()

    logs.write(stream, "a line\n")
