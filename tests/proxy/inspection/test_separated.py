r"""A secret is found in lines, groups and codes, wherever a piece ends; ordinary content is not."""

import base64
import json
import quopri
import random
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.credentials.encodings import guarded_forms
from claude_proxy.proxy.inspection.base import ResponseCutOff
from claude_proxy.proxy.inspection.leak_guard import ECHOED, UNREADABLE, LeakGuard
from claude_proxy.proxy.inspection.separated import SeparatedSearch

VALUE = b"sk-ant-api03-aZ9+bY8/cX7_dW6-eV5=" + b"0123456789abcdefABCDEF" * 3
FORMS = guarded_forms(VALUE, VALUE)
SHORT = b"ghp_16C7e42F292c6912E7710c838347Ae178B4a"


def lines(text: bytes, width: int, end: bytes = b"\n") -> bytes:
    return end.join(text[at : at + width] for at in range(0, len(text), width)) + end


def groups(before: str, between: str = "", base: str = "02x") -> Callable[[bytes], bytes]:
    return lambda value: between.join(f"{before}{code:{base}}" for code in value).encode()


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "MIME": base64.encodebytes,
    "MIME with CRLF": lambda text: lines(base64.b64encode(text), 76, b"\r\n"),
    "PEM": lambda text: lines(base64.b64encode(text), 64),
    "URL-safe in lines": lambda text: lines(base64.urlsafe_b64encode(text), 76),
    "narrow lines": lambda text: lines(base64.b64encode(text), 16),
    "folded with blanks": lambda text: lines(base64.b64encode(text), 60, b"\r\n "),
    "folded with tabs": lambda text: lines(base64.b64encode(text), 60, b"\n\t"),
    "groups of four": lambda text: lines(base64.b64encode(text), 4, b" "),
    "lines in JSON": lambda text: json.dumps(base64.encodebytes(text).decode()).encode(),
    "lines in JSON, CRLF": lambda text: json.dumps(
        lines(base64.b64encode(text), 76, b"\r\n").decode()
    ).encode(),
    "lines in JSON in JSON": lambda text: json.dumps(
        json.dumps(base64.encodebytes(text).decode())
    ).encode(),
    "lines in JSON, as numbers": lambda text: base64.encodebytes(text).replace(b"\n", rb"\u000a"),
    "lines in a URL": lambda text: quote(base64.encodebytes(text)).encode(),
    "lines in HTML": lambda text: base64.encodebytes(text).replace(b"\n", b"&#13;&#10;"),
    "YAML": lambda text: lines(base64.b64encode(text), 76, b"\n      "),
    "quoted in a mail": lambda text: lines(base64.b64encode(text), 76, b"\n> "),
    "string concatenation": lambda text: lines(base64.b64encode(text), 40, b'" +\n  "'),
    "soft breaks": lambda text: lines(text, 75, b"=\r\n"),
    "quoted-printable": lambda text: quopri.encodestring(text.replace(b"=", b"")),
    "UTF-16": lambda text: text.decode().encode("utf-16-le"),
    "hex": groups(""),
    "HEX": groups("", base="02X"),
    "hex with colons": groups("", ":"),
    "hex with blanks": groups("", " "),
    "hex with dashes": groups("", "-", "02X"),
    "hex in lines": lambda text: lines(text.hex().encode(), 32),
    "a dump": lambda text: lines(lines(text.hex().encode(), 4, b" "), 40),
    "C escapes": groups(r"\x"),
    "C bytes": groups("0x", ", "),
    "JSON escapes": groups(r"\u00"),
    "JSON escapes in capitals": groups(r"\u00", "", "02X"),
    "percent-encoded": groups("%", "", "02X"),
    "HTML numbers": lambda text: b"".join(b"&#%d;" % code for code in text),
    "HTML hex": lambda text: b"".join(b"&#x%x;" % code for code in text),
    "a list of codes": lambda text: json.dumps(list(text)).encode(),
    "octal": groups("\\", "", "03o"),
}


def shown(guard: LeakGuard, content: bytes, step: int) -> tuple[bytes, str | None]:
    """Return what a client gets of a response, and why it is cut off."""
    out = b""
    try:
        for at in range(0, len(content), step):
            out += guard.feed(content[at : at + step])
        out += guard.finish()
    except ResponseCutOff as cut:
        return out, cut.word
    return out, None


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("before", range(3), ids=["aligned", "one byte in", "two bytes in"])
def test_a_secret_is_found_in_every_encoding(encode: Callable[[bytes], bytes], before: int) -> None:
    content = encode(b"-" * before + VALUE + b"--")

    assert SeparatedSearch(FORMS).is_in(content)
    assert SeparatedSearch(FORMS).feed(b"before. " + content + b" and after")


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 100])
def test_a_secret_is_cut_off_wherever_a_piece_ends(
    encode: Callable[[bytes], bytes], step: int
) -> None:
    out, word = shown(LeakGuard(FORMS), b"before, " + encode(VALUE), step)

    assert word == ECHOED
    # Only a beginning that tells nothing: eight letters and digits, in the longest codes.
    assert len(out) <= len(b"before, ") + 16 * len(r"\u00ff")


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("size", [5_000, 70_000])
def test_a_secret_is_found_in_the_middle_of_much_else(
    encode: Callable[[bytes], bytes], size: int
) -> None:
    noise = random.Random(size).randbytes(size)
    content = noise + b"\n" + encode(VALUE) + b"\n" + noise

    assert SeparatedSearch(FORMS).feed(content)
    for at in range(size - 40, size + 200, 40):
        search = SeparatedSearch(FORMS)
        assert search.feed(content[:at]) or search.feed(content[at:])


@pytest.mark.parametrize("value", [SHORT, b"0123456789abcdef0123", VALUE[:24]])
@pytest.mark.parametrize("encode", [base64.encodebytes, groups("", ":")], ids=["lines", "hex"])
def test_a_short_secret_is_found_too(value: bytes, encode: Callable[[bytes], bytes]) -> None:
    for before in range(3):
        content = encode(b"x" * before + value + b"x" * 40)
        assert SeparatedSearch(guarded_forms(value, value)).is_in(content)


def test_a_secret_in_lines_is_found_in_a_head_and_in_trailers() -> None:
    folded = lines(base64.b64encode(VALUE), 60, b" ")

    for status in (103, 200):
        with pytest.raises(ResponseCutOff):
            LeakGuard(FORMS).head(status, [(b"X-Debug", folded)])


ORDINARY = {
    "prose": b"the quick brown fox jumps over the lazy dog\n" * 3000,
    "numbers": b", ".join(b"%d" % number for number in range(20_000)),
    "Base64": base64.encodebytes(random.Random(1).randbytes(100_000)),
    "hex": lines(random.Random(2).randbytes(100_000).hex().encode(), 32),
    "JSON": json.dumps([{"text": "a\nb\u00e9", "key": "sk-ant-"}] * 3000).encode(),
    "random": random.Random(3).randbytes(200_000),
    "nothing": bytes(100_000),
    "the beginning of every key": b"sk-ant-api03-" * 3000,
    "its beginning in Base64": base64.b64encode(b"sk-ant-api03-") * 3000,
}


@pytest.mark.parametrize("content", ORDINARY.values(), ids=ORDINARY)
@pytest.mark.parametrize("step", [999, 16_384, 65_536])
def test_ordinary_content_passes_unchanged(content: bytes, step: int) -> None:
    assert shown(LeakGuard(FORMS), content, step) == (content, None)


def test_words_with_the_letters_of_a_phrase_are_not_the_phrase() -> None:
    phrase = b"correct-horse-battery-staple"
    content = b"the correct horse: battery, staple"

    assert shown(LeakGuard(guarded_forms(phrase, phrase)), content, 5) == (content, None)


def test_the_end_of_an_event_is_not_held_back() -> None:
    event = b"data: c2stYW50LWFwaTAz\n\n"

    assert LeakGuard(FORMS).feed(event) == event


def test_what_may_be_the_beginning_is_held_back_and_given_when_it_is_not() -> None:
    guard = LeakGuard(FORMS)
    begun = base64.b64encode(VALUE)[:40] + b"\n"

    assert guard.feed(begun) == b""
    assert guard.feed(b"something else") == begun + b"something else"


def test_a_beginning_that_never_ends_is_cut_off() -> None:
    content = base64.b64encode(VALUE)[:40] + b" " * 2_000_000

    assert shown(LeakGuard(FORMS), content, 65_536) == (b"", UNREADABLE)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
def test_pieces_find_what_the_whole_has(content: bytes, cuts: list[int]) -> None:
    content = content[:200] + base64.encodebytes(VALUE) + content[200:]
    at = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    search = SeparatedSearch(FORMS)

    assert any(search.feed(content[first:last]) for first, last in pairwise(at))
