"""Laws of escapes: a text is found however its characters are escaped, in bounded time."""

import json
from html import escape
from urllib.parse import quote

import pytest

from claude_proxy.policy.credentials.escapes import Spelling

TEXT = b'key-with/signs+and&"more"=1'
SPELLING = Spelling(TEXT)


@pytest.mark.parametrize(
    "escaped",
    [
        TEXT,
        json.dumps(TEXT.decode()).encode(),
        json.dumps(json.dumps(TEXT.decode())).encode(),
        quote(TEXT, safe="").encode(),
        quote(quote(TEXT, safe=""), safe="").encode(),
        escape(TEXT.decode()).encode(),
        escape(json.dumps(TEXT.decode())).encode(),
    ],
    ids=["plain", "json", "json twice", "url", "url twice", "html", "json in html"],
)
def test_a_text_is_found_in_each_spelling(escaped: bytes) -> None:
    assert SPELLING.is_in(b"before " + escaped + b" after")


def test_another_text_is_not_found() -> None:
    assert not SPELLING.is_in(TEXT.replace(b"more", b"less"))


def test_what_may_be_the_beginning_is_measured() -> None:
    assert SPELLING.begun_in(b"xx " + TEXT[:10]) == 10
    assert SPELLING.begun_in(b"nothing here") == 0


def test_a_text_of_signs_alone_is_rigid() -> None:
    assert Spelling(b"++++////").is_rigid()
    assert not SPELLING.is_rigid()


def test_no_repr_shows_the_text() -> None:
    assert "key" not in repr(SPELLING)
