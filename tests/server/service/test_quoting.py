"""A word is read back from a unit as it was given; one that a unit cannot contain is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.server.service import quoting

PRINTABLE = st.text().filter(lambda text: text.isprintable() and not text.endswith("\\"))


def read_as_systemd_does(line: str) -> list[str]:
    """Split a value as extract_first_word() of systemd does, then resolve its specifiers."""
    words: list[str] = []
    at = 0
    while at < len(line):
        word, at = _next_word(line, at)
        words.append(word)
    return words


def _next_word(line: str, at: int) -> tuple[str, int]:
    quote, word = "", ""
    while at < len(line):
        letter = line[at]
        at += 1
        if letter == "\\":
            word += line[at]
            at += 1
        elif letter == quote:
            quote = ""
        elif quote:
            word += letter
        elif letter in "\"'":
            quote = letter
        elif letter == " ":
            break
        else:
            word += letter
    assert not quote
    assert word.count("%") % 2 == 0
    return word.replace("%%", "%"), at


@given(st.lists(PRINTABLE, min_size=1))
def test_a_word_is_read_back_as_it_was(words: list[str]) -> None:
    line = quoting.command_of(("/x", *words))

    assert line.startswith(":")  # else systemd would look for variables in it
    assert read_as_systemd_does(line[1:] + " ") == ["/x", *words]


@pytest.mark.parametrize(
    ("word", "spelled"),
    [
        ("/opt/pipx/bin/claude-proxy", "/opt/pipx/bin/claude-proxy"),
        ("/home/a b/bin", '"/home/a b/bin"'),
        ("/home/%h/bin", "/home/%%h/bin"),
        ("/home/100% a", '"/home/100%% a"'),
        ("$HOME/bin", '"$HOME/bin"'),
        ('a"b', '"a\\"b"'),
        ("a\\b", '"a\\\\b"'),
        ("", '""'),
    ],
)
def test_a_word_is_quoted_where_it_must_be(word: str, spelled: str) -> None:
    assert quoting.word_of(word) == spelled


@pytest.mark.parametrize("text", ["a\nUser=root", "a\rb", "a\0b", "a\tb", "a\\", "\u2028"])
def test_what_would_break_a_line_is_refused(text: str) -> None:
    for spell in (quoting.word_of, quoting.path_of):
        with pytest.raises(ValueError, match="a unit file cannot contain"):
            spell(text)


@pytest.mark.parametrize("program", ["/a'b", '/a"b', "/a\\b"])
def test_a_program_that_systemd_would_not_start_is_refused(program: str) -> None:
    with pytest.raises(ValueError, match="quote or a backslash"):
        quoting.command_of((program, "serve"))
