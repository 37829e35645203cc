"""A mark shows who wrote a file, with which command, and whether it was changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.server.service.file_marks import marked, read_mark

WORDS = ("service", "install", "--system", "--", "--jsonl=/var/log/a b.jsonl")
TEXT = "[Service]\nExecStart=:/x\n"


def test_a_mark_is_read_back() -> None:
    mark = read_mark(marked(TEXT, "1.2", WORDS))

    assert mark is not None
    assert (mark.version, mark.words, mark.changed, mark.text) == ("1.2", WORDS, False, TEXT)


def test_a_change_below_the_mark_is_seen() -> None:
    mark = read_mark(marked(TEXT, "1.2", WORDS) + "User=root\n")

    assert mark is not None
    assert mark.changed


@pytest.mark.parametrize(
    "text", ["", TEXT, "# Written by somebody\n", "\n" + marked(TEXT, "1", ())]
)
def test_a_file_without_a_mark_was_not_written_by_claude_proxy(text: str) -> None:
    assert read_mark(text) is None


def test_a_mark_with_an_invalid_command_is_ignored() -> None:
    assert read_mark(marked(TEXT, "1", ()).replace(": claude-proxy", ": claude-proxy '")) is None


def test_a_word_that_would_end_the_line_is_refused() -> None:
    with pytest.raises(ValueError, match="a unit file cannot contain"):
        marked(TEXT, "1", ("a\nUser=root",))


@given(st.text())
def test_any_text_is_read_or_has_no_mark(text: str) -> None:
    mark = read_mark(text)

    assert mark is None or isinstance(mark.words, tuple)
