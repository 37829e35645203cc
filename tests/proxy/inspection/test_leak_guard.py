"""The leak guard never forwards the secret, and loses or delays nothing else."""

import gzip
import html
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.policy.credentials.encodings import guarded_forms
from claude_proxy.policy.credentials.escapes import Spelling
from claude_proxy.proxy.inspection.base import ResponseCutOff
from claude_proxy.proxy.inspection.leak_guard import ECHOED, UNREADABLE, LeakGuard

VALUE = b"sk-ant-CANARY-ab-ab-abc"
GZIP = (b"Content-Encoding", b"gzip")
DEFLATE = (b"content-encoding", b"deflate")


def guard(*fields: tuple[bytes, bytes], status: int = 200) -> LeakGuard:
    found = LeakGuard([VALUE])
    found.head(status, fields)
    return found


def passed(watch: LeakGuard, pieces: Iterable[bytes]) -> tuple[bytes, str | None]:
    """Return what came out, and the word it was cut off with."""
    out = b""
    try:
        for piece in pieces:
            out += watch.feed(piece)
        return out + watch.finish(), None
    except ResponseCutOff as cut:
        return out, cut.word


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


# Out of the value's own letters, so that beginnings of it are everywhere.
NEARLY = st.lists(
    st.sampled_from([VALUE[:5], VALUE[:-1], VALUE[1:], b"s", b"ab-", b"\n", b"\x00"]), max_size=12
).map(b"".join)
CUTS = st.lists(st.integers(min_value=0), max_size=8)
type Code = Callable[[bytes], bytes]

CODINGS: dict[str, tuple[tuple[tuple[bytes, bytes], ...], Code]] = {
    "plain": ((), bytes),
    "gzip": ((GZIP,), gzip.compress),
    "deflate": ((DEFLATE,), zlib.compress),
    "bare deflate": ((DEFLATE,), bare_deflate),
}


def is_in(data: bytes) -> bool:
    """Tell whether the value is in `data`, in one line or in several."""
    kept = bytes(each for each in data if chr(each).isalnum())
    return VALUE.replace(b"-", b"") in kept


@given(NEARLY, CUTS)
def test_without_the_value_all_comes_out_unchanged(data: bytes, cuts: list[int]) -> None:
    if is_in(data):
        return
    for fields, code in CODINGS.values():
        coded = code(data)

        assert passed(guard(*fields), split(coded, cuts)) == (coded, None)


@given(NEARLY, NEARLY, CUTS)
def test_the_value_is_found_across_any_split(before: bytes, after: bytes, cuts: list[int]) -> None:
    data = before + VALUE + after
    at = data.index(VALUE)

    out, word = passed(guard(), split(data, cuts))

    assert word == ECHOED
    assert data.startswith(out)
    # A letter or two by themselves tell nobody anything; what may be more of its beginning waits.
    assert len(out) <= at + len(VALUE) // 4 - 1


@given(NEARLY, NEARLY, CUTS)
def test_the_value_is_found_in_what_is_compressed(
    before: bytes, after: bytes, cuts: list[int]
) -> None:
    data = before + VALUE + after
    for fields, code in list(CODINGS.values())[1:]:
        out, word = passed(guard(*fields), split(code(data), cuts))

        assert word == ECHOED
        window = {GZIP: 31, DEFLATE: 15}[fields[0]] if code is not bare_deflate else -15
        most = data.index(VALUE) + len(VALUE) // 4 - 1
        assert len(zlib.decompressobj(window).decompress(out)) <= most


@given(NEARLY)
def test_nothing_waits_that_cannot_become_the_value(data: bytes) -> None:
    watch = guard()

    out = watch.feed(data + b"\n\n") if not is_in(data) else data + b"\n\n"

    assert out == data + b"\n\n"


def test_a_message_that_ends_like_the_value_begins_is_not_kept_back() -> None:
    # Over a WebSocket the client may say nothing more before it has all of it.
    assert guard().feed(b"progress") == b"progress"
    assert guard().feed(b"disk") == b"disk"


def test_a_short_value_is_kept_back_from_early_on() -> None:
    watch = LeakGuard([b"8-bytes!"])

    assert watch.feed(b"x8") == b"x8"
    assert watch.feed(b"-") == b""
    with pytest.raises(ResponseCutOff):
        watch.feed(b"bytes!")


def test_a_prefix_at_the_end_is_forwarded() -> None:
    assert passed(guard(), [b"x", VALUE[:-1]]) == (b"x" + VALUE[:-1], None)


# --- escapes

SIGNS = b"k3y+of/the=owner&<his>-o'w\"n_10%25\\x\\\\y"  # whatever is escaped by somebody


def escaping(signs: str, form: str) -> Code:
    """Return what writes some characters of ASCII as `form` does."""

    def escape(value: bytes) -> bytes:
        text = value.decode()
        return "".join(form % ord(sign) if sign in signs else sign for sign in text).encode()

    return escape


def plain_of(value: bytes) -> str:
    return value.decode()


ALL = "+/=&<>-'\"_%\\"
ESCAPES: dict[str, Code] = {
    "JSON": lambda value: json.dumps(plain_of(value)).encode()[1:-1],
    "PHP": lambda value: json.dumps(plain_of(value)).replace("/", "\\/").encode()[1:-1],
    ".NET": escaping("\"&'+<>`\\", "\\u%04X"),
    "Go": lambda value: escaping("&<>", "\\u%04x")(json.dumps(plain_of(value)).encode()[1:-1]),
    "Gson": lambda value: escaping("&<>='", "\\u%04x")(json.dumps(plain_of(value)).encode()[1:-1]),
    "JSON in JSON": lambda value: json.dumps(json.dumps(plain_of(value))).encode()[3:-3],
    "PHP in JSON": lambda value: json.dumps(
        json.dumps(plain_of(value)).replace("/", "\\/")
    ).encode()[3:-3],
    "script": escaping(ALL, "\\x%02X"),
    "Django's escapejs": escaping("\\'\"><&=-;`", "\\u%04X"),
    "HTML": lambda value: html.escape(plain_of(value)).encode(),
    "HTML in HTML": lambda value: html.escape(html.escape(plain_of(value))).encode(),
    "HTML by numbers": escaping(ALL, "&#%d;"),
    "HTML by hexadecimal numbers": escaping(ALL, "&#x%02X;"),
    "mustache": escaping("&<>\"'/`=", "&#x%x;"),
    "HTML by all its names": lambda value: (
        value.replace(b"&", b"&amp;")
        .replace(b"+", b"&plus;")
        .replace(b"/", b"&sol;")
        .replace(b"=", b"&equals;")
        .replace(b"_", b"&UnderBar;")
        .replace(b"%", b"&percnt;")
    ),
    "JSON in HTML": lambda value: html.escape(json.dumps(plain_of(value))).encode()[6:-6],
    "PHP in HTML": lambda value: html.escape(
        json.dumps(plain_of(value)).replace("/", "\\/")
    ).encode()[6:-6],
    "HTML in JSON": lambda value: json.dumps(html.escape(plain_of(value))).encode()[1:-1],
    "HTML in PHP": lambda value: ESCAPES["PHP"](ESCAPES["HTML"](value)),
    "HTML in Go": lambda value: ESCAPES["Go"](ESCAPES["HTML"](value)),
    "URL": lambda value: quote(value, safe="").encode(),
    "URL in lower case": escaping(ALL, "%%%02x"),
    "URL in URL": lambda value: quote(quote(value, safe=""), safe="").encode(),
    "URL, as a path": lambda value: quote(value).encode(),
}


@pytest.mark.parametrize("way", ESCAPES)
@given(cuts=CUTS, value=st.sampled_from([SIGNS, b"/%s/" % SIGNS, b"&first-value", VALUE]))
def test_the_value_is_found_however_it_is_escaped(way: str, value: bytes, cuts: list[int]) -> None:
    watch = LeakGuard([value])
    escaped = ESCAPES[way](value)
    data = b'{"you": "' + escaped + b'"}'

    out, word = passed(watch, split(data, cuts))

    assert word == ECHOED
    assert data.startswith(out)
    assert len(out) <= data.index(escaped) + len(value) // 4 + 40  # of a sign at its beginning


@given(
    st.lists(
        st.sampled_from(
            ["\\", "%", "&", "%2", "\\u", "&#", "k3y", "\\u002", "+", "amp;", "2b", "25"]
        )
    ).map(lambda pieces: "".join(pieces).encode()),
    CUTS,
)
def test_what_only_looks_like_escapes_comes_out_unchanged(data: bytes, cuts: list[int]) -> None:
    assert passed(LeakGuard([b"k3y+of/the-owner"]), split(data, cuts)) == (data, None)


def test_a_value_of_signs_is_found_as_it_is() -> None:
    for value in (b"*" * 10, b"!!!!!!!ab"):
        assert passed(LeakGuard([value]), [b"x " + value[:5], value[5:]])[1] == ECHOED
        assert passed(LeakGuard([value]), [b"x ab ", value[1:]]) == (b"x ab " + value[1:], None)


def in_lower_case(value: bytes) -> bytes:
    quoted = quote(value, safe="").encode()
    return re.sub(rb"%..", lambda escape: escape[0].lower(), quoted)


WRITTEN: dict[str, Code] = {
    "plain": bytes,
    "URL": ESCAPES["URL"],
    "URL in lower case": in_lower_case,
    "PHP": lambda value: value.replace(b"/", b"\\/"),
    "hexadecimal": lambda value: value.hex().encode(),
}
RIGID = [
    "!Passw0/",
    "/ab/cdef",
    "+++///+++///",
    "!!abc!!/",
    "Пароль123!",
    "паролище",
    "-/" * 200,
    "a-/" * 100,
    "k" + "\\" * 300 + "/",
    "a&" * 500 + "/",
]


@pytest.mark.parametrize("way", WRITTEN)
@pytest.mark.parametrize("text", RIGID, ids=lambda text: text[:12])
@given(cuts=CUTS)
def test_a_value_that_is_mostly_signs_is_found_as_it_is_usually_written(
    text: str, way: str, cuts: list[int]
) -> None:
    value = text.encode()
    data = b'{"you": "' + WRITTEN[way](value) + b'"}'

    out, word = passed(LeakGuard(guarded_forms(value, value)), split(data, cuts))

    assert word == ECHOED
    assert len(out) <= len(b'{"you": "') + len(value) // 4 + 3  # of a sign at its beginning


TRICKY = st.lists(
    st.sampled_from([*"\\%&/+-_\"'<;#25", "u0026", "amp;", "x5c", "a"]), min_size=8, max_size=14
).map(lambda pieces: f"k{''.join(pieces)}z".encode())


@given(TRICKY, CUTS)
def test_a_value_that_looks_like_escapes_is_found_however_it_is_escaped(
    value: bytes, cuts: list[int]
) -> None:
    for code in (bytes, *(ESCAPES[way] for way in ESCAPES if "all its names" not in way)):
        data = b'{"you": "' + code(value) + b'"}'

        assert passed(LeakGuard(guarded_forms(value, value)), split(data, cuts))[1] == ECHOED


LONG_KEY = b"sk-ant-api03-" + b"AbCdEf_ghIJ-klmn" * 6
LONG_TOKEN = b"eyJhbGciOiJSUzI1NiJ9." + b"AbCd1EfGh2-IjKl3MnOp4_QrSt5UvWx6" * 40


@pytest.mark.parametrize("value", [LONG_KEY, LONG_TOKEN, SIGNS])
def test_escapes_of_what_is_used_as_a_key_are_looked_for(value: bytes) -> None:
    assert not Spelling(value).is_rigid()


@pytest.mark.parametrize(
    "value", [b"a-" * 100, b"a-" * 33, b"a" + b"\\" * 200, b"a&" * 500, b"a" + b"-" * 129]
)
def test_escapes_are_not_looked_for_where_that_could_take_long(value: bytes) -> None:
    assert Spelling(value).is_rigid()


def test_an_end_that_cannot_become_the_value_does_not_wait() -> None:
    for text in (b"data: 100%, ", b"a & b", b'say \\"', b"k3y\\n", b"k3y&nbsp;", b"k3y%20", b"k3"):
        assert LeakGuard([b"k3y+of/the-owner"]).feed(text) == text


def test_of_several_values_each_is_found() -> None:
    for value in (b"first-value", b"the-second"):
        watch = LeakGuard([b"first-value", b"the-second"])
        watch.head(200, ())

        assert passed(watch, [b"a " + value[:4], value[4:]])[1] == ECHOED


def test_a_guard_without_values_passes_everything_on() -> None:
    watch = LeakGuard([])
    watch.head(200, [(b"a", b"b")])

    assert passed(watch, [b"abc"]) == (b"abc", None)


@pytest.mark.parametrize("status", [101, 103, 200, 401, 500])
def test_a_head_with_the_value_is_cut_off(status: int) -> None:
    for field in ((b"X-Echo", b"Bearer " + VALUE), (b"X-" + VALUE, b"1")):
        with pytest.raises(ResponseCutOff) as cut:
            guard(field, status=status)

        assert cut.value.word == ECHOED
        assert "CANARY" not in str(cut.value)


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, gzip", b"gzip, br", b"compress", b"x"])
def test_what_cannot_be_read_is_cut_off(coding: bytes) -> None:
    with pytest.raises(ResponseCutOff) as cut:
        guard((b"content-encoding", coding))

    assert cut.value.word == UNREADABLE


def test_two_fields_of_codings_are_read_as_one() -> None:
    with pytest.raises(ResponseCutOff):
        guard(GZIP, GZIP)


@pytest.mark.parametrize("status", [103, 204, 304])
def test_an_answer_without_content_may_name_any_coding(status: int) -> None:
    assert guard((b"content-encoding", b"br"), status=status).finish() == b""


@pytest.mark.parametrize("coding", [b"identity", b"", b"X-GZIP"])
def test_codings_are_known_by_all_their_names(coding: bytes) -> None:
    data = gzip.compress(b"hello") if coding == b"X-GZIP" else b"hello"

    assert passed(guard((b"content-encoding", coding)), [data]) == (data, None)


@pytest.mark.parametrize(
    "data",
    [
        b"this is no gzip",
        gzip.compress(b"a") + b"garbage behind it",
        gzip.compress(b"a")[:-4] + b"\0\0\0\0",
    ],
    ids=["not gzip", "data behind the end", "wrong length"],
)
def test_damaged_gzip_is_cut_off(data: bytes) -> None:
    assert passed(guard(GZIP), [data])[1] == UNREADABLE


def test_bytes_behind_deflate_are_cut_off() -> None:
    assert passed(guard(DEFLATE), [zlib.compress(b"a"), b"more"])[1] == UNREADABLE


def test_gzip_of_several_members_is_read_on() -> None:
    data = gzip.compress(b"one") + gzip.compress(VALUE)

    assert passed(guard(GZIP), [data])[1] == ECHOED


def test_gzip_that_is_cut_short_is_passed_on_as_it_came() -> None:
    data = gzip.compress(b"hello" * 100)[:-10]

    assert passed(guard(GZIP), [data]) == (data, None)


def test_a_decompression_bomb_is_cut_off() -> None:
    bomb = gzip.compress(bytes(80 * 1024 * 1024), compresslevel=1)

    assert passed(guard(GZIP), [bomb])[1] == UNREADABLE


def test_what_waits_compressed_is_bounded() -> None:
    packer = zlib.compressobj(wbits=31)
    begun = packer.compress(VALUE[:-1]) + packer.flush(zlib.Z_SYNC_FLUSH)
    # Blocks that stand for nothing, without end.
    empty = b"\x00\x00\x00\xff\xff" * 20_000

    assert passed(guard(GZIP), [begun, empty])[1] == UNREADABLE


def test_a_stream_of_events_is_not_held_up_by_its_compression() -> None:
    packer, watch = zlib.compressobj(wbits=31), guard(GZIP)
    for _ in range(3):
        event = packer.compress(b"data: {}\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)

        assert watch.feed(event) == event


def test_more_may_stand_in_a_piece_than_is_read_at_once() -> None:
    data = gzip.compress(bytes(200_000) + VALUE)

    assert passed(guard(GZIP), [data])[1] == ECHOED


def test_no_repr_shows_the_value() -> None:
    assert repr(guard()) == "LeakGuard(set)"
