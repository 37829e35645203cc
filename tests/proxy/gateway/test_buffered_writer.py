"""Strict mode sends nothing before all of a response is here, and none of the provider's words."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.settings import Gateway
from tests.proxy.gateway.calls import (
    CANARY,
    END,
    STRICT,
    an_answer,
    ask,
    content_of,
    fields_of,
    play,
    status_of,
)


def strict_answer(raw: bytes, *, gateway: Gateway = STRICT) -> bytes:
    """Return what the caller gets for what the upstream says."""
    there = play(gateway)
    there.stage.says(ask())
    return there.stage.answers(raw)


def test_strict_mode_passes_the_content_of_a_success_on_as_it_is() -> None:
    body = b'{ "content": [1.0],\n "a": "\\u00e9" }'

    answer = strict_answer(an_answer("200 OK", body, f"request-id: {CANARY}"))

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(END + body)
    assert CANARY.encode() not in answer


def test_strict_mode_sends_nothing_before_all_of_it_is_here() -> None:
    there = play(STRICT)
    there.stage.says(ask())
    raw = an_answer("200 OK", b'{"a":1}')

    before = [there.stage.answers(raw[at : at + 1]) for at in range(len(raw) - 1)]

    assert set(before) == {b""}
    assert content_of(there.stage.answers(raw[-1:])) == {"a": 1}


def test_strict_mode_passes_no_hint_on() -> None:
    there = play(STRICT)
    there.stage.says(ask())

    answer = there.stage.answers(f"HTTP/1.1 103 Hint\r\nLink: {CANARY}\r\n\r\n".encode())

    assert answer == b""


@pytest.mark.parametrize(("cut", "word"), [(-3, "upstream-cut-short"), (20, "upstream-closed")])
def test_strict_mode_makes_a_failure_of_half_an_answer(cut: int, word: str) -> None:
    there = play(STRICT)
    there.stage.says(ask())
    assert there.stage.answers(an_answer("200 OK", b'{"a":1}', f"x: {CANARY}")[:cut]) == b""

    answer = there.stage.upstream_ends()

    assert (status_of(answer), content_of(answer)["error"]["type"]) == (502, "proxy_error")
    assert CANARY.encode() not in answer
    assert there.ledger.last.error == word


def test_strict_mode_takes_an_answer_that_ends_with_its_connection() -> None:
    there = play(STRICT)
    there.stage.says(ask())
    assert there.stage.answers(b'HTTP/1.1 200 OK\r\n\r\n{"a":1}') == b""

    assert content_of(there.stage.upstream_ends()) == {"a": 1}


def test_strict_mode_bounds_what_it_keeps() -> None:
    there = play(replace(STRICT, answer_bytes=100))
    there.stage.says(ask())

    answer = there.stage.answers(an_answer("200 OK", b'"' + b"x" * 100 + b'"'))

    assert (status_of(answer), content_of(answer)["error"]["type"]) == (502, "proxy_error")
    assert there.ledger.last.error == "upstream-answer-too-large"
    assert there.stage.upstream.closed


def test_strict_mode_goes_on_after_an_error() -> None:
    there = play(STRICT)
    there.stage.says(ask())
    first = there.stage.answers(an_answer("429 Too Many", CANARY.encode(), "retry-after: 9"))
    there.stage.says(ask())
    second = there.stage.answers(an_answer())

    assert (status_of(first), status_of(second)) == (429, 200)
    assert "retry-after" not in fields_of(first)
    assert there.ledger.outcomes[0].status == 429


def test_strict_mode_records_the_status_that_its_caller_got() -> None:
    there = play(STRICT)
    there.stage.says(ask())

    there.stage.answers(an_answer("302 Found", b"", "Location: https://evil.test/"))

    assert there.ledger.last.status == 502


def test_retry_after_is_kept_if_the_owner_wants_it() -> None:
    raw = an_answer("429 Too Many", b"{}", "retry-after: 9")

    answer = strict_answer(raw, gateway=replace(STRICT, keeps_retry_after=True))

    assert fields_of(answer)["retry-after"] == "9"


_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)


@given(
    # An interim answer is followed by another one, and is not waited for here.
    status=st.integers(300, 999),
    phrase=_TEXT,
    fields=st.lists(
        st.tuples(st.from_regex(r"[a-z][a-z-]{0,9}", fullmatch=True), _TEXT), max_size=4
    ),
    body=st.binary(max_size=60),
    chunked=st.booleans(),
)
def test_strict_mode_emits_no_byte_of_an_error(
    status: int, phrase: str, fields: list[tuple[str, str]], body: bytes, *, chunked: bool
) -> None:
    """Two providers that agree on the status and on nothing else look the same."""
    extra = [f"x-{name}: {value}" for name, value in fields]
    raw = "\r\n".join([f"HTTP/1.1 {status} {phrase}", *extra]).encode()
    if chunked:
        raw += b"\r\nTransfer-Encoding: chunked\r\n\r\n"
        raw += (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    else:
        raw += b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    answer = strict_answer(raw)

    plain = strict_answer(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
    assert [_without_connection(one) for one in (answer, plain)] == [_without_connection(plain)] * 2


def _without_connection(answer: bytes) -> bytes:
    return answer.replace(b"Connection: close", b"Connection: keep-alive")
