"""Laws of the PROXY protocol header, by which a relay names its run."""

import struct
import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.wire.proxy_protocol import SIGNATURE, Announcement, asking, encode, read

ENCODABLE = st.text(st.characters(exclude_categories=["Cs"])).filter(
    lambda text: len(text.encode()) <= 255
)


def header(*values: tuple[int, bytes], command: int = 0x21, family: int = 0) -> bytes:
    block = b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in values)
    return raw_header(block, command=command, family=family)


def raw_header(block: bytes, *, command: int = 0x21, family: int = 0) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block)) + block


HEADERS = st.builds(
    raw_header,
    st.binary(max_size=40) | st.builds(lambda data: b"\xe0\x00" + data, st.binary(max_size=40)),
    command=st.sampled_from([0x20, 0x21]) | st.integers(0, 255),
    family=st.sampled_from([0, 0x11, 0x21]) | st.integers(0, 255),
)


def outcome(data: bytes) -> Announcement | str | None:
    try:
        return read(bytearray(data))
    except ValueError:
        return "refused"


@given(name=ENCODABLE, program=ENCODABLE, token=ENCODABLE, rest=st.binary())
def test_what_was_announced_is_read_and_nothing_after_it(
    name: str, program: str, token: str, rest: bytes
) -> None:
    buffer = bytearray(encode(name, program, token) + rest)

    assert read(buffer) == Announcement(name, program, token)
    assert buffer == rest


def test_the_header_is_that_of_the_specification() -> None:
    assert encode("n", "cc", "t") == (
        b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"  # signature
        b"\x21\x00\x00\x0d"  # version 2, PROXY; UNSPEC; 13 bytes follow
        b"\xe0\x00\x01n\xe1\x00\x02cc\xe2\x00\x01t"
    )


@given(name=ENCODABLE, program=ENCODABLE)
def test_a_header_is_whole_with_its_last_byte_and_not_before(name: str, program: str) -> None:
    whole = encode(name, program, "token")

    for size in range(len(whole)):
        buffer = bytearray(whole[:size])
        assert read(buffer) is None
        assert buffer == whole[:size]


@given(data=st.binary() | HEADERS | HEADERS.map(lambda data: data[:20]))
def test_any_bytes_give_a_value_or_a_wait_or_a_value_error(data: bytes) -> None:
    buffer = bytearray(data)
    found = None

    with suppress(ValueError):
        found = read(buffer)

    assert data.endswith(buffer)
    assert (buffer == data) == (found is None)


@given(data=HEADERS, tail=st.binary(max_size=5))
def test_however_the_bytes_arrive_they_mean_the_same(data: bytes, tail: bytes) -> None:
    whole = data + tail

    first = next((found for end in range(len(whole)) if (found := outcome(whole[:end]))), None)

    assert (first or outcome(whole)) == outcome(whole)


@given(size=st.integers(0, 2000))
def test_a_header_of_more_than_a_kibibyte_is_refused(size: int) -> None:
    waiting = SIGNATURE + struct.pack("!BBH", 0x21, 0, size)

    assert (outcome(waiting) == "refused") == (len(waiting) + size > 1024)


@pytest.mark.parametrize("text", ["a\r\nb", "\x1b[31m", "\u202eevil", "\x00", "né"])
def test_a_name_may_contain_any_characters(text: str) -> None:
    assert read(bytearray(encode(text, text, text))) == Announcement(text, text, text)


@pytest.mark.parametrize(
    ("text", "cut"),
    [("x" * 300, "x" * 255), ("€" * 86, "€" * 85), ("\udcff", "\\udcff"), ("é" * 200, "é" * 127)],
)
def test_what_does_not_fit_is_cut_at_the_end_of_a_character(text: str, cut: str) -> None:
    assert read(bytearray(encode(text, text, text))) == Announcement(cut, cut, cut)


@pytest.mark.parametrize(("family", "size"), [(0x11, 12), (0x21, 36), (0x31, 216), (0, 0)])
@pytest.mark.parametrize("command", [0x20, 0x21])
def test_addresses_and_unknown_values_are_skipped(command: int, family: int, size: int) -> None:
    block = b"\xff" * size + b"\x04\x00\x02zz" + b"\xe0\x00\x01n"

    found = read(bytearray(raw_header(block, command=command, family=family)))

    assert found == Announcement("n", "", "")


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"\x05\x01\x00",
        SIGNATURE[:-1] + b"x",
        header(command=0x11),
        header(command=0x22),
        header(family=0x41),
        raw_header(b"\0" * 11, family=0x11),
        raw_header(b"\xe0"),
        raw_header(b"\xe0\x00\x02n"),
        header((0xE0, b"n"), (0xE0, b"n")),
        header((0xE0, b"\xff")),
        header((0xE1, b"x" * 256)),
    ],
)
def test_what_is_no_header_of_the_specification_is_refused(data: bytes) -> None:
    buffer = bytearray(data)

    with pytest.raises(ValueError, match=r"."):
        read(buffer)

    assert buffer == data


def test_reading_it_needs_no_heavy_module() -> None:
    code = (
        "import sys; from claude_proxy.wire import proxy_protocol;"
        "print(*{'dataclasses', 'typing', 'click', 'mitmproxy', 're'} & set(sys.modules))"
    )

    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == []


def test_a_header_that_asks_about_a_name_says_all_that_it_said_before() -> None:
    header = encode("run", "program", "token", "proof")

    found = read(bytearray(asking(header, "a.example")))

    assert found == Announcement("run", "program", "token", "proof", "a.example")


def test_a_relay_without_a_header_of_its_own_can_ask_as_well() -> None:
    assert read(bytearray(asking(b"", "a.example"))) == Announcement("", "", "", "", "a.example")


def test_an_ordinary_header_asks_nothing() -> None:
    found = read(bytearray(encode("run", "program", "token")))

    assert found is not None
    assert found.asked == ""
