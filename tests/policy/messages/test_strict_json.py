"""JSON is read in exactly one way, or not at all."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claude_proxy.policy.messages import strict_json
from claude_proxy.policy.messages.strict_json import MAX_DEPTH, UnreadableError, read_object

# What a parser meets in the wild, and what it meets when somebody means it harm.
LONE = b"\\ud83d"
PAIR = b"\\ud83d\\ude00"
UNREADABLE = {
    "nothing": b"",
    "space": b" \n",
    "a list": b"[]",
    "a string": b'"a"',
    "a number": b"1",
    "null": b"null",
    "a byte order mark": b'\xef\xbb\xbf{"a":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without a mark": '{"a":1}'.encode("utf-16-le"),
    "Latin-1": '{"a":"é"}'.encode("latin-1"),
    "an overlong slash": b'{"a":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"a":"\xed\xa0\xbd"}',
    "beyond Unicode": b'{"a":"\xf4\x90\x80\x80"}',
    "bytes after the end": b'{"a":1}x',
    "two values": b'{"a":1}{"a":2}',
    "a comma too many": b'{"a":1,}',
    "a comment": b'{"a":1/*b*/}',
    "a single quote": b"{'a':1}",
    "a bare key": b"{a:1}",
    "an open string": b'{"a":"b}',
    "an open object": b'{"a":1',
    "a control character": b'{"a":"b\x00"}',
    "a line break in a string": b'{"a":"b\n"}',
    "our own mark": b'{"a":"\x01"}',
    "our own mark as space": b'{\x01"a":1}',
    "a form feed as space": b'{\x0c"a":1}',
    "an unknown escape": b'{"a":"\\x41"}',
    "an escape that ends early": b'{"a":"\\u00"}',
    "an escape outside a string": b'{\\"a":1}',
    "a key twice": b'{"a":1,"a":1}',
    "a key twice, further in": b'{"b":[{"a":1,"a":2}]}',
    "an escape in a key": b'{"\\u0075rl":1}',
    "an escaped quote in a key": b'{"a\\"":1}',
    "an escaped backslash in a key": b'{"a\\\\":1}',
    "an escape in a key further in": b'{"a":[{"b":{"\\u0061":1}}]}',
    "an escape in a key before space": b'{"\\u0061" \r\n\t :1}',
    "half a pair": b'{"a":"' + LONE + b'"}',
    "half a pair in capitals": b'{"a":"\\uD83D"}',
    "the other half": b'{"a":"\\uDE00"}',
    "a pair the wrong way round": b'{"a":"\\ude00\\ud83d"}',
    "halves around a pair": b'{"a":"' + LONE + PAIR + b'\\ude00"}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":[Infinity]}',
    "minus infinity": b'{"a":-Infinity}',
    "a double too large": b'{"a":1e999}',
    "a double too small": b'{"a":-1E999}',
    "a double of many digits": b'{"a":' + b"9" * 400 + b".0}",
    "an integer of 65 bits": b'{"a":18446744073709551616}',
    "a negative one of 65 bits": b'{"a":-9223372036854775809}',
    "an integer of many digits": b'{"a":' + b"1" * 5000 + b"}",
    "a leading zero": b'{"a":01}',
    "a plus": b'{"a":+1}',
    "a point alone": b'{"a":1.}',
    "hexadecimal": b'{"a":0x1}',
    "True": b'{"a":True}',
    "too deep": b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
    "much too deep": b"[" * 1_000_000,
    "too many parts": b'{"a":[' + b"1," * strict_json.MAX_PARTS + b"1]}",
    "too many containers": b'{"a":[' + b"[" * 90 + b"]" * 90 + b",[]" * 300_000 + b"]}",
    "too many strings": b'{"a":[' + b'"",' * (strict_json.MAX_STRINGS + 1) + b'""]}',
}
READABLE = {
    "nothing in it": (b"{}", {}),
    "space around it": (b' \r\n\t{"a" : 1 }\n', {"a": 1}),
    "escapes in a value": (b'{"a":"\\u0041\\n\\"\\\\\\/"}', {"a": 'A\n"\\/'}),
    "a row of backslashes": (b'{"a":"\\\\\\\\\\"","b":1}', {"a": '\\\\"', "b": 1}),
    "a colon after an escape": (b'{"a":"\\n:","b":"\\\\"}', {"a": "\n:", "b": "\\"}),
    "a pair": (b'{"a":"' + PAIR + b'"}', {"a": "\U0001f600"}),
    "backslashes before what is no surrogate": (b'{"a":"\\\\ud83d"}', {"a": "\\ud83d"}),
    "a key that is not ASCII": ('{"é":1}'.encode(), {"é": 1}),
    "the largest integers": (
        b'{"a":[18446744073709551615,-9223372036854775808]}',
        {"a": [18446744073709551615, -9223372036854775808]},
    ),
    "an exponent": (b'{"a":[1e3,1.5E-3,-0.0]}', {"a": [1000.0, 0.0015, -0.0]}),
    "a long fraction": (b'{"a":0.12345678901234567890123}', {"a": 0.12345678901234568}),
    "brackets in a string": (b'{"a":"' + b"[{" * 1000 + b'"}', {"a": "[{" * 1000}),
    "just deep enough": (
        b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}",
        None,
    ),
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_what_two_parsers_could_read_in_two_ways_is_refused(text: bytes) -> None:
    with pytest.raises(UnreadableError):
        read_object(text)


@pytest.mark.parametrize(("text", "value"), READABLE.values(), ids=READABLE)
def test_plain_json_is_read_as_it_is(text: bytes, value: Any) -> None:
    assert read_object(text) == (orjson.loads(text) if value is None else value)


def test_no_error_quotes_the_body() -> None:
    with pytest.raises(UnreadableError) as caught:
        read_object(b'{"a":"a secret","b":tru}')

    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


# Texts that are JSON, nearly JSON, and JSON with one thing changed.

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(("\\", '"', '\\"', "\ud83d", "\U0001f600", ":", "\x01", "{", "[", ","))
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)
objects = st.dictionaries(st.sampled_from(("a", "b", "\\", '"', "é", "model")), values)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    value = draw(objects | values)
    escaped = draw(st.booleans())
    space = draw(st.sampled_from((None, 1)))
    text = json.dumps(value, ensure_ascii=escaped, indent=space).encode("utf-8", "surrogatepass")
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=2))
        text = text[:at] + piece + text[at + draw(st.integers(0, 2)) :]
    return text


PIECES = (
    *(b'"', b"\\", b'\\"', b"\\u", b"\\ud83d", b"\\ude00", b"\\u0061", b"[", b"]", b"{", b"}"),
    *(b":", b",", b"1e", b"9" * 20, b"NaN", b'"a":1,', b" ", b"\x01", b"\xc3", b"\xef\xbb\xbf"),
)


@given(texts())
@example(b'{"a":1e-400}')
@example(b'{"a":-0}')
@example(b'{"a":1.7976931348623157e308}')
@example(b'{"a":179769313486231570000.0}')
def test_a_second_parser_reads_in_the_same_way_whatever_ours_allows(text: bytes) -> None:
    try:
        value = read_object(text)
    except UnreadableError:
        return

    assert value == orjson.loads(text)


@given(st.binary() | texts())
def test_the_parser_returns_an_object_or_raises_its_own_error(text: bytes) -> None:
    try:
        value = read_object(text)
    except UnreadableError:
        return

    assert isinstance(value, dict)


@given(objects)
def test_json_of_ordinary_clients_is_read(value: dict[str, Any]) -> None:
    try:
        text = orjson.dumps(value)
    except TypeError:  # half a pair, or an integer too large
        return
    # What it writes in keys (the backslash, the quote) needs an escape there.
    odd = any(_has_odd_key(inner) for inner in (value, *value.values()))
    if odd or b"null" in text:  # orjson writes so for NaN
        return

    assert read_object(text) == value


def _has_odd_key(value: Any) -> bool:
    if isinstance(value, dict):
        keys = (json.dumps(key, ensure_ascii=False) != f'"{key}"' for key in value)
        return any(keys) or any(map(_has_odd_key, value.values()))
    return isinstance(value, list) and any(map(_has_odd_key, value))


@given(objects, st.sampled_from(("a", "model", "é")), values, st.integers(1, 3))
def test_a_key_that_is_written_with_an_escape_is_never_read(
    value: dict[str, Any], key: str, item: Any, depth: int
) -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in key)
    text = json.dumps({"k": item, **value}).replace('{"k"', f'{{"{escaped}"', 1)
    text = '{"x":' * depth + text + "}" * depth

    with pytest.raises(UnreadableError):
        read_object(text.encode("utf-8", "surrogatepass"))
