"""What a client sent cannot move a cursor, forge a line or hide in one."""

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claude_proxy.audit.escape import escape_field, escape_line, escape_text, storable

# `st.text` leaves out surrogates unless asked for them.
ANY_TEXT = st.text(st.characters(exclude_categories=[]))
HARMFUL = [
    pytest.param("\x1b[2J", r"\x1b[2J", id="escape sequence"),
    pytest.param("a\r\nAllowed: b", r"a\x0d\x0aAllowed: b", id="line break"),
    pytest.param("\x00\x07\x08\x7f", r"\x00\x07\x08\x7f", id="C0 and DEL"),
    pytest.param("\x85\x9b31m", r"\x85\x9b31m", id="C1, among them a one-byte CSI"),
    pytest.param("\u202egpj.exe\u2066", r"\u202egpj.exe\u2066", id="bidi"),
    pytest.param("\u200b\u200d\ufeff\u2060", r"\u200b\u200d\ufeff\u2060", id="zero width"),
    pytest.param("\u2028\u2029", r"\u2028\u2029", id="Unicode's own line breaks"),
    pytest.param("\ud800\udc80", r"\ud800\udc80", id="lone surrogates"),
    pytest.param("\U000e0041\u3164\ufe0f", r"\U000e0041\u3164\ufe0f", id="invisible"),
    pytest.param("\u00a0\u3000", r"\xa0\u3000", id="spaces that are none"),
    pytest.param("\\x1b", r"\\x1b", id="what looks like an escape already"),
]


@pytest.mark.parametrize(("text", "shown"), HARMFUL)
def test_what_harms_is_spelled_out(text: str, shown: str) -> None:
    assert escape_text(text) == shown
    assert escape_field(text) == shown.replace(" ", r"\x20")


@pytest.mark.parametrize("text", ["", "/v1/messages?beta=true", "api.example.com:443", "[::1]:443"])
def test_an_ordinary_field_stays_as_it_is(text: str) -> None:
    assert escape_field(text) == text


def test_text_keeps_its_words_in_any_script() -> None:
    assert escape_text("Zulässige Namen / 許可リスト.yaml") == "Zulässige Namen / 許可リスト.yaml"


@given(ANY_TEXT)
@example("\\")
def test_a_field_is_visible_ascii_in_one_piece(text: str) -> None:
    assert re.fullmatch(r"[!-~]*", escape_field(text))


@given(ANY_TEXT)
def test_text_stays_on_its_line_and_is_seen(text: str) -> None:
    shown = escape_text(text)

    assert len(f"{shown}.".splitlines()) == 1
    assert not any(unicodedata.category(c)[0] == "C" for c in shown)
    assert shown.isprintable()


@given(ANY_TEXT)
def test_two_texts_never_print_alike(text: str) -> None:
    assert unescaped(escape_field(text)) == text
    assert unescaped(escape_text(text)) == text


@given(ANY_TEXT, st.integers(0, 50))
def test_what_is_stored_can_be_and_is_bounded(text: str, bound: int) -> None:
    kept = storable(text, bound)

    assert "\0" not in kept
    kept.encode("utf-8")
    assert len(kept) <= 10 * bound + 40


def test_what_is_cut_off_is_said() -> None:
    assert storable("abcdef", 4) == "abcd...[2 more]"
    assert storable("abcd", 4) == "abcd"


def unescaped(text: str) -> str:
    """Read an escaped text back, as whoever takes a log line apart would."""
    return re.sub(
        r"\\(?:(\\)|x(..)|u(....)|U(........))",
        lambda found: found[1] or chr(int(found[2] or found[3] or found[4], 16)),
        text,
    )


def test_a_line_of_a_file_keeps_its_tabs_and_backslashes_alone() -> None:
    assert escape_line("+\tprintf 'a\\n'") == "+\tprintf 'a\\n'"
    assert escape_line("+\x1b[31m\r\u202e\\") == r"+\x1b[31m\x0d\u202e" + "\\"
